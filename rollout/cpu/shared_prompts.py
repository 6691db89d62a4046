"""Completions of one prompt start from a copy of its keys and values, the last partly filled cache block included.

vLLM shares only whole blocks between requests, so each completion of a group would read the rest of its prompt anew:
with blocks of 32 tokens, the smallest on a CPU, half of all tokens that an engine computes for prompts of 52 tokens
and completions of 20. Here the first request of a prompt reads it; the others wait for that step, get copies, and
compute the prompt's last token alone, to sample from it. It is a KV connector, vLLM's extension point for keys and
values that come from elsewhere; here they come from another block of the same cache.

Guarantees: nothing is copied from a request that has not computed the whole prompt, that was preempted since (as all
are by a weight update), or whose window has left a part of it. A waiting request never waits for one that does not run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorMetadata
from vllm.v1.request import RequestStatus


@dataclass(slots=True)
class BlockCopies(KVConnectorMetadata):
    """What one engine step copies before its forward pass."""

    targets: dict[int, list[int]] = field(default_factory=dict)
    """Numbers of cache blocks, by the number of the block that is copied there."""


class SharedPrompts(KVConnectorBase_V1):
    """The scheduler holds one, and the worker another."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._readers: dict[tuple[int, ...], Any] = {}
        """The request that reads, or has read, each prompt."""
        self._copies = BlockCopies()
        self._caches: tuple[torch.Tensor, ...] = ()

    # The scheduler's side.

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        """How many tokens after the first `num_computed_tokens` are copied; None: ask again at the next step."""
        missing = request.num_prompt_tokens - 1 - num_computed_tokens
        if missing <= 0:
            return 0, False
        prompt = tuple(request.prompt_token_ids)
        reader = self._readers.get(prompt)
        copied = self._blocks(num_computed_tokens, request)
        if reader is None or reader is request or not self._holds(reader, copied):
            self._readers[prompt] = request
            return 0, False
        return (missing if reader.num_computed_tokens >= request.num_prompt_tokens else None), False

    def _blocks(self, computed: int, request: Any) -> slice:
        """Which blocks hold the prompt after its first `computed` tokens, without its last one."""
        size = self._vllm_config.cache_config.block_size
        return slice(computed // size, (request.num_prompt_tokens - 2) // size + 1)

    def _holds(self, reader: Any, blocks: slice) -> bool:
        """Whether a reader's keys and values are there: it runs, and a window, which gives blocks back, has not gone
        past them."""
        if reader.status != RequestStatus.RUNNING:
            return False
        assert self._kv_cache_manager is not None, "the scheduler binds its cache before it schedules"
        nothing = self._kv_cache_manager.block_pool.null_block.block_id
        return nothing not in self._kv_cache_manager.get_block_ids(reader.request_id)[0][blocks]

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """Note what is to be copied into the blocks of `request`."""
        if not num_external_tokens:
            return
        assert self._kv_cache_manager is not None, "the scheduler binds its cache before it schedules"
        reader = self._readers[tuple(request.prompt_token_ids)]
        copied = self._blocks(request.num_prompt_tokens - 1 - num_external_tokens, request)
        sources = self._kv_cache_manager.get_block_ids(reader.request_id)[0][copied]
        for source, target in zip(sources, blocks.get_block_ids()[0][copied], strict=True):
            self._copies.targets.setdefault(source, []).append(target)

    def build_connector_meta(self, scheduler_output: Any) -> BlockCopies:
        """What the step that was just scheduled has to copy."""
        copies, self._copies = self._copies, BlockCopies()
        return copies

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """Forget a reader: its blocks are about to be used for others."""
        prompt = tuple(request.prompt_token_ids)
        if self._readers.get(prompt) is request:
            del self._readers[prompt]
        return False, None

    # The worker's side.

    def register_kv_caches(self, kv_caches: Mapping[str, torch.Tensor]) -> None:
        """Each layer's cache, [blocks, ...]."""
        self._caches = tuple(kv_caches.values())

    def start_load_kv(self, forward_context: Any, **_: Any) -> None:
        """Copy, before the forward pass."""
        copies = self._get_connector_metadata()
        assert isinstance(copies, BlockCopies)
        for source, targets in copies.targets.items():
            index = torch.tensor(targets)
            for cache in self._caches:
                cache[index] = cache[source].clone()

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Nothing: copies are whole before the forward pass begins."""

    def save_kv_layer(self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: Any, **_: Any) -> None:
        """Nothing: what is copied is in the cache already."""

    def wait_for_save(self) -> None:
        """Nothing is saved."""
