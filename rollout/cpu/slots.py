"""A request's next token mostly goes into a block of the cache that it has already; then there is nothing to decide.

vLLM's scheduler asks for it all the same, through four layers of Python for each request and step.
"""

from typing import Any

from vllm.v1.core.kv_cache_manager import KVCacheBlocks, KVCacheManager
from vllm.v1.core.single_type_kv_cache_manager import FullAttentionManager
from vllm.v1.request import Request


def install(manager: KVCacheManager) -> None:
    """Answer such questions at once, where every layer has full attention: windows give blocks back."""
    managers = manager.coordinator.single_type_managers
    if len(managers) != 1 or type(managers[0]) is not FullAttentionManager:
        return
    size, ask, nothing = managers[0].block_size, manager.allocate_slots, manager.empty_kv_cache_blocks

    def allocate_slots(request: Request, num_new_tokens: int, *others: Any, **named: Any) -> KVCacheBlocks | None:
        # A first token needs a block, and a last one makes its block known to the prefix cache.
        inside = 0 < request.num_computed_tokens % size < size - 1
        if num_new_tokens == 1 and inside and not others and named == {"num_lookahead_tokens": 0}:
            return nothing
        return ask(request, num_new_tokens, *others, **named)

    manager.allocate_slots = allocate_slots
