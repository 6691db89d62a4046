"""A verb without arguments starts nothing, and no message advises what is refused itself."""

import re
import runpy
import shlex
import sys

import pytest

from conf.errors import ConfigError
from conf.front import VERBS
from conf.load import experiments, load
from conf.schema.reward_benchmark import RewardBenchmarkConfig
from conf.schema.root import TrainConfig


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_a_verb_alone_starts_nothing(
    verb: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path
) -> None:
    def start(*_: object, **__: object) -> None:
        raise AssertionError("work has begun")

    monkeypatch.setattr("asyncio.run", start)
    monkeypatch.setattr("ray.init", start)
    monkeypatch.setattr("os.execve", start)
    monkeypatch.setattr(sys, "argv", [f"quorum {' '.join(verb)}"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(VERBS[verb][0], run_name="__main__", alter_sys=True)
    assert ended.value.code == 2
    told = capfd.readouterr()
    assert told.out == ""
    assert "Traceback" not in told.err
    assert re.search(r"=VALUE|experiment=|required|usage|chosen|python -m", told.err), told.err


def test_train_alone_names_the_experiments_and_the_first_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["quorum train"])
    with pytest.raises(SystemExit):
        runpy.run_module("trainer", run_name="__main__", alter_sys=True)
    told = capsys.readouterr().err
    assert all(re.search(rf"^  {name} +\S", told, re.MULTILINE) for name in experiments())
    (command,) = re.findall(r"quorum train (.*)$", told, re.MULTILINE)
    assert load(TrainConfig, "train", shlex.split(command)).run.name == "quickstart"


@pytest.mark.parametrize(
    "override",
    ["seed=1,2", "+seed=range(1,3)", "seed=choice(1,2)", "seed=interval(1,2)", "experiment=glob(*)", "data=demo,bird"],
)
def test_several_values_are_refused_without_advice_that_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="names several values and a run takes one: start one run for each$") as told:
        load(TrainConfig, "train", [override])
    assert "multirun" not in str(told.value)
    assert "Sweep" not in str(told.value)


def test_what_is_advised_instead_of_several_values_is_accepted() -> None:
    assert load(TrainConfig, "train", ["data.root=a,b"]).data.root == "a,b"  # a text is one value
    with pytest.raises(ConfigError) as told:
        load(RewardBenchmarkConfig, "benchmark_rewards", ["root=x", "measures=gaming,soak"])
    (advised,) = shlex.split(re.findall(r"write ('.*')$", str(told.value))[0])
    config = load(RewardBenchmarkConfig, "benchmark_rewards", ["root=x", advised])
    assert list(config.measures) == ["gaming", "soak"]


@pytest.mark.parametrize(
    "override", ["data@x=demo", "hydra.run.dir=x", "hydra/launcher=basic", "--multirun", "-m", "package@_global_=x"]
)
def test_what_hydra_alone_understands_is_no_setting(override: str) -> None:
    with pytest.raises(ConfigError) as told:
        load(TrainConfig, "train", ["experiment=quickstart", override])
    assert "multirun" not in str(told.value).replace(override, "")
    assert "append" not in str(told.value)


def test_adding_an_option_of_a_group_means_choosing_it() -> None:
    for plus in ("", "+", "++"):
        assert load(TrainConfig, "train", [f"{plus}experiment=spider_smoke", "data.root=x"]).pipeline.steps == 3


def test_every_setting_without_a_default_is_named_at_once() -> None:
    from conf.schema.score import ScoreConfig

    with pytest.raises(ConfigError, match="^databases, output have no default: give them as databases=VALUE output="):
        load(ScoreConfig, "score", ["input=x"])
