"""RMSNorm on a CPU by the kernels that vLLM has compiled for it: four to ten times as fast as what it uses there.

That is five operations of torch, for a compiler to join; our engines run without one.
"""

from typing import Any

PROVIDER = "quorum_cpu"
PRIORITY = {"rms_norm": [PROVIDER], "fused_add_rms_norm": [PROVIDER]}
"""vLLM's `ir_op_priority`; what the kernels do not serve goes to its own next choice."""


def register() -> None:
    """Make PRIORITY known to vLLM. Once a process; again does nothing."""
    import torch
    import vllm._custom_ops  # loads torch.ops._C
    from torch import Tensor
    from vllm import ir

    assert vllm._custom_ops
    if PROVIDER in ir.ops.rms_norm.impls:
        return

    def served(x: Tensor, weight: Tensor | None, variance_size: int | None) -> bool:
        return variance_size is None and weight is not None and weight.dtype == x.dtype and x.is_contiguous()

    def serves(x: Any, weight: Any, epsilon: Any, variance_size: Any = None) -> bool:
        return served(x, weight, variance_size)

    def serves_sum(x: Any, x_residual: Any, weight: Any, epsilon: Any, variance_size: Any = None) -> bool:
        return served(x, weight, variance_size) and x_residual.is_contiguous()

    @ir.ops.rms_norm.register_impl(PROVIDER, supports_args=serves)
    def rms_norm(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> Tensor:
        output = torch.empty_like(x)
        torch.ops._C.rms_norm(output, x, weight, epsilon)
        return output

    @ir.ops.fused_add_rms_norm.register_impl(PROVIDER, supports_args=serves_sum, inplace=True)
    def fused_add_rms_norm(
        x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
    ) -> tuple[Tensor, Tensor]:
        torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)
        return x, x_residual
