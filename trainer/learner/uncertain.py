"""The tokens of highest entropy of a whole update, whatever its division over ranks and forward passes.

"High-entropy minority tokens drive effective reinforcement learning" (arXiv 2506.01939); the threshold is that of TRL's
top_entropy_quantile, taken over the update where TRL takes it over a micro-batch.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist

from trainer.learner.work import all_reduce


def most_uncertain(entropies: Sequence[torch.Tensor], share: float, device: str) -> tuple[list[torch.Tensor], float]:
    """(for each of `entropies`, [T] each: [T] bool; how many tokens that chooses on all ranks). Collective.

    `share`: of all tokens, in (0, 1); a token with exactly the threshold's entropy is chosen too. `device`: where ranks
    exchange tensors.
    """
    own = torch.cat([torch.empty(0), *(values.cpu() for values in entropies)])
    longest = int(all_reduce(torch.tensor([float(len(own))]), dist.ReduceOp.MAX, device)[0])
    padded = torch.full((longest,), -torch.inf)
    padded[: len(own)] = own
    parts = [torch.empty(longest, device=device) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, padded.to(device))
    everywhere = torch.cat(parts).cpu()
    everywhere = everywhere[everywhere.isfinite()]
    threshold = quantile(everywhere, 1.0 - share) if len(everywhere) else torch.inf
    return [values >= threshold for values in entropies], float((everywhere >= threshold).sum())


def quantile(values: torch.Tensor, q: float) -> float:
    """Linear between the two nearest of `values` [N], as torch.quantile, which takes 16 million values at most."""
    ordered = values.double().sort().values
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(torch.lerp(ordered[low], ordered[high], place - low))
