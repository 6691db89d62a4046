"""Engines are imported in edge modules only: everything else imports on a machine that has none of them."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

from operate.jobs.package import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
ENGINES = ("torch", "ray", "vllm", "deepspeed", "transformers", "trl", "datasets", "peft")
EDGES = (
    "benchmarks.generation.policy",
    "measure.engine",
    "measure.learner",
    "measure.throughput.peak",
    "measure.throughput.peer",
    "measure.throughput.random_policy",
    "rewards.actor",
    "rewards.http",
    "rollout.cpu",
    "rollout.vllm_backend",
    "rollout.weights.receiver",
    "rollout.worker",
    "trainer.services",
    "trainer.job",
    "trainer.learner",
    "trainer.loss",
    "trainer.run",
    "trainer.warmup",
    "trainer.weights",
)
"""Modules and packages whose job is an engine."""

PROGRAM = """
import importlib, importlib.abc, json, sys
blocked = set(json.loads(sys.argv[1]))
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"engine {name}")
sys.meta_path.insert(0, Block())
failed = {}
for module in json.loads(sys.argv[2]):
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        failed[module] = str(error)
print(json.dumps(failed))
"""


def modules() -> list[str]:
    names = []
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if parts[-1] != "__main__" and not any(name == edge or name.startswith(f"{edge}.") for edge in EDGES):
                names.append(name)
    return sorted(names)


def test_only_edge_modules_import_engines():
    names = modules()
    assert len(names) > 50
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(ENGINES), json.dumps(names)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout.splitlines()[-1]) == {}


def test_every_list_of_the_packages_names_the_same_ones() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        tools = tomllib.load(file)["tool"]
    wheel = [pattern.removesuffix("*") for pattern in tools["setuptools"]["packages"]["find"]["include"]]
    layers = tools["importlinter"]["contracts"][0]["layers"]
    ranked = [package for layer in reversed(layers) for package in layer.split(" | ")]
    folders = {file.parent.name for file in ROOT.glob("*/__init__.py")} - {"tests"}
    assert set(PACKAGES) == folders
    assert tuple(wheel) == tuple(tools["mypy"]["packages"]) == tuple(tools["importlinter"]["root_packages"]) == PACKAGES
    assert set(ranked) == set(PACKAGES)
