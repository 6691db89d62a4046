"""What a run does around the slow parts: what it looks at before them, and what it leaves when it ends there."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from multiprocessing import get_context, resource_tracker
from pathlib import Path

import pytest
from transformers import Qwen2Config

import trainer.run
from conf.errors import ConfigError, QuorumError, Terminated
from conf.load import load
from conf.schema.root import TrainConfig
from records.checkpoint import STREAM, RunState
from records.sinks.wandb_sink import WandbSink
from rollout.errors import WeightUpdateFailed
from rollout.tasks import Dropped, StreamMismatch, TaskSet
from trainer.data import PreparedData
from trainer.learner.errors import LearnerLost, LearnerStalled
from trainer.model_check import _deaf_children
from trainer.run import run
from trainer.warmup.cache import keep_left_out
from trainer.warmup.tokenizer import train_tokenizer


class WarmUpReached(QuorumError):
    """Carries what would have been imitated."""


@pytest.fixture
def start(tmp_path, monkeypatch) -> Callable[..., None]:
    """start(golds, *overrides, heldout=True): a run on one question for each gold query."""
    with sqlite3.connect(tmp_path / "dogs.sqlite") as connection:
        connection.execute("CREATE TABLE dog (name TEXT)")
    connection.close()

    async def warm_up(config: TrainConfig, tasks: TaskSet, note: Callable[[str], None]) -> Path:
        raise WarmUpReached(" ".join(task.id for task in tasks.warmup))

    monkeypatch.setattr(trainer.run, "local_ray", lambda cluster: contextlib.nullcontext())
    monkeypatch.setattr(trainer.run, "warmed_up", warm_up)
    # It runs in a process of its own: tests/unit/test_architectures.py.
    monkeypatch.setattr("trainer.inputs.check_policy", lambda config, policy: None)

    def starts(golds: dict[str, str], *overrides: str, heldout: bool = True) -> None:
        lines = [{"id": i, "question": "q", "database": "dogs.sqlite", "sql": sql} for i, sql in golds.items()]
        file = tmp_path / "questions.jsonl"
        file.write_text("\n".join(map(json.dumps, lines)))
        settings = [f"data.train={file}", *([f"data.heldout={file}"] if heldout else []), f"run.dir={tmp_path}/runs"]
        run(load(TrainConfig, "train", ["experiment=quickstart", "data=jsonl", *settings, *overrides]))

    return starts


GOLD = "SELECT name FROM dog"


def test_the_warm_up_gets_only_tasks_whose_gold_runs(start):
    with pytest.raises(WarmUpReached, match="^good$"):
        start({"good": GOLD, "broken": "SELECT size FROM dog"})


def test_evaluations_without_held_out_tasks_are_refused_before_the_warm_up(start):
    with pytest.raises(QuorumError, match="evaluation=none evaluation.every=0"):
        start({"good": GOLD}, heldout=False)
    with pytest.raises(WarmUpReached):
        start({"good": GOLD}, "evaluation=none", "evaluation.every=0", heldout=False)


@pytest.mark.parametrize("override", ["reward.execution.enabled=false", "reward.execution.weight=0"])
def test_rewards_that_contradict_each_other_leave_no_run(start, tmp_path, override):
    with pytest.raises(ConfigError, match="set reward.execution.enabled=true and its weight above the sum"):
        start({"good": GOLD}, "reward=strict", "reward.memory.enabled=false", override)
    assert not (tmp_path / "runs").exists()


def test_recorded_lengths_are_read_before_the_warm_up(start, tmp_path):
    with pytest.raises(QuorumError, match="rollout.lengths=.*none.txt: one completion length a line is expected"):
        start({"good": GOLD}, f"rollout.lengths={tmp_path}/none.txt")


def test_a_chat_template_that_no_completion_can_follow_is_refused_before_the_warm_up(start, tmp_path):
    policy = tmp_path / "policy"
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    Qwen2Config(vocab_size=300, num_key_value_heads=1, **sizes).save_pretrained(policy)
    tokenizer = train_tokenizer([GOLD], 300, 512)
    tokenizer.chat_template = tokenizer.chat_template.replace("<|assistant|>", "<|assistant|><think>\n")
    tokenizer.save_pretrained(policy)
    given = ("model=pretrained", f"model.path={policy}", "rollout.engine.kv_cache_gib=0.1")
    with pytest.raises(QuorumError, match="opens <think> in the prompt.*prompt.thinking=true"):
        start({"broken": "SELECT size FROM dog"}, *given)
    with pytest.raises(WarmUpReached):
        start({"good": GOLD}, *given, "prompt.thinking=true", "reward.format.thinking=true", "run.name=other")


def test_a_model_that_would_be_computed_wrongly_is_refused_before_ray_starts(start, tmp_path, monkeypatch):
    policy = tmp_path / "policy"
    Qwen2Config().save_pretrained(policy)
    train_tokenizer([GOLD], 300, 512).save_pretrained(policy)

    def refuse(config: TrainConfig, folder: Path) -> None:
        raise QuorumError(f"no good: {folder.name}")

    monkeypatch.setattr("trainer.inputs.check_policy", refuse)
    monkeypatch.setattr(trainer.run, "local_ray", lambda cluster: pytest.fail("Ray was started"))
    with pytest.raises(QuorumError, match="no good: policy"):
        start({"good": GOLD}, "model=pretrained", f"model.path={policy}", "plan.refuse=false")


class EnginesReached(QuorumError):
    """The data is ready."""


def test_everything_that_was_left_out_is_written_with_its_reason(start, tmp_path, monkeypatch):
    policy = tmp_path / "policy"
    Qwen2Config().save_pretrained(policy)
    train_tokenizer([GOLD], 300, 512).save_pretrained(policy)

    async def warm_up(config: TrainConfig, tasks: TaskSet, note: Callable[[str], None]) -> Path:
        keep_left_out(policy, [Dropped(id="long", reason="trace too long", detail="300 tokens")])
        return policy

    async def run_job(*arguments: object) -> None:
        raise EnginesReached("engines")

    monkeypatch.setattr(trainer.run, "warmed_up", warm_up)
    monkeypatch.setattr(trainer.run._Session, "_run_job", run_job)
    with pytest.raises(EnginesReached):
        start({"good": GOLD, "broken": "SELECT size FROM dog"})
    file = tmp_path / "runs" / "quickstart" / "dropped.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(row["id"], row["reason"]) for row in rows] == [
        ("broken", "gold fails"),
        ("broken", "gold fails"),  # of the training and of the held-out file
        ("long", "trace too long"),
    ]
    assert "size" in rows[0]["detail"]


def test_columns_that_prompts_leave_out_are_told_before_the_engines_start(start, tmp_path, monkeypatch, capsys):
    policy = tmp_path / "policy"
    Qwen2Config().save_pretrained(policy)
    train_tokenizer([GOLD], 300, 512).save_pretrained(policy)
    keep_left_out(policy, [])
    with sqlite3.connect(tmp_path / "dogs.sqlite") as connection:
        connection.executescript("ALTER TABLE dog ADD COLUMN weight INT; ALTER TABLE dog ADD COLUMN height INT;")
    connection.close()

    async def warm_up(config: TrainConfig, tasks: TaskSet, note: Callable[[str], None]) -> Path:
        return policy

    async def run_job(*arguments: object) -> None:
        raise EnginesReached("engines")

    monkeypatch.setattr(trainer.run, "warmed_up", warm_up)
    monkeypatch.setattr(trainer.run._Session, "_run_job", run_job)
    with pytest.raises(EnginesReached):  # a character is a token here: "dog(name, weight)" has no room for the height
        start({"shown": GOLD, "lost": "SELECT height FROM dog"}, "prompt.max_tokens=22", "logging.progress=plain")
    file = tmp_path / "runs" / "quickstart" / "cut_columns.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert {(row["id"], *row["columns"], *row["golds_that_need_them"]) for row in rows} == {
        ("shown", "dog.height"),
        ("lost", "dog.height", 1),
    }
    told = capsys.readouterr().out
    for split in ("training", "held-out"):
        assert f"2 of 2 {split} prompts leave columns of their schema out for prompt.max_tokens=22" in told
    assert told.count("1 of 2 golds needs such a column: lost, shown") == 2


def test_what_is_left_out_is_said_and_written_before_the_warm_up(start, tmp_path, capsys):
    with pytest.raises(WarmUpReached):
        start({"good": GOLD, "broken": "SELECT size FROM dog"}, "logging.progress=plain")
    said = " ".join(capsys.readouterr().out.split())
    assert 0 < said.index("left out 2 x gold fails") < said.index("warm-up ...")
    file = tmp_path / "runs" / "quickstart" / "dropped.jsonl"
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == ["broken", "broken"]


def test_prompts_that_do_not_fit_a_pretrained_policy_are_said_before_its_warm_up(start, tmp_path, capsys):
    policy = tmp_path / "policy"
    Qwen2Config(vocab_size=300).save_pretrained(policy)
    train_tokenizer([GOLD], 300, 512).save_pretrained(policy)
    given = ("model=pretrained", f"model.path={policy}", "rollout.engine.kv_cache_gib=0.1", "logging.progress=plain")
    few = ("prompt.max_tokens=5", "plan.refuse=false", "evaluation=none", "evaluation.every=0")
    with pytest.raises(QuorumError, match=r"no training task remains of 1; first: prompt too long"):
        start({"good": GOLD}, *given, *few, heldout=False)
    assert "warm-up" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("reward.memory.enabled=true", "reward.memory.store=none.sqlite"), "no memory store at none.sqlite"),
        (("reward.memory.enabled=true", "reward.memory.store=PLACE/questions.jsonl"), "jsonl is no memory store: "),
        (("rollout.engine.max_model_len=999999",), "holds 32768 tokens, but .* ask for 999999: lower .*max_model_len"),
    ],
)
def test_what_engines_and_rewards_would_refuse_is_refused_before_the_warm_up(start, tmp_path, settings, said):
    policy = tmp_path / "policy"
    Qwen2Config(vocab_size=300).save_pretrained(policy)
    train_tokenizer([GOLD], 300, 512).save_pretrained(policy)
    given = ("model=pretrained", f"model.path={policy}", "rollout.engine.kv_cache_gib=0.1")
    with pytest.raises(QuorumError, match=said):
        start({"good": GOLD}, *given, *(setting.replace("PLACE", str(tmp_path)) for setting in settings))


def test_an_embedder_whose_package_is_missing_is_refused_before_the_warm_up(start, monkeypatch):
    monkeypatch.setattr("rewards.preflight.find_spec", lambda name: None)
    embedder = "reward.memory.embedder={type: sentence_transformers, model: m}"
    with pytest.raises(QuorumError, match="needs the package sentence_transformers, which is not installed"):
        start({"good": GOLD}, "reward.memory.enabled=true", embedder)


def test_ctrl_c_ends_the_check_of_the_data_at_once(start, tmp_path, monkeypatch):
    ended = []

    def long_check(config: TrainConfig, tasks: TaskSet) -> TaskSet:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
        ended.append("check")
        return tasks

    monkeypatch.setattr(trainer.run, "checked", long_check)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            start({"good": GOLD})
    finally:
        signal.signal(signal.SIGINT, before)
    assert not ended
    assert json.loads((tmp_path / "runs" / "quickstart" / "summary.json").read_text())["status"] == "stopped"


def test_a_checkpoint_of_other_tasks_is_refused_before_the_engines_start(start, tmp_path, monkeypatch):
    policy = tmp_path / "policy"
    Qwen2Config().save_pretrained(policy)
    train_tokenizer([GOLD], 300, 512).save_pretrained(policy)
    keep_left_out(policy, [])

    async def warm_up(config: TrainConfig, tasks: TaskSet, note: Callable[[str], None]) -> Path:
        return policy

    async def run_job(session: trainer.run._Session, job: object, data: PreparedData, *rest: object) -> None:
        async def write(folder: Path) -> None:
            (folder / STREAM).write_text(json.dumps(data.stream.state_dict()))

        await session._checkpoints.save(RunState(step=0, version=0, consumed=0, seed=0, wall_s=1.0), write)
        raise EnginesReached("engines")

    monkeypatch.setattr(trainer.run, "warmed_up", warm_up)
    monkeypatch.setattr(trainer.run._Session, "_run_job", run_job)
    both = {"good": GOLD, "first": "SELECT name FROM dog LIMIT 1"}
    with pytest.raises(EnginesReached):
        start(both)
    with pytest.raises(EnginesReached):
        start(both, "resume=auto")
    with pytest.raises(StreamMismatch, match="other tasks than the 1 loaded now"):
        start({"good": GOLD}, "resume=auto")


class FakeEngines:
    """Lose the way of their weights at once."""

    opened = 0

    async def watch(self) -> None:
        raise WeightUpdateFailed("the previous weight broadcast failed")


class EndlessJob:
    def __init__(self, **_: object) -> None:
        pass

    async def run(self) -> None:
        await asyncio.Event().wait()


def test_weights_that_reach_no_engine_start_the_engines_anew_as_often_as_allowed(start, tmp_path, monkeypatch):
    policy = tmp_path / "policy"
    Qwen2Config().save_pretrained(policy)
    train_tokenizer([GOLD], 300, 512).save_pretrained(policy)
    keep_left_out(policy, [])

    async def warm_up(config: TrainConfig, tasks: TaskSet, note: Callable[[str], None]) -> Path:
        return policy

    @contextlib.asynccontextmanager
    async def engines(*_: object) -> AsyncIterator[FakeEngines]:
        FakeEngines.opened += 1
        yield FakeEngines()

    monkeypatch.setattr(trainer.run, "warmed_up", warm_up)
    monkeypatch.setattr(trainer.run, "engines", engines)
    monkeypatch.setattr(trainer.run, "Job", EndlessJob)
    with pytest.raises(WeightUpdateFailed, match="broadcast failed"):
        start({"good": GOLD}, "learner.max_restarts=2")
    assert FakeEngines.opened == 3


@pytest.mark.parametrize(("opening", "when"), [(1, "before training had begun"), (2, "while its engines were started")])
def test_sigterm_where_nothing_can_be_saved_says_where_that_was(start, tmp_path, monkeypatch, opening, when):
    policy = tmp_path / "policy"
    Qwen2Config().save_pretrained(policy)
    train_tokenizer([GOLD], 300, 512).save_pretrained(policy)
    keep_left_out(policy, [])

    async def warm_up(config: TrainConfig, tasks: TaskSet, note: Callable[[str], None]) -> Path:
        return policy

    opened: list[int] = []

    @contextlib.asynccontextmanager
    async def engines(*_: object) -> AsyncIterator[FakeEngines]:
        opened.append(1)
        if len(opened) == opening:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(5)
        yield FakeEngines()

    monkeypatch.setattr(trainer.run, "warmed_up", warm_up)
    monkeypatch.setattr(trainer.run, "engines", engines)
    monkeypatch.setattr(trainer.run, "Job", EndlessJob)
    with pytest.raises(Terminated):
        start({"good": GOLD}, "learner.max_restarts=2")
    summary = json.loads((tmp_path / "runs" / "quickstart" / "summary.json").read_text())
    assert summary["status"] == "stopped"
    assert summary["error"].startswith(f"stopped by SIGTERM {when}")


def test_the_process_that_checks_a_model_leaves_ctrl_c_to_the_driver():
    resource_tracker._resource_tracker._stop()  # it unblocks signals when it starts
    process = get_context("spawn").Process(target=time.sleep, args=(0.1,))
    with _deaf_children():
        process.start()
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 0
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


class FakeWandb:
    """wandb's run: remembers how it was finished."""

    def __init__(self) -> None:
        self.exit_codes: list[int | None] = []

    def finish(self, exit_code: int | None = None) -> None:
        self.exit_codes.append(exit_code)


