"""What a stall is, from what was seen of all ranks. No files, no processes."""
