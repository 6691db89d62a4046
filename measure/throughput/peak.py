"""The machine's matrix-product peak: python -m measure.throughput.peak THREADS DTYPE DEVICE prints FLOP/s.

The best of many products of square matrices, so that what runs beside it counts little.
"""

import sys
import time
from collections.abc import Sequence

import torch

SIZES = {"cpu": 1536, "cuda": 8192}
SECONDS = 3.0


def peak_flops(threads: int, dtype: torch.dtype, device: str) -> float:
    """FLOP/s."""
    torch.set_num_threads(threads)
    size = SIZES[device]
    left, right = torch.randn(2, size, size, device=device).to(dtype).unbind()
    best, end = 0.0, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        began = time.perf_counter()
        torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def main(arguments: Sequence[str]) -> int:
    threads, dtype, device = arguments
    found = peak_flops(int(threads), {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype], device)
    sys.stdout.write(f"{found:.6g}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
