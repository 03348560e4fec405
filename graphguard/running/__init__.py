"""``graphguard run``: a program that was not changed is recorded, with all that it starts."""
