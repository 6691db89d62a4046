"""`python -m trainer.warmup experiment=NAME [setting=value ...]`: the warm-up alone; prints the policy's folder."""

import sys

from conf.cli import run_entrypoint
from conf.errors import ConfigError
from conf.schema.root import TrainConfig
from conf.terminal import visible


def main() -> int:
    """Exit codes: see conf.cli. torch is imported only once the configuration is valid."""
    return run_entrypoint(TrainConfig, "train", _job, __doc__ or "", sys.argv[1:])


def _job(config: TrainConfig) -> int:
    if not config.warmup.enabled:
        raise ConfigError("warmup.enabled=false: choose warmup=tiny, or set warmup.enabled=true")
    from rollout.tasks import load_tasks
    from trainer.data import checked
    from trainer.warmup.sft import WarmupProgress
    from trainer.warmup.stage import configured_warm_up

    def show(progress: WarmupProgress) -> None:
        sys.stderr.write(f"warm-up step {progress.step}/{progress.steps}  loss {progress.loss:.3f}\n")

    tasks = checked(config, load_tasks(config.data))
    policy = configured_warm_up(config, tasks, show)
    for entry in (*tasks.dropped, *policy.dropped):
        told = f"left out {entry.id}: {entry.reason} ({entry.detail})"
        sys.stderr.write(f"{visible(told)}\n")
    sys.stdout.write(f"{policy.folder}{' (from the cache)' if policy.cached else ''}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
