"""`python -m records.index list|show|compare|gc`: what the run index knows."""

import argparse
import sys
from pathlib import Path

from conf.errors import QuorumError
from conf.terminal import tell, visible
from records.index.collect import collect, garbage
from records.index.index import RunIndex
from records.index.show import comparison, full, listing


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m records.index", description="Look into the run index.")
    parser.add_argument("--index", type=Path, default=Path("runs/index.db"), help="index file (default: %(default)s)")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="a line a run")
    show = verbs.add_parser("show", help="one run in full")
    show.add_argument("run", help="id, folder or name")
    compare = verbs.add_parser("compare", help="results, and settings that differ")
    compare.add_argument("runs", nargs="+", help="ids, folders or names")
    gc = verbs.add_parser("gc", help="delete checkpoints that nothing refers to, and rows without a folder")
    gc.add_argument("--yes", action="store_true", help="delete; without it the list is only shown")
    return parser


def _show(index: RunIndex, arguments: argparse.Namespace) -> str:
    return full(index.find(arguments.run))


def _compare(index: RunIndex, arguments: argparse.Namespace) -> str:
    return comparison([index.find(run) for run in arguments.runs])


def _list(index: RunIndex, arguments: argparse.Namespace) -> str:
    rows = index.rows()
    return listing(rows) if rows else f"{index.path} lists no runs\n"


def _gc(index: RunIndex, arguments: argparse.Namespace) -> str:
    found = garbage(index.rows())
    if not found.folders and not found.rows:
        return "nothing to delete\n"
    lines = [f"{size / 2**20:8.1f} MiB  {visible(str(folder))}" for folder, size in found.folders]
    lines += [f"         row  {visible(f'{row.id} {row.name}: {row.folder}')} is gone" for row in found.rows]
    if arguments.yes:
        collect(found, index)
        lines.append("deleted")
    else:
        lines.append("nothing was deleted: repeat with --yes")
    return "\n".join(lines) + "\n"


VERBS = {"list": _list, "show": _show, "compare": _compare, "gc": _gc}


def main() -> int:
    arguments = _parser().parse_args()
    try:
        sys.stdout.write(VERBS[arguments.verb](RunIndex(arguments.index), arguments))
    except QuorumError as error:
        return tell(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
