"""python -m rewards.instances: python -m curation.instances under its earlier name."""

import runpy

if __name__ == "__main__":
    runpy.run_module("curation.instances", run_name="__main__", alter_sys=True)
