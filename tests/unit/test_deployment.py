"""The deployment files agree with the project: read-only databases, no secrets, commands that the schema accepts."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from conf.explain import dotted_keys
from conf.load import load
from conf.schema.benchmark import BirdBenchmark, SpiderBenchmark
from conf.schema.reward_http import RewardHttpConfig
from conf.schema.root import TrainConfig
from operate.jobs.package import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
SECRET = re.compile(r"(^|_)(key|token|secret|password)s?($|_)", re.IGNORECASE)


def read(name: str) -> Any:
    return yaml.safe_load((DOCKER / name).read_text())


def pods(name: str) -> Iterator[dict[str, Any]]:
    spec = read(name)["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]["spec"]


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_every_pod_reads_databases_without_writing_and_takes_secrets_by_reference(name):
    for pod in pods(name):
        (volume,) = [one for one in pod["volumes"] if one["name"] == "data"]
        assert volume["persistentVolumeClaim"]["readOnly"] is True
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            (mount,) = [one for one in container["volumeMounts"] if one["mountPath"] == "/data"]
            assert mount["readOnly"] is True
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            for variable in container["env"]:
                assert not SECRET.search(variable["name"]) or "value" not in variable


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_clusters_ask_for_a_token_and_run_the_locked_ray(name):
    spec = read(name)["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    assert cluster["authOptions"]["mode"] == "token"
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "requirements" / "cpu-dev.txt").read_text().replace(
        "[default,serve]", ""
    )


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    return dict(re.sub(r"\[.*\]", "", line).split("==") for line in lines)


def test_the_gpu_list_pins_what_python_3_11_can_have():
    """The list for the CPU is resolved for Python 3.11, which setup picks first and the image is built on."""
    gpu, cpu = pins("gpu.txt"), pins("cpu-dev.txt")
    # What depends on the build of torch, and what vLLM's own builds ask for.
    others = {"torch", "triton", "apache-tvm-ffi", "setuptools"}
    assert {name for name in gpu.keys() & cpu.keys() if gpu[name] != cpu[name]} == others
    assert "python:3.11" in (DOCKER / "Dockerfile").read_text()


def test_no_document_calls_a_command_that_is_not_on_the_path():
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    assert [file.name for file in documents if re.search(r"(?<![\w/])uv pip", file.read_text())] == []


def test_the_ray_jobs_entrypoint_is_a_valid_training():
    words = shlex.split(read("rayjob.yaml")["spec"]["entrypoint"])
    assert words[:2] == ["quorum", "train"]
    config = load(TrainConfig, "train", words[2:])
    assert (config.resume, config.run.dir, config.cluster.address) == ("auto", "/runs", "auto")


def test_compose_opens_ports_to_this_machine_alone_and_mounts_databases_read_only():
    services = read("compose.yaml")["services"]
    assert set(services) == {"head", "worker", "rewards"}
    for service in services.values():
        assert any(volume.endswith(":/data:ro") for volume in service["volumes"])
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert all(folder.endswith(":exec") for folder in service["tmpfs"]), "compiled operators are loaded from there"
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        for name, value in service["environment"].items():
            assert not SECRET.search(name) or value.startswith("${")
        assert service["environment"]["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")


def test_composes_reward_server_takes_valid_settings():
    words = shlex.split(read("compose.yaml")["services"]["rewards"]["command"])
    assert words[:2] == ["quorum", "reward-server"]
    assert load(RewardHttpConfig, "reward_http", words[2:]).databases == "/data"


def test_the_image_holds_every_package_and_runs_as_nobody_special():
    stages = re.split(r"^FROM ", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
    targets = {re.search(r" AS (\S+)", stage)[1]: stage for stage in stages[1:]}  # type: ignore[index]
    for target in ("cpu", "gpu"):
        copied = set(re.findall(r"^COPY (\S+) \S+$", targets[target], flags=re.MULTILINE))
        assert set(PACKAGES) <= copied
        assert "\nUSER 1000\n" in targets[target]
        assert "ENV" not in targets[target] or not SECRET.search(targets[target].split("ENV")[1].split("\n")[0])
    allowed = (DOCKER / "Dockerfile.dockerignore").read_text().split()
    assert allowed[0] == "**"
    assert {f"!{package}" for package in PACKAGES} <= set(allowed)


@pytest.mark.parametrize("schema", [TrainConfig, SpiderBenchmark, BirdBenchmark, RewardHttpConfig])
def test_no_setting_holds_a_secret_so_that_no_written_configuration_can(schema):
    names = [name.rpartition(".")[2] for name in dotted_keys(schema)]
    assert [
        name for name in names if re.search(r"(^|_)(key|token|secret|password)s?$", name) and "tokens" not in name
    ] == []
