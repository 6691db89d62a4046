"""What a training run survives: python -m measure.chaos output=DIR [faults=[learner_dies,sigterm]] [soak=true]

Trains small runs, breaks each in another way from outside (kills or stops its processes, fills its disk, takes a node
away), lets it recover, and counts from its ledger what was lost or trained twice, against an undisturbed run of the
same seed. DIR receives summary.json and a run folder and a log for each fault. Exit code 1 when a run did not recover,
or took longer than is claimed.

soak=true: one long run with a random fault every soaking.every steps instead; DIR receives soak.json.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from conf.cli import run_entrypoint
from conf.schema.chaos import ChaosConfig
from conf.terminal import visible
from measure.chaos.faults import FAULTS
from measure.chaos.soak import soak, write
from measure.chaos.table import markdown, write_summary
from measure.chaos.trial import Lab, read_reference, try_fault

UNDISTURBED = "undisturbed"


def run(config: ChaosConfig) -> int:
    """Raises TrialFailed when not even an undisturbed run succeeds."""
    lab = Lab(config)
    return _soak(lab) if config.soak else _suite(lab)


def _suite(lab: Lab) -> int:
    config, output = lab.config, Path(lab.config.output)
    if config.undisturbed is None:
        _tell(f"{UNDISTURBED} ...")
        whole = lab.undisturbed(UNDISTURBED, config.steps)
    else:
        whole = Path(config.undisturbed)
    reference = read_reference(whole)
    rows = []
    for name in config.faults or tuple(FAULTS):
        _tell(f"{name} ...")
        rows.append(try_fault(name, lab, reference))
        _tell(f"{name}: {rows[-1].status}")
        write_summary(output / "summary.json", rows, settings=config.settings, usual_step_s=reference.step_s)
    sys.stdout.write(f"{visible(markdown(rows), lines=True)}a usual step takes {reference.step_s:.1f} s\n")
    return int(any(row.failed for row in rows))


def _soak(lab: Lab) -> int:
    soaked = soak(lab)
    write(Path(lab.config.output) / "soak.json", soaked)
    for name, value in asdict(soaked).items():
        shown = ", ".join(value) if isinstance(value, list) else str(value)
        sys.stdout.write(f"{name}: {visible(shown)}\n")
    problems = soaked.problems()
    sys.stdout.writelines(f"failed: {visible(problem)}\n" for problem in problems)
    return int(bool(problems))


def _tell(text: str) -> None:
    sys.stderr.write(f"{visible(text)}\n")
    sys.stderr.flush()


def main(arguments: Sequence[str]) -> int:
    return run_entrypoint(ChaosConfig, "chaos", run, __doc__ or "", arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
