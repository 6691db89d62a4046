"""BIRD's official metrics, written from the behaviour of the public scripts (bird-bench/mini_dev, evaluation/)."""
