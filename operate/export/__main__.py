"""`python -m operate.export RUN --to FOLDER`: a trained policy as a Hugging Face folder with a model card."""

import argparse
import sys
from pathlib import Path

from conf.errors import QuorumError
from conf.terminal import tell
from operate.export.folder import export
from operate.trained_run import trained


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m operate.export", description="Export a trained policy.")
    parser.add_argument("run", type=Path, help="run folder, such as runs/quickstart")
    parser.add_argument("--to", type=Path, required=True, help="folder to make")
    parser.add_argument("--checkpoint", default="last", help="last (default), best, or a step")
    arguments = parser.parse_args()
    try:
        chosen = trained(arguments.run, arguments.checkpoint)
        sys.stdout.write(f"{export(chosen, arguments.to)}: the policy of step {chosen.step}\n")
    except QuorumError as error:
        return tell(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
