"""What each reward component is worth: python -m measure.ablation output=DIR [seeds=[0,1,2]] [steps=20]
[variants=[strict,without_atomic]]

Trains the reasoning quickstart with the published reward (`finer`), then with one component off in turn, and with
`reward=strict`, a process for each run, one after the other. All runs of a seed start from one warm-up, which the
trainer's cache shares. The same command continues where it was stopped. DIR receives ablation.json, the table
ablation.md and the plot ablation.svg, anew after every run.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from conf.cli import run_entrypoint
from conf.output import replace_text
from conf.schema.ablation import AblationConfig
from measure.ablation.plot import draw
from measure.ablation.results import as_json, compare, markdown, read_run
from measure.ablation.runs import REFERENCE, finished, planned, train


def run(config: AblationConfig) -> int:
    """Makes the runs that are missing and writes what all of them show. Raises RunFailed."""
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for plan in planned(config):
        if not finished(plan, config.steps):
            sys.stderr.write(f"training {plan.name}: {plan.log}\n")
            train(plan, steps=config.steps, timeout_s=config.run_timeout_s)
        outcomes.append(read_run(plan.folder, variant=plan.variant, seed=plan.seed))
        comparison = compare(outcomes, reference=REFERENCE)
        replace_text(output / "ablation.json", json.dumps(as_json(comparison), indent=1) + "\n")
        replace_text(output / "ablation.md", markdown(comparison, n=config.n))
        replace_text(output / "ablation.svg", draw(comparison, n=config.n))
    sys.stdout.write(markdown(comparison, n=config.n))
    return 0


def main(arguments: Sequence[str]) -> int:
    return run_entrypoint(AblationConfig, "ablation", run, __doc__ or "", arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
