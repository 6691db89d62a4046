"""Where metrics go while a run lasts: the console, Weights & Biases, Prometheus."""
