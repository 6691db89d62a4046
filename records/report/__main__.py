"""`python -m records.report RUN`: writes RUN/report.html anew, for a run that is finished or still going."""

import argparse
import sys
from pathlib import Path

from conf.errors import QuorumError
from conf.terminal import tell
from records.report import write_report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m records.report", description="Write a run's report.html anew.")
    parser.add_argument("run", type=Path, help="run folder, such as runs/quickstart")
    arguments = parser.parse_args()
    try:
        path = write_report(arguments.run)
    except QuorumError as error:
        return tell(error)
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
