"""`python -m operate.watch RUN [--web]`: looks at a run while it goes, on the terminal or as a local web page."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from conf.errors import QuorumError
from conf.terminal import tell
from operate.watch.live import LiveRun
from operate.watch.terminal import follow
from operate.watch.web import LOOPBACK, WatchServer


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m operate.watch", description="Look at a run while it goes.")
    parser.add_argument("run", type=Path, help="run folder, such as runs/quickstart")
    parser.add_argument("--web", action="store_true", help="serve a local web page instead of using the terminal")
    parser.add_argument("--port", type=int, default=8420, help="port of the web page (default: 8420; 0: a free one)")
    parser.add_argument(
        "--host", default=LOOPBACK, help=f"address to listen on (default: {LOOPBACK}; the page has no login)"
    )
    return parser


def main() -> int:
    arguments = _parser().parse_args()
    try:
        if arguments.web:
            with WatchServer(arguments.run, host=arguments.host, port=arguments.port) as server:
                sys.stdout.write(f"{server.url}  (Ctrl-C ends it)\n")
                sys.stdout.flush()
                server.serve_forever()
        else:
            follow(LiveRun(arguments.run), Console())
    except QuorumError as error:
        return tell(error)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
