"""The whole objective of one forward pass: surrogate x importance weight + KL term, added up with global factors.

Guarantees: the losses of the parts of a batch add up to the loss of the batch, whichever way whole sequences are
divided; masked tokens enter nothing; a part without a selected token has loss 0 with a gradient of exact zeros.
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
        self._kl_coefficient = algo.kl.coefficient
        self._estimate_kl = ESTIMATORS[algo.kl.estimator]

    @property
    def needs_reference(self) -> bool:
        return self._kl_coefficient > 0

    def __call__(self, tokens: LossTokens, keep: torch.Tensor, totals: LossTotals) -> ObjectivePart:
        """`keep` ([T] bool) selects the tokens that enter the loss.

        Raises ValueError when a KL term is asked for and `tokens.reference_logp` is missing.
        """
        tokens = tokens.select(keep)
        surrogate = self._variant.surrogate(tokens)
        weights = importance_weights(tokens, self._importance)
        token_loss = surrogate.loss * weights.token
        kl = None
        if self.needs_reference:
            if tokens.reference_logp is None:
                raise ValueError("kl.coefficient > 0 needs the reference policy's log-probabilities")
            kl = self._estimate_kl(tokens.logp, tokens.reference_logp)
            token_loss = token_loss + self._kl_coefficient * kl
        loss = (token_loss * self._variant.scale(tokens, totals)).sum()
        return ObjectivePart(loss=loss, statistics=token_statistics(tokens, surrogate, weights, kl, loss))
