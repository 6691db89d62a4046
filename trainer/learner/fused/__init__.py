"""A Qwen2's operations between the matrix products, each as one: by hand on a CPU, by compiled kernels on a GPU."""