def test_wandb_learns_that_a_run_has_failed(start, monkeypatch):
    remote = FakeWandb()
    monkeypatch.setattr(trainer.run, "open_wandb", lambda *_, **__: WandbSink(remote))
    with pytest.raises(WarmUpReached):
        start({"good": GOLD})
    assert remote.exit_codes == [1]


@pytest.mark.parametrize("lost", [LearnerLost("rank 0 was lost while starting"), LearnerStalled("not within 600 s")])
def test_engines_that_have_never_started_are_not_started_again(start, tmp_path, monkeypatch, lost):
    policy = tmp_path / "policy"
    Qwen2Config().save_pretrained(policy)
    train_tokenizer([GOLD], 300, 512).save_pretrained(policy)
    keep_left_out(policy, [])

    async def warm_up(config: TrainConfig, tasks: TaskSet, note: Callable[[str], None]) -> Path:
        return policy

    opened: list[int] = []

    @contextlib.asynccontextmanager
    async def engines(*_: object) -> AsyncIterator[FakeEngines]:
        opened.append(1)
        raise lost
        yield

    monkeypatch.setattr(trainer.run, "warmed_up", warm_up)
    monkeypatch.setattr(trainer.run, "engines", engines)
    with pytest.raises(type(lost), match=str(lost)):
        start({"good": GOLD}, "learner.max_restarts=2")
    assert opened == [1]
