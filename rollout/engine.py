"""One vLLM engine that is stepped by hand: groups go in, finished groups come out, weights change between two steps.

Guarantees: a group is returned once, whole, with the exact policy version of every token; after `update_weights` no
token and no cached key or value of the old weights is used; completions in flight continue under the new ones (their
keys and values are computed anew), or begin anew with rollout.in_flight=abort. An engine whose update failed refuses
to generate.
Not guaranteed: the same samples twice, where requests arrive at different times.
Not thread-safe: one thread owns the engine (see worker.py).
"""

import time
from pathlib import Path
from typing import Any

from rollout.carriers import Completion
from rollout.collector import Collector, Sampled
from rollout.detokenizer import Detokenizer
from rollout.errors import GenerationFailed, PromptTooLongForEngine, RolloutError, WeightUpdateFailed
from rollout.preflight import check_context, check_model_folder, stop_tokens
from rollout.requests import EngineSpec, GenerationRequest, SampledGroup
from rollout.vllm_backend import add_request, build_engine
from rollout.weights.handle import NcclHandle, SharedMemoryHandle, SyncReport, WeightHandle
from rollout.weights.segment import SegmentReader


class RolloutEngine:
    """A running engine and what turns its tokens into text."""

    def __init__(self, spec: EngineSpec) -> None:
        """Start the engine.

        Raises:
            ModelFolderMissing, ContextTooSmall, TokenizerMismatch, NotEnoughMemory, EngineStartFailed.
        """
        folder = Path(spec.model)
        config = check_model_folder(folder)
        check_context(folder, config, spec.max_model_len)
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(spec.model, trust_remote_code=False)
        self._detokenizer = Detokenizer(tokenizer)
        self._stop = stop_tokens(folder, config, tokenizer)
        self._spec = spec
        self._collector = Collector(spec.version)
        self._engine = build_engine(spec, self._collector)
        self._requests: dict[str, GenerationRequest] = {}
        self._session: int | None = None
        self._broken = False

    @property
    def version(self) -> int:
        """Policy version of the weights in use."""
        return self._collector.version

    @property
    def pending(self) -> int:
        """Groups not finished yet."""
        return self._collector.groups

    def add(self, request: GenerationRequest) -> None:
        """Queue one group.

        Raises:
            PromptTooLongForEngine: the prompt leaves no room for the completion budget.
        """
        budget = len(request.prompt_ids) + request.sampling.max_tokens
        if budget > self._spec.max_model_len:
            raise PromptTooLongForEngine(
                f"group {request.id}: prompt of {len(request.prompt_ids)} tokens plus"
                f" max_tokens={request.sampling.max_tokens} exceeds the engine's context of {self._spec.max_model_len}"
            )
        self._requests[request.id] = request
        add_request(self._engine, request, self._stop)

    def abort(self, group_ids: list[str]) -> None:
        """Drop groups that nobody waits for any more; unknown ids are ignored."""
        for group_id in group_ids:
            self._requests.pop(group_id, None)
        self._engine.abort_request(group_ids)

    def step(self) -> tuple[SampledGroup, ...]:
        """Run one engine step and return the groups that it finished.

        Raises:
            GenerationFailed: vLLM raised, or the engine's weights are in doubt.
            LogprobsDamaged: a token was sampled from logits that are no numbers.
        """
        if self._broken:
            raise GenerationFailed("the engine's last weight update failed: it must be replaced before it generates")
        try:
            self._engine.step()
        except RolloutError:
            raise
        except (RuntimeError, ValueError, AssertionError) as error:
            raise GenerationFailed(f"vLLM raised while generating: {error}") from error
        return tuple(self._group(group, sampled) for group, sampled in self._collector.take())

    def update_weights(self, handle: WeightHandle, *, rank_offset: int = 1) -> SyncReport:
        """Replace the weights in place.

        Args:
            handle: where the weights lie.
            rank_offset: this engine's first rank in the nccl group.

        Raises:
            WeightsSuperseded: the weights are gone before anything was loaded; the engine goes on with the old ones.
            WeightUpdateFailed: the weights did not arrive whole; the engine refuses to generate from then on.
        """
        from rollout.weights.receiver import init_payload, update_payload

        began = time.perf_counter()
        if isinstance(handle, SharedMemoryHandle):
            SegmentReader(handle)
        try:
            if isinstance(handle, NcclHandle) and handle.session != self._session:
                self._call("init_weight_transfer_engine", init_payload(handle, rank_offset=rank_offset))
                self._session = handle.session
            self._call("start_weight_update")
            self._call("update_weights", update_payload(handle))
            self._call("finish_weight_update")
        except WeightUpdateFailed as error:
            self._broken = True
            raise WeightUpdateFailed(
                f"weights of version {handle.version} were lost while being loaded: {error}"
            ) from error
        except (RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
            self._broken = True
            raise WeightUpdateFailed(f"weights of version {handle.version} could not be loaded: {error}") from error
        loaded = time.perf_counter()
        in_flight, tokens = self._collector.running, self._collector.running_tokens
        again = list(self._requests.values()) if self._spec.in_flight == "abort" else []
        self.abort([request.id for request in again])
        self._engine.reset_prefix_cache(reset_running_requests=True)
        self._collector.version = handle.version
        for request in again:
            self.add(request)
        return SyncReport(
            version=handle.version,
            pause_s=0.0,
            transfer_s=loaded - began,
            resume_s=time.perf_counter() - loaded,
            in_flight=in_flight if not again else 0,
            aborted=in_flight if again else 0,
            aborted_tokens=tokens if again else 0,
        )

    def _call(self, method: str, *arguments: Any) -> None:
        self._engine.collective_rpc(method, args=arguments)

    def _group(self, group: str, sampled: list[Sampled]) -> SampledGroup:
        del self._requests[group]
        texts = self._detokenizer.texts([s.token_ids for s in sampled])
        return SampledGroup(
            id=group, completions=tuple(_completion(s, text) for s, text in zip(sampled, texts, strict=True))
        )


def _completion(sampled: Sampled, text: str) -> Completion:
    return Completion(
        text=text,
        token_ids=tuple(sampled.token_ids),
        logprobs=sampled.token_logprobs(),
        version_spans=tuple(sampled.spans),
        finish_reason="stop" if sampled.finish_reason == "stop" else "length",
    )
