"""`python -m trainer experiment=NAME [setting=value ...]`: one GRPO training run."""

import sys

from conf.cli import run_entrypoint
from conf.schema.root import TrainConfig


def main() -> int:
    """Exit codes: see conf.cli. The engines are imported only once the configuration is valid."""

    def job(config: TrainConfig) -> int:
        from trainer.run import run

        return run(config)

    return run_entrypoint(TrainConfig, "train", job, __doc__ or "", sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
