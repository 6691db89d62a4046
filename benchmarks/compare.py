"""python -m benchmarks.compare RUN RUN ...: a leaderboard of finished runs, in the terminal and as HTML.

  RUN ...          output folders of benchmarks.spider or benchmarks.bird, on the same questions
  metric=NAME      what to compare (default: exec for Spider, ex for BIRD)
  output=FILE      the page (default: compare.html); a file that is no such page is never overwritten

Shows paired differences with 95 % intervals and a significance test, where the runs disagree, and a winner or "no
difference shown".
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.comparison import Comparison, Pair, compare, read_run
from benchmarks.report.compare_page import refuse_other_file, write_comparison
from conf.errors import ConfigError, QuorumError
from conf.terminal import aligned, tell, visible

SETTINGS = ("metric", "output")


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 done, 1 runs that cannot be compared, 2 a wrong command line."""
    if not arguments or "--help" in arguments or "-h" in arguments:
        (sys.stdout if arguments else sys.stderr).write((__doc__ or "").strip() + "\n")
        return 0 if arguments else 2
    try:
        folders, settings = _split(arguments)
        page = Path(settings.get("output", "compare.html"))
        refuse_other_file(page)
        result = compare([read_run(folder) for folder in folders], settings.get("metric"))
        write_comparison(page, result)
    except QuorumError as error:
        return tell(error)
    _print(result, page)
    return 0


def _split(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    folders, settings = [], {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals and not Path(argument).exists():
            if name not in SETTINGS:
                raise ConfigError(
                    f"{name} is no setting; there are {', '.join(SETTINGS)}, everything else is a run's folder"
                )
            settings[name] = value
        else:
            folders.append(argument)
    return folders, settings


def _print(result: Comparison, page: Path) -> None:
    board = [["run", result.metric, "95 %"]]
    for run in result.runs:
        mean, low, high = result.means[run.name]
        board.append([run.name, f"{100 * mean:.2f}", f"{100 * low:.1f} to {100 * high:.1f}"])
    pairs = [Pair.COLUMNS, *(pair.cells for pair in result.pairs)]
    lines = [
        visible(f"{result.runs[0].scores['data']}, {len(result.keys)} questions"),
        "",
        *aligned(board, right=range(1, len(board[0]))),
        "",
        *aligned(pairs, right=range(1, len(Pair.COLUMNS))),
        "",
        *map(visible, (result.conclusion, str(page))),
    ]
    sys.stdout.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
