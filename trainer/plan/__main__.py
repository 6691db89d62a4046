"""`python -m trainer.plan experiment=NAME [setting=value ...]`: which actor where, its needs, the cost of a step."""

import sys
from pathlib import Path

from conf.cli import run_entrypoint
from conf.schema.root import TrainConfig
from rollout.shape import shape_of
from trainer.model_check import check_policy
from trainer.plan.advice import build_or_advise
from trainer.plan.machine import assumed
from trainer.plan.scaling import scaled
from trainer.plan.text import MODELLED, cost, places, table


def _plan(config: TrainConfig) -> int:
    shape, machine = shape_of(config.model), assumed(config)
    plan = build_or_advise(config, shape, assumed)
    sys.stdout.write(places(plan) + "\n" + cost(config, plan))
    if plan.cost is not None:
        sys.stdout.write("\nthe same over devices, each number divided as does most groups a second:\n")
        sys.stdout.write(table(scaled(config, shape, machine)))
    sys.stdout.write(f"\n{MODELLED}")
    if config.model.type == "pretrained" and Path(config.model.path).is_dir():
        check_policy(config, Path(config.model.path))
    return 0


def main() -> int:
    """Exit codes: see conf.cli; 1 for a plan that is impossible, and for a model that cannot be trained so."""
    arguments = sys.argv[1:]
    if arguments and not any(argument.lstrip("+").startswith(("data.root=", "data=jsonl")) for argument in arguments):
        # A plan reads no data, so that none need be named.
        arguments = ["++data.root=not-read", *arguments]
    return run_entrypoint(TrainConfig, "train", _plan, __doc__ or "", arguments)


if __name__ == "__main__":
    sys.exit(main())
