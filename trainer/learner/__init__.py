"""The policy's side of learning: a DeepSpeed rank, its log-probabilities, and the Ray actors that hold ranks."""
