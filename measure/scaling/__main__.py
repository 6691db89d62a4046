"""The pipeline beyond the machines at hand: python -m measure.scaling [calibrate=[RUN,...] check=[RUN,...]]
[devices=[2,8,32]] [output=FILE]

Runs the trainer's own buffer, staleness rules and loop against timed stand-ins for engines, rewards and learner, on a
clock that jumps. With calibrate and check: costs fitted to the stage times of synchronous runs predict the steps of
other runs on the same machine; exit code 1 when one is off by more than `tolerance`. Otherwise: a table over devices,
whose costs are the assumptions of plan.* (python -m trainer.plan), not measurements.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conf.cli import run_entrypoint
from conf.errors import ConfigError
from conf.output import new_file, replace_text
from conf.schema.simulation import SimulationConfig
from measure.scaling.devices import HEAD, line, table
from measure.scaling.measured_runs import calibrated, predict, read_run


def run(config: SimulationConfig) -> int:
    """Raises RunUnusable, PlanImpossible."""
    if bool(config.calibrate) != bool(config.check):
        raise ConfigError("calibrate and check come together: costs are fitted to the one and tested on the other")
    if config.output is not None:
        new_file("output", Path(config.output))
    if config.calibrate:
        return _check(config)
    rows = []
    sys.stdout.write(HEAD)
    for row in table(config):
        sys.stdout.write(line(row))
        sys.stdout.flush()
        rows.append(row.as_json())
        _write(config, {"rows": rows})
    return 0


def _check(config: SimulationConfig) -> int:
    costs = calibrated([read_run(Path(folder)) for folder in config.calibrate])
    found = [predict(read_run(Path(folder)), costs) for folder in config.check]
    for one in found:
        verdict = "within" if abs(one.error) <= config.tolerance else "beyond"
        sys.stdout.write(
            f"{one.run}: measured {one.measured_s:.3f} s a step, predicted {one.predicted_s:.3f} s, "
            f"{100 * one.error:+.1f} %: {verdict} {100 * config.tolerance:.0f} %\n"
        )
    _write(config, {"predictions": [one.as_json() for one in found]})
    return 0 if all(abs(one.error) <= config.tolerance for one in found) else 1


def _write(config: SimulationConfig, found: dict[str, Any]) -> None:
    if config.output is not None:
        replace_text(Path(config.output), json.dumps(found, indent=1) + "\n")


def main(arguments: Sequence[str]) -> int:
    return run_entrypoint(SimulationConfig, "simulation", run, __doc__ or "", arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
