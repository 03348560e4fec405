"""What of the GPU suite can be tested without a GPU: all but what it measures."""
