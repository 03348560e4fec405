"""What ranks and their processes are doing right now, for whoever looks."""
