"""What the processes of a stage run: ranks, engines, and programs that may hang."""
