"""The tokens of highest entropy, on a device: ranks exchange tensors by NCCL."""

import pytest
import torch
import torch.distributed as dist

from trainer.learner.uncertain import most_uncertain

pytestmark = pytest.mark.gpu


def test_the_most_uncertain_tokens_are_found_on_a_device(tmp_path):
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        entropies = [torch.tensor([0.1, 0.9, 0.2], device="cuda"), torch.tensor([0.8], device="cuda")]
        chosen, count = most_uncertain(entropies, 0.5, "cuda")
        assert ([one.tolist() for one in chosen], count) == ([[False, True, False], [True]], 2.0)
        assert most_uncertain([], 0.5, "cuda") == ([], 0.0)
    finally:
        dist.destroy_process_group()
