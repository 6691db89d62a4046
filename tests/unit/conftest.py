"""One thread a process: tensors are tiny here, and threads that wait for one another hold the cores of other tests."""

import os

# Before anything imports torch.
os.environ["OMP_NUM_THREADS"] = "1"
