"""How fast a training step is: python -m measure.throughput against=trl [job=short|long|both] [steps=N]
[output=FILE] [learning.enabled=true], or python -m measure.throughput weights=random model=NAME [device=gpu]

against=trl: this trainer and TRL's GRPOTrainer on the same policy, prompts, rewards, group size and batch, in blocks
that take turns, each a process of its own on the same cores; medians, their ratio, seconds by stage, and the distance
from the arithmetic that a step cannot do without. With weights=random the job has the model's shape and the sizes of
measure.*, on either device. With learning.enabled=true also reward against samples of both over
several seeds, in a plot beside FILE. weights=random: this trainer alone, with a policy of any published shape.
"""

import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from conf.cli import run_entrypoint
from conf.output import new_file, refuse_existing, replace_text
from conf.schema.throughput import ThroughputConfig
from measure.throughput.blocks import bind
from measure.throughput.comparison import compare, table
from measure.throughput.device import measure, show
from measure.throughput.jobs import make_job
from measure.throughput.learning import learn, learning_plot

JOBS = {"short": ("short",), "long": ("long",), "both": ("short", "long")}


def run(config: ThroughputConfig) -> int:
    """Measures, prints and writes. Raises RunFailed."""
    if config.output is not None:
        new_file("output", Path(config.output))
        if config.learning.enabled:
            refuse_existing("output", learning_plot(config, Path(config.folder)))
    folder = (Path(config.folder) / datetime.now().strftime("%Y%m%d-%H%M%S")).resolve()
    folder.mkdir(parents=True)
    if config.device == "cpu":
        bind(config.cores)
    found: dict[str, Any] = {
        "machine": {"platform": platform.machine(), "cpus": os.cpu_count(), "cores": config.cores},
        "runs": str(folder),
    }
    if config.against is None:
        found["alone"] = measure(config, folder)
        sys.stdout.write(show(found["alone"]))
    else:
        for name in ("device",) if config.weights == "random" else JOBS[config.job]:
            found[name] = compare(make_job(name, config, folder), config, folder)
            sys.stdout.write(f"{name}\n{table(found[name])}")
            sys.stdout.flush()
            _write(config, found)
        if config.learning.enabled:
            found["learning"] = learn(config, folder)
    _write(config, found)
    return 0


def _write(config: ThroughputConfig, found: dict[str, Any]) -> None:
    if config.output is not None:
        replace_text(Path(config.output), json.dumps(found, indent=1) + "\n")


def main(arguments: Sequence[str]) -> int:
    return run_entrypoint(ThroughputConfig, "throughput", run, __doc__ or "", arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
