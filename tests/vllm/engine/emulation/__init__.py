"""The general plugin of vLLM that makes its CPU engine capture and replay emulated graphs."""
