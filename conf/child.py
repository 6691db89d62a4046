"""Starts this very code in another process, whatever the working directory.

`python -m` puts the working directory first on the path: beside another project's `rollout` or `trainer`, or in another
checkout, the child would silently run that.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds the packages: a checkout, or where they are installed."""
_START = (
    "import runpy, sys; root, module = sys.argv[1:3]; sys.argv[1:3] = []; root in sys.path or sys.path.insert(0, root);"
    " runpy.run_module(module, run_name='__main__', alter_sys=True)"
)


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this code, as `python -m` does, without the working directory on its path."""
    return [sys.executable, "-P", "-c", _START, str(ROOT), module, *arguments]
