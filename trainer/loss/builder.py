"""From a loss's configuration to the loss: one line a variant."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from conf.schema.algo import LossConfig
from trainer.loss.bnpo import Bnpo
from trainer.loss.cispo import Cispo
from trainer.loss.dapo import Dapo
from trainer.loss.dr_grpo import DrGrpo
from trainer.loss.grpo import Grpo
from trainer.loss.gspo import Gspo
from trainer.loss.sapo import Sapo
from trainer.loss.variant import LossVariant

LOSSES: Mapping[str, Callable[[Any], LossVariant]] = MappingProxyType(
    {
        "grpo": Grpo,
        "dr_grpo": DrGrpo,
        "dapo": Dapo,
        "bnpo": Bnpo,
        "gspo": Gspo,
        "cispo": Cispo,
        "sapo": Sapo,
    }
)


def build_loss(config: LossConfig) -> LossVariant:
    """The variant that `config.type` names; the schema admits no other."""
    return LOSSES[config.type](config)
