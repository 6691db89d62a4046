"""python -m benchmarks.scaling: starts `python -m measure.scaling` with the same settings; see its --help.

The simulation runs the trainer's pipeline itself, so it lives in the trainer, which benchmarks never import.
"""

import subprocess
import sys

from conf.child import module_command

if __name__ == "__main__":
    sys.exit(subprocess.run(module_command("measure.scaling", *sys.argv[1:])).returncode)
