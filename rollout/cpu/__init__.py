"""What vLLM leaves undone on a CPU."""
