"""The stacks of processes, by whatever can read them."""
