"""The whole objective of one forward pass: surrogate x importance weight + KL term - entropy bonus, added up with
global factors.

Guarantees: the losses of the parts of a batch add up to the loss of the batch, whichever way whole sequences are
divided; masked tokens enter nothing, and tokens that the importance weights or their entropy rule out enter no policy
gradient: they are selected away before a ratio is formed; a part without a selected token has loss 0 with a gradient
of exact zeros.
"""

from dataclasses import dataclass

import torch

from conf.schema.algo import AlgoConfig
from trainer.loss.builder import build_loss
from trainer.loss.importance import importance_weights
from trainer.loss.kl import ESTIMATORS
from trainer.loss.statistics import Statistics, token_statistics
from trainer.loss.tokens import LossTokens, LossTotals


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectivePart:
    """This forward pass's share of the update's loss."""

    loss: torch.Tensor
    """Scalar, differentiable; to be summed over micro-batches and ranks."""
    statistics: Statistics


class Objective:
    """Built once from the configuration; holds no state between calls."""

    def __init__(self, algo: AlgoConfig) -> None:
        self._variant = build_loss(algo.loss)
        self._importance = algo.importance
        self._kl_coefficient = algo.kl.coefficient if algo.kl.place == "loss" else 0.0
        self._estimate_kl = ESTIMATORS[algo.kl.estimator]
        self._entropy_bonus = algo.entropy.bonus

    @property
    def needs_reference(self) -> bool:
        return self._kl_coefficient > 0

    @property
    def needs_entropy_gradient(self) -> bool:
        return self._entropy_bonus > 0

    def __call__(self, tokens: LossTokens, keep: torch.Tensor, totals: LossTotals) -> ObjectivePart:
        """`keep` ([T] bool) selects the tokens that enter the loss.

        Raises ValueError when a term is asked for and `tokens.reference_logp` or `tokens.entropy` is missing.
        """
        tokens = tokens.select(keep)
        weights = importance_weights(tokens, self._importance)
        active = weights.kept if tokens.uncertain is None else weights.kept & tokens.uncertain
        log_ratio = self._variant.log_ratio(tokens)
        surrogate = self._variant.surrogate(log_ratio[active], tokens.advantage[active], tokens.logp[active])
        scale = self._variant.scale(tokens, totals)
        loss = (surrogate.loss * weights.token[active] * scale[active]).sum()
        kl = None
        if self.needs_reference:
            if tokens.reference_logp is None:
                raise ValueError("kl.coefficient > 0 needs the reference policy's log-probabilities")
            kl = self._estimate_kl(tokens.logp, tokens.reference_logp)
            loss = loss + self._kl_coefficient * (kl * scale).sum()
        if self.needs_entropy_gradient:
            loss = loss - self._entropy_bonus * _mean_entropy(tokens, totals)
        return ObjectivePart(loss=loss, statistics=token_statistics(tokens, surrogate, weights, kl, loss))


def _mean_entropy(tokens: LossTokens, totals: LossTotals) -> torch.Tensor:
    """This part's share of the mean over the tokens that the policy gradient is restricted to (all, unless by entropy),
    as TRL's entropy_coef counts them."""
    if tokens.entropy is None:
        raise ValueError("entropy.bonus > 0 needs the tokens' entropies")
    chosen = tokens.entropy if tokens.uncertain is None else tokens.entropy[tokens.uncertain]
    count = totals.tokens if totals.uncertain_tokens is None else totals.uncertain_tokens
    return chosen.sum() / max(count, 1.0)
