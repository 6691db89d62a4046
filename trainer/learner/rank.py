"""One learner rank: its share of every optimizer update, log-probabilities, weights out, state in and out.

Guarantees: the loss and the updated weights do not depend on how groups are divided over ranks and forward passes;
an update whose gradient is not finite changes nothing and is counted.
Every public method is collective: all ranks call it, with their own share of the sequences (which may be empty).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from conf.errors import first_line
from records.checkpoint import CheckpointFailed
from rollout.weights.handle import EngineLife
from trainer.carriers import TrainingSequence
from trainer.learner.backend import start_engine
from trainer.learner.errors import LearnerError
from trainer.learner.exactness import check_model
from trainer.learner.fused import cpu, gpu
from trainer.learner.gather import gathered_weights
from trainer.learner.lora import add_adapters
from trainer.learner.packing.batch import PackedBatch
from trainer.learner.policy import Policy, load_model
from trainer.learner.quiet import quiet_transformers
from trainer.learner.schedule import learning_rate
from trainer.learner.spec import LearnerSpec, Rendezvous
from trainer.learner.state import Progress, load_state, save_state
from trainer.learner.uncertain import most_uncertain
from trainer.learner.update import MadeUpdate, Update, by_pass
from trainer.learner.weight_check import check_weights
from trainer.learner.work import Work, all_reduce, divide_work, tokens_per_update
from trainer.loss.kl import ESTIMATORS
from trainer.loss.objective import Objective
from trainer.loss.statistics import Statistics, loss_metrics, no_statistics
from trainer.loss.tokens import LossTokens, LossTotals


class LearnerRank:
    def __init__(self, spec: LearnerSpec, rendezvous: Rendezvous) -> None:
        """Loads the policy and joins the other ranks. Raises PolicyNotLoadable, LearnerError."""
        quiet_transformers()
        config = spec.learner
        if spec.device == "cpu":
            torch.set_num_threads(config.threads)
        torch.manual_seed(spec.seed + rendezvous.rank)
        self._spec, self._rank, self._world = spec, rendezvous.rank, rendezvous.world_size
        if self._rank == 0:
            check_model(
                spec.policy,
                packing=config.packing,
                longest=spec.longest_sequence,
                checkpointing=config.gradient_checkpointing,
                lora=config.lora,
            )
        policy = self._load(spec.policy)
        if config.lora.rank:
            add_adapters(policy.language_model, config.lora, seed=spec.seed)
        if config.gradient_checkpointing:
            policy.language_model.gradient_checkpointing_enable({"use_reentrant": False})
        self._objective = Objective(spec.algo)
        self._engine = start_engine(policy.to(spec.device), spec, rendezvous)
        self._reference: Policy | None = None
        if spec.algo.kl.coefficient > 0:
            self._reference = self._load(spec.reference or spec.policy).to(spec.device).eval().requires_grad_(False)
        self._sender = spec.sender() if spec.sender is not None and self._rank == 0 else None
        self._progress = Progress(applied=0, skipped=0)
        self._made: list[MadeUpdate] = []

    def _load(self, folder: str) -> Policy:
        config = self._spec.learner
        sharded_bf16 = config.dtype == "bfloat16" and config.zero_stage > 0
        dtype = torch.bfloat16 if sharded_bf16 else torch.float32
        model = load_model(folder, packing=config.packing, device=self._spec.device, dtype=dtype)
        if self._spec.fused:
            {"cpu": cpu, "cuda": gpu}[self._spec.device].fuse(model)
        return Policy(model, temperature=self._spec.temperature, chunk=config.logprob_chunk_tokens)

    @property
    def policy(self) -> Policy:
        """The module that DeepSpeed trains."""
        return self._engine.module

    @property
    def progress(self) -> Progress:
        return self._progress

    def train(self, updates: Sequence[Sequence[TrainingSequence]]) -> dict[str, float]:
        """One optimizer update for each element of `updates`; metrics of the whole step, the same on every rank.

        Raises SequenceTooLong, WrongWeights.
        """
        prepared = self.prepare(updates)
        norms: list[float] = []
        made: list[MadeUpdate] = []
        check: dict[str, float] = {}
        statistics, skipped = no_statistics(), self._progress.skipped
        for update in prepared:
            if update.work.tokens == 0:
                made.append(MadeUpdate(applied=None, old_logprobs=[]))
                continue
            part = self._accumulate(update)
            if not norms:
                check = self._check_weights(part)
            statistics += part
            before = self._progress.skipped
            norms.append(self._step())
            applied = self._progress.skipped == before
            made.append(MadeUpdate(applied=applied, old_logprobs=[] if applied else update.old_logprobs()))
        self._made = made
        masked = sum(len(s.completion_ids) for sequences in updates for s in sequences if s.masked)
        work = [update.work for update in prepared]
        return check | self._metrics(statistics, work, norms, masked, self._progress.skipped - skipped)

    def made(self) -> list[MadeUpdate]:
        """What became of each update of the last step."""
        return self._made

    def prepare(
        self,
        updates: Sequence[Sequence[TrainingSequence]],
        *,
        old_logprobs: Sequence[Sequence[Sequence[float]]] | None = None,
    ) -> list[Update]:
        """The updates of one step, before the first of them is made. `old_logprobs`: what each was compared with when
        it was made before, as in `MadeUpdate` (None: what `algo` says)."""
        work = [divide_work(sequences, self._spec.learner, self._spec.device) for sequences in updates]
        step_tokens = tokens_per_update(work)
        prepared = []
        for place, one in enumerate(work):
            old, uncertain, count = self._first_pass(one, updates=len(work))
            if old_logprobs is not None and old_logprobs[place]:
                old = by_pass(one, old_logprobs[place], self._spec.device)
            totals = LossTotals(
                sequences=one.sequences,
                tokens=one.tokens,
                step_tokens=step_tokens,
                completion_budget=self._spec.completion_budget,
                uncertain_tokens=count,
            )
            prepared.append(Update(work=one, totals=totals, old_logp=old, uncertain=uncertain))
        return prepared

    def gradient_norm(self, update: Update, members: Collection[int]) -> float:
        """Of the update's loss with all but `members` of its sequences left out, which still count in what it divides
        by. Makes the update: for a learner whose learning rate moves no weight."""
        self._accumulate(update, frozenset(members))
        return self._step()

    def _accumulate(self, update: Update, members: frozenset[int] | None = None) -> Statistics:
        """Forms the update's gradient, or (one rank alone) that of some of its sequences."""
        statistics = no_statistics()
        for index, batch in enumerate(update.work.batches):
            if members is not None and members.isdisjoint(batch.members):
                continue
            chosen = [members is None or member in members for member in batch.members]
            statistics += self._backward(
                batch,
                update.totals,
                old_logp=None if update.old_logp is None else update.old_logp[index],
                uncertain=None if update.uncertain is None else update.uncertain[index],
                selected=index < update.work.own and (all(chosen) or torch.tensor(chosen, device=self._spec.device)),
            )
        return statistics

    def logprobs(self, sequences: Sequence[TrainingSequence]) -> list[list[float]]:
        """Log-probability of every completion token under the current policy, nats, in the order of `sequences`."""
        return [values.tolist() for values in self._logprobs(self.policy, sequences)]

    def reference_logprobs(self, sequences: Sequence[TrainingSequence]) -> list[list[float]]:
        """As `logprobs`, under the reference policy; one empty list each where none is kept."""
        if self._reference is None:
            return [[] for _ in sequences]
        return [values.tolist() for values in self._logprobs(self._reference, sequences)]

    def reference_kl(self, sequences: Sequence[TrainingSequence]) -> list[float]:
        """algo.kl.estimator of KL(engine's policy || reference), summed over each completion's tokens, nats; 0 for an
        empty completion."""
        assert self._reference is not None, "the reference policy is loaded where algo.kl.coefficient > 0"
        estimate = ESTIMATORS[self._spec.algo.kl.estimator]
        found = self._logprobs(self._reference, sequences)
        return [float(estimate(torch.tensor(s.logprobs), r).sum()) for s, r in zip(sequences, found, strict=True)]

    def _logprobs(self, policy: Policy, sequences: Sequence[TrainingSequence]) -> list[torch.Tensor]:
        places = [i for i, s in enumerate(sequences) if s.completion_ids]
        work = divide_work([replace(sequences[i], masked=False) for i in places], self._spec.learner, self._spec.device)
        found = [torch.empty(0)] * len(sequences)
        passes = list(zip(work.batches, self._forward(policy, work.batches), strict=True))
        for batch, (logp, _) in passes[: work.own]:
            for member, values in zip(batch.members, logp.cpu().split(batch.lengths), strict=True):
                found[places[member]] = values
        return found

    def publish(self, version: int, *, engines: Sequence[EngineLife] = ()) -> Any:
        """Offer the current weights to the engines: a handle on rank 0, None on the others. Raises LearnerError."""
        weights = gathered_weights(self._engine.module.language_model, sharded=self._spec.learner.zero_stage == 3)
        if self._rank != 0:
            for _ in weights:
                pass
            return None
        if self._sender is None:
            raise LearnerError("this learner was started without a weight sender and cannot publish weights")
        return self._sender.publish(weights, version, engines=engines)

    def save(self, folder: Path) -> None:
        """Write `folder`/policy (Hugging Face format, with the tokenizer) and `folder`/learner (everything else).

        Raises CheckpointFailed, on the rank that cannot write; the others come back.
        """
        try:
            save_state(folder, self._engine, self._spec, self._progress, rank=self._rank, world_size=self._world)
        except Exception as error:
            # transformers, torch and safetensors have no class for what they cannot or will not write: a full disk is a
            # RuntimeError, a config that they refuse a ValueError. The weights that are trained are untouched by all.
            reason = first_line(error, otherwise=type(error).__name__)
            raise CheckpointFailed(f"learner rank {self._rank}: {reason}") from error
        finally:
            dist.barrier()

    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote. Raises LearnerError when it is incomplete or of another shape of learner."""
        self._progress = load_state(folder, self._engine, self._spec, rank=self._rank, world_size=self._world)
        dist.barrier()

    def close(self) -> None:
        """Release the engine and the published weights; the process group stays until `backend.leave_group`."""
        if self._sender is not None:
            self._sender.close()
        self._engine.destroy()

    def _first_pass(
        self, work: Work, *, updates: int
    ) -> tuple[list[torch.Tensor] | None, list[torch.Tensor] | None, float | None]:
        """(Update.old_logp, Update.uncertain, LossTotals.uncertain_tokens)."""
        algo = self._spec.algo
        compares = updates > 1 and algo.old_logprobs == "learner"
        chooses = algo.entropy.top_share < 1.0
        old = [batch.engine_logp for batch in work.batches] if updates > 1 else None
        if not compares and not chooses:
            return old, None, None
        logps, entropies = zip(*self._forward(self.policy, work.batches), strict=True) if work.batches else ((), ())
        old = list(logps) if compares else old
        if not chooses:
            return old, None, None
        chosen, count = most_uncertain(entropies[: work.own], algo.entropy.top_share, self._spec.device)
        idle = [torch.zeros_like(values, dtype=torch.bool) for values in entropies[work.own :]]
        return old, chosen + idle, count

    def _forward(self, policy: Policy, batches: Sequence[PackedBatch]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Log-probabilities and entropies, [T] each, of each batch, without gradient."""
        policy.eval()
        for batch in batches:
            with torch.no_grad(), self._autocast():
                yield policy(batch)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._spec.device, dtype=torch.bfloat16, enabled=self._spec.autocast)

    def _backward(
        self,
        batch: PackedBatch,
        totals: LossTotals,
        *,
        old_logp: torch.Tensor | None,
        uncertain: torch.Tensor | None,
        selected: bool | torch.Tensor,
    ) -> Statistics:
        """Adds this batch's share of the gradient, or that of the `selected` ([S] bool) of its sequences; of what is
        not selected, exact zeros."""
        self._engine.train()
        reference_logp = None
        with self._autocast():
            logp, entropy = self._engine(batch=batch)
            if self._objective.needs_reference:
                assert self._reference is not None
                with torch.no_grad():
                    reference_logp = self._reference(batch)[0]
        tokens = LossTokens(
            logp=logp,
            old_logp=logp.detach() if old_logp is None else old_logp,
            engine_logp=batch.engine_logp,
            advantage=batch.advantage,
            sequence=batch.sequence,
            sequences=len(batch.members),
            entropy=entropy if self._objective.needs_entropy_gradient else entropy.detach(),
            reference_logp=reference_logp,
            staleness=batch.staleness,
            uncertain=uncertain,
        )
        if isinstance(selected, torch.Tensor):
            keep = selected[batch.sequence]
        else:
            keep = torch.full_like(batch.sequence, selected, dtype=torch.bool)
        part = self._objective(tokens, keep, totals)
        # DeepSpeed takes the mean over ranks; the totals are global already.
        self._engine.backward(part.loss * self._world, scale_wrt_gas=False)
        return part.statistics

    def _check_weights(self, statistics: Statistics) -> dict[str, float]:
        """Raises WrongWeights, on every rank, before a batch is trained on that another policy has sampled."""
        return check_weights(self._everywhere(statistics), self._spec.max_logprob_difference)

    def _everywhere(self, statistics: Statistics) -> Statistics:
        """`statistics` over all ranks. Collective."""
        maxima = all_reduce(statistics.maxima, dist.ReduceOp.MAX, self._spec.device)
        sums = all_reduce(statistics.sums_beside(maxima), dist.ReduceOp.SUM, self._spec.device)
        return Statistics(sums=sums, maxima=maxima)

    def _step(self) -> float:
        """Apply the accumulated gradient; its global norm before clipping (inf or nan when it was skipped)."""
        rate = learning_rate(self._progress.applied, self._spec.learner, self._spec.total_updates)
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate
        self._engine.step()
        if self._spec.learner.zero_stage == 0:
            applied, norm = self._engine.optimizer.applied, self._engine.optimizer.grad_norm
        else:
            applied, norm = self._engine.was_step_applied(), float(self._engine.get_global_grad_norm())
        before = self._progress
        self._progress = Progress(applied=before.applied + applied, skipped=before.skipped + (not applied))
        return norm

    def _metrics(
        self, statistics: Statistics, work: Sequence[Work], norms: Sequence[float], masked: int, skipped: int
    ) -> dict[str, float]:
        """Reduced over ranks and updates; keys are those of records/metrics_keys.py that can be known here."""
        forwarded = sum(batch.forwarded for one in work for batch in one.batches)
        counts = torch.tensor([float(forwarded), float(masked)], dtype=torch.float64)
        all_forwarded, all_masked = all_reduce(counts, dist.ReduceOp.SUM, self._spec.device).tolist()
        whole = self._everywhere(statistics)
        trained = sum(one.tokens for one in work)
        metrics = loss_metrics(whole, with_reference=self._objective.needs_reference)
        if norms:
            metrics["policy/loss"] /= len(norms)
            metrics["policy/grad_norm"] = sum(norms) / len(norms)
            metrics["perf/packing_ratio"] = trained / all_forwarded
        if self._spec.device == "cuda":
            metrics["perf/gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        return metrics | {
            "policy/learning_rate": self._engine.optimizer.param_groups[0]["lr"],
            "policy/masked_share": all_masked / (all_masked + trained) if all_masked + trained else 0.0,
            "policy/skipped_updates": float(skipped),
            "perf/tokens_trained": trained,
            "perf/tokens_forwarded": all_forwarded,
        }
