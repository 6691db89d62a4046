"""How fast, how steady and how easily gamed rewards are: python -m measure.rewards root=DIR
[measures=[throughput,memory,reference,soak,gaming]]

DIR holds spider/ and bird/ in their published layouts and predictions/ with recorded predictions. Nothing is learned
about a policy here; the figures are this machine's.
"""

import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.carriers import BenchmarkError
from conf.cli import run_entrypoint
from conf.output import refuse_existing, replace_text
from conf.schema.reward_benchmark import Measure, RewardBenchmarkConfig
from measure.rewards import gaming, reference, soak, throughput

Figures = dict[str, float]

MEASURES: dict[Measure, dict[str, Callable[[RewardBenchmarkConfig], Figures]]] = {
    "throughput": {
        "spider": lambda config: throughput.measure(config, "spider"),
        "bird": lambda config: throughput.measure(config, "bird"),
    },
    "memory": {"memory": throughput.measure_memory},
    "reference": {"reference": reference.measure},
    "soak": {"soak": soak.measure},
    "gaming": {
        "spider/finer": lambda config: gaming.measure(config, "spider", "finer"),
        "spider/strict": lambda config: gaming.measure(config, "spider", "strict"),
        "bird/finer": lambda config: gaming.measure(config, "bird", "finer"),
        "bird/strict": lambda config: gaming.measure(config, "bird", "strict"),
    },
}


def run(config: RewardBenchmarkConfig) -> int:
    """Runs the measures and prints one line a figure. Raises BenchmarkError."""
    if config.instances is not None and not Path(config.instances).is_dir():
        raise BenchmarkError(f"instances={config.instances}: no such folder")
    if config.output is not None and (Path(config.output).is_dir() or not Path(config.output).parent.is_dir()):
        raise BenchmarkError(f"output={config.output}: a file in a folder that exists expected")
    if config.output is not None:
        refuse_existing("output", Path(config.output))
    found: dict[str, Figures | str] = {"machine": f"{platform.machine()}, {os.cpu_count()} CPUs"}
    for measure in config.measures:
        for name, take in MEASURES[measure].items():
            figures = take(config)
            found[name] = figures
            for key, value in figures.items():
                sys.stdout.write(
                    f"{name:<13} {key:<30} {value:,.4g}\n" if value < 10 else f"{name:<13} {key:<30} {value:,.0f}\n"
                )
            sys.stdout.flush()
    if config.output is not None:
        replace_text(Path(config.output), json.dumps(found, indent=1) + "\n")
    return 0


def main(arguments: Sequence[str]) -> int:
    return run_entrypoint(RewardBenchmarkConfig, "benchmark_rewards", run, __doc__ or "", arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
