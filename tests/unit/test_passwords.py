"""Passwords and keys in settings: refused without being repeated, in whatever setting and however they are written."""

from typing import Any

import pytest

from benchmarks.carriers import BenchmarkError
from benchmarks.generation import hosted
from conf.cli import run_entrypoint
from conf.errors import ConfigError, QuorumError
from conf.load import load
from conf.passwords import without_passwords, without_secrets
from conf.schema.benchmark import BirdBenchmark, ModelSource
from conf.schema.chaos import ChaosConfig
from conf.schema.reward_http import RewardHttpConfig
from conf.schema.root import TrainConfig
from conf.terminal import tell
from operate.jobs.client import JobsClient
from operate.jobs.settings import take_address

SECRET = "hunter2"
URL = f"https://me:{SECRET}@host/v1"
BIRD = (BirdBenchmark, "benchmark_bird", ["data.root=x", "output=x", "model.api=https://host/v1", "model.name=m"])
TRAIN = (TrainConfig, "train", ["experiment=quickstart"])
REWARDS = (RewardHttpConfig, "reward_http", ["databases=x"])
CHAOS = (ChaosConfig, "chaos", ["output=x"])


@pytest.mark.parametrize(
    ("entry", "setting"),
    [
        (BIRD, f"model.api={URL}"),
        (BIRD, f"model.api=https://{SECRET}@host/v1"),
        (BIRD, f"model.api=me:{SECRET}@host/v1"),
        (BIRD, f"model.api='https://me:{SECRET}/1#2@host/v1'"),
        (BIRD, f"model.api=https://me:{SECRET}=@host/v1"),
        (BIRD, f"model.api=https://me:{SECRET}(@host/v1"),
        (BIRD, f"model.api=https://host/v1?key={SECRET}"),
        (BIRD, f"model.api='https://host/v1?key={SECRET}'"),
        (BIRD, f"model.api=https://me:{SECRET}%40host/v1"),
        (BIRD, f"model.api=https://host:{SECRET}/v1"),
        (BIRD, f"model.api=https://me:{SECRET}\N{FULLWIDTH COMMERCIAL AT}host/v1"),
        (BIRD, f"model.api=[{URL}]"),
        (BIRD, f"predictions={URL}"),
        (BIRD, f"cluster.address={URL}"),
        (BIRD, f"model.key_variable={SECRET}"),
        (BIRD, f"model.key_variable=sk-{SECRET}"),
        (BIRD, f"model.key_variable=sk_{SECRET}=="),
        (BIRD, f"model.key_variable='{SECRET} x'"),
        (BIRD, f"model.key_variable={{a: {SECRET}}}"),
        (TRAIN, f"cluster.address=ray://me:{SECRET}@head:10001"),
        (TRAIN, f"cluster.address=me:{SECRET}@head:6379"),
        (TRAIN, f"logging.wandb.entity={URL}"),
        (TRAIN, f"run.index=postgres://me:{SECRET}@host/runs"),
        (TRAIN, f"model=pretrained model.path={URL}"),
        (TRAIN, f"reward.memory.store={URL}"),
        (REWARDS, f"token_variable={SECRET}"),
        (REWARDS, f"host={URL}"),
        (CHAOS, f"settings=['model.path={URL}']"),
    ],
)
def test_a_secret_is_refused_and_not_repeated(
    entry: tuple[Any, str, list[str]], setting: str, capsys: pytest.CaptureFixture[str]
) -> None:
    schema, primary, settings = entry
    words = setting.split(" ") if "model=pretrained" in setting else [setting]
    arguments = [one for one in settings if one.partition("=")[0] != words[-1].partition("=")[0]] + words
    code = run_entrypoint(schema, primary, lambda config: pytest.fail("accepted"), "", arguments)
    printed = capsys.readouterr()
    assert code == 2
    assert printed.err.startswith("configuration: ")
    assert SECRET not in printed.out + printed.err
    assert words[-1].partition("=")[0] in printed.err


def test_the_refusal_says_how_a_key_is_given() -> None:
    schema, primary, settings = BIRD
    with pytest.raises(ConfigError, match="model.api: an address must hold no user name or password.*key_variable"):
        load(schema, primary, [*settings, f"model.api={URL}"])
    with pytest.raises(ConfigError, match="model.key_variable: the name of an environment variable expected"):
        load(schema, primary, [*settings, "model.key_variable=sk-1"])
    for name in ("AKIAIOSFODNN7EXAMPLE", "", "3X", "my_key"):
        with pytest.raises(ConfigError, match="model.key_variable: the name"):
            load(schema, primary, [*settings, f"model.key_variable='{name}'"])
    assert load(schema, primary, [*settings, "model.key_variable=_MY_KEY2"]).model.key_variable == "_MY_KEY2"


@pytest.mark.parametrize(
    "refused", [lambda: JobsClient(f"http://me:{SECRET}@head:8265"), lambda: take_address([f"cluster.address={URL}"])]
)
def test_addresses_of_jobs_are_refused_alike(refused: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(QuorumError) as caught:
        refused()
    tell(caught.value)
    assert SECRET not in capsys.readouterr().err
    assert SECRET not in str(caught.value)


def test_what_is_printed_holds_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    tell(QuorumError(f"no answer at {URL} or http://host/a@b"))
    assert capsys.readouterr().err == "error: no answer at https://...@host/v1 or http://...@b\n"
    assert without_passwords("mail me@host") == "mail me@host"
    assert without_secrets("=x") == "=x"


def test_a_key_is_taken_from_its_variable_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    source = ModelSource(api="https://host/v1", name="m", key_variable="SOME_KEY")
    monkeypatch.delenv("SOME_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(BenchmarkError, match="names an environment variable that is not set") as caught:
        hosted._key(source)
    assert "SOME_KEY" not in str(caught.value)
    assert hosted._key(ModelSource(api="https://host/v1", name="m")) is None
    monkeypatch.setenv("SOME_KEY", f"{SECRET}\n")
    assert hosted._key(source) == SECRET
    for key in (f"{SECRET}\nx", f"é{SECRET}", f"{SECRET} x"):
        monkeypatch.setenv("SOME_KEY", key)
        with pytest.raises(BenchmarkError, match="the key in SOME_KEY holds characters") as caught:
            hosted._key(source)
        assert SECRET not in str(caught.value)
