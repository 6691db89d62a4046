"""A run goes on only from what it was made from: what differs is refused by name before anything is written or
started, everything else may change."""

import asyncio
import contextlib
import json
import re
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import trainer.run
from conf.errors import QuorumError
from conf.load import load
from conf.schema.root import TrainConfig
from records.checkpoint import STREAM, CheckpointInvalid, RunState
from records.digests import weights_digest
from records.files import RecordsDamaged
from records.identity import FILE, _tokenizer_digest
from records.run_folder import LedgerRow, read_summary
from rollout.errors import WeightUpdateFailed
from rollout.tasks import TaskSet
from tests.tiny_qwen2 import tiny_qwen2
from trainer.data import PreparedData
from trainer.resume import ResumeRefused
from trainer.run import run
from trainer.warmup.cache import keep_left_out
from trainer.warmup.tokenizer import train_tokenizer

GOLD = "SELECT name FROM dog"
STEPS = 2


RUN_JOB = trainer.run._Session._run_job


class EnginesReached(QuorumError):
    """All checks have been passed."""


def write_model(folder: Path) -> Path:
    tokenizer = train_tokenizer([GOLD], 300, 512)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    tiny_qwen2(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, eos_token_id=tokenizer.eos_token_id,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def question(number: int, **changes: object) -> dict[str, object]:
    return {"id": f"q{number}", "question": f"which dog {number}", "database": "dogs.sqlite", "sql": GOLD} | changes


class Place:
    """A folder with data, a model, and a run that has been stopped after its second step, with a checkpoint of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run, self.model, self.warm = root / "runs" / "mine", root / "model", root / "warm"

    def furnish(self) -> None:
        write_model(self.model)
        shutil.copytree(self.model, self.warm)
        keep_left_out(self.warm, [])
        with contextlib.closing(sqlite3.connect(self.root / "dogs.sqlite")) as connection:
            connection.execute("CREATE TABLE dog (name TEXT)")
            connection.execute("INSERT INTO dog VALUES ('Rex')")
            connection.commit()
        self.write_tasks(question(1), question(2))

    def write_tasks(self, *train: dict[str, object]) -> None:
        (self.root / "train.jsonl").write_text("\n".join(map(json.dumps, train)))
        (self.root / "heldout.jsonl").write_text(json.dumps(question(9)))

    def settings(self, *more: str) -> TrainConfig:
        fixed = [
            *("experiment=quickstart", "data=jsonl", f"data.train={self.root}/train.jsonl"),
            *(f"data.heldout={self.root}/heldout.jsonl", f"run.dir={self.root}/runs", "run.name=mine"),
            *("model=pretrained", f"model.path={self.model}", "warmup.enabled=false", "pipeline.steps=10"),
            "prompt.max_tokens=192",
            *("rollout.engine.kv_cache_gib=0.1", "logging.progress=plain"),
        ]
        return load(TrainConfig, "train", [*fixed, *more])

    def start(self, *more: str) -> None:
        run(self.settings(*more))

    def contents(self) -> dict[str, bytes]:
        """Of everything in the run's folder and of the index."""
        files = [file for file in (self.root / "runs").rglob("*") if file.is_file()]
        return {str(file.relative_to(self.root)): file.read_bytes() for file in files}

    def refused(self, *more: str) -> str:
        """What is said; nothing has been touched."""
        before = self.contents()
        with pytest.raises(ResumeRefused) as refused:
            self.start("resume=auto", *more)
        assert self.contents() == before
        return str(refused.value)


async def steps(session: trainer.run._Session, job: Any, data: PreparedData, *rest: object) -> None:
    """In place of engines and job: two steps and their checkpoint."""
    if session._resumed is None:
        for step in range(1, STEPS + 1):
            session._folder.write({"step": step, "version": step})
            session._folder.write_ledger(LedgerRow(step=step, version=step, trained=()))

        async def write(folder: Path) -> None:
            learner = session._config.learner
            meta = {"zero_stage": learner.zero_stage, "world_size": learner.ranks, "lora_rank": learner.lora.rank}
            (folder / "learner").mkdir()
            (folder / "learner" / "state.json").write_text(json.dumps(meta | {"applied": STEPS, "skipped": 0}))
            (folder / STREAM).write_text(json.dumps(data.stream.state_dict()))
            job.keywords["identity"].write(folder)

        state = RunState(step=STEPS, version=STEPS, consumed=8, seed=session._config.seed, wall_s=1.0)
        await session._checkpoints.save(state, write)
    raise EnginesReached("engines")


def in_place_of_engines(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def warm_up(config: TrainConfig, tasks: TaskSet, note: Callable[[str], None]) -> Path:
        return place.warm

    # Looked at in tests of its own; it imports torch in a process of its own each time.
    monkeypatch.setattr("trainer.inputs.check_policy", lambda config, policy: None)
    monkeypatch.setattr(trainer.run, "local_ray", lambda cluster: contextlib.nullcontext())
    # It runs in a process of its own: tests/unit/test_architectures.py.
    monkeypatch.setattr("trainer.inputs.check_policy", lambda config, policy: None)
    monkeypatch.setattr(trainer.run, "warmed_up", warm_up)
    monkeypatch.setattr(trainer.run._Session, "_run_job", steps)


ADAPTERS = "learner.lora.rank=4"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run with adapters."""
    place = Place(tmp_path_factory.mktemp("stopped"))
    place.furnish()
    with pytest.MonkeyPatch.context() as monkeypatch:
        in_place_of_engines(place, monkeypatch)
        begin(place, ADAPTERS)
    return place.root


@pytest.fixture
def place(stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A copy: what a run is made from may move."""
    found = Place(shutil.copytree(stopped, tmp_path / "place"))
    in_place_of_engines(found, monkeypatch)
    return found


def begin(place: Place, *more: str) -> None:
    with pytest.raises(EnginesReached):
        place.start(*more)
    # As a driver that was killed in the middle of a row leaves it.
    with (place.run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 3, "ver')


def trained_further(folder: Path) -> None:
    """Other weights of the same shape, in a file of the same size."""
    weights = load_file(folder / "model.safetensors")
    save_file({n: w + 0.01 for n, w in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})


CHANGED_SETTINGS = {
    "seed=7": "seed was 0 when the run began, and is 7: set seed=0",
    "prompt.max_tokens=200": "prompt.max_tokens was 192 when the run began, and is 200: set prompt.max_tokens=192",
    "prompt.template=finer": "prompt.template was bare",
    "algo.sampler.type=difficulty": "algo.sampler.type was uniform",
    "data.denotation=spider": "data.denotation was bird",
    "learner.lora.alpha=64": "learner.lora.alpha was 32.0 when the run began, and is 64.0: set learner.lora.alpha=32.0",
    "learner.lora.rank=8": "learner.lora.rank was 4 when the run began, and is 8",
    "learner.zero_stage=1": "learner.zero_stage was 0 when the run began, and is 1: set learner.zero_stage=0",
    "warmup.enabled=true": "warmup.enabled was false when the run began, and is true",
}


def test_settings_that_give_the_checkpoint_another_meaning_are_refused_by_name(place):
    for setting, sentence in CHANGED_SETTINGS.items():
        said = place.refused(ADAPTERS, setting)
        assert sentence in said
        assert len(said.splitlines()) == 2
        assert "start another run under another run.name" in said


def test_each_difference_has_its_own_line(place):
    lines = place.refused(ADAPTERS, "seed=1", "prompt.thinking=true", "reward.format.thinking=true").splitlines()
    assert [line.partition(" was ")[0] for line in lines[:2]] == ["prompt.thinking", "seed"]


def test_ranks_count_where_each_keeps_its_own_share(place):
    file = place.run / "checkpoints" / "step-000002" / "learner" / "state.json"
    file.write_text(file.read_text().replace('"zero_stage": 0', '"zero_stage": 2'))
    said = place.refused(ADAPTERS, "learner.zero_stage=2", "learner.ranks=2")
    assert "learner.ranks was 1 when the run began, and is 2" in said


FREE = (
    *("learner.learning_rate=1e-4", "learner.schedule=cosine", "learner.beta2=0.95", "pipeline.steps=20"),
    *("pipeline.prompts_per_step=4", "pipeline.max_staleness=1", "rollout.workers=1", "rollout.group_size=6"),
    *("rollout.sampling.temperature=0.9", "rollout.engine.max_num_seqs=64", "evaluation.n=3", "evaluation.every=5"),
    *("checkpoint.every=7", "checkpoint.keep=5", "logging.samples_every=3", "algo.kl.coefficient=0.01"),
    *("learner.ranks=2", "learner.micro_batch_tokens=20000", "learner.packing=padded", "reward.server.actors=1"),
    *("warmup.steps=9", "reward.penalties.length=0.1", "algo.loss.epsilon_high=0.3"),
)


def test_other_settings_may_change_on_the_way(place):
    with pytest.raises(EnginesReached):
        place.start("resume=auto", ADAPTERS, *FREE)
    assert [json.loads(line)["step"] for line in (place.run / "metrics.jsonl").read_text().splitlines()] == [1, 2]


def other_evidence(place: Place) -> None:
    place.write_tasks(question(1), question(2, evidence="a dog is an animal"))


def other_gold(place: Place) -> None:
    place.write_tasks(question(1), question(2, sql="SELECT upper(name) FROM dog"))


def one_task_more(place: Place) -> None:
    place.write_tasks(question(1), question(2), question(3))


def other_rows(place: Place) -> None:
    """In a database file of the same size."""
    size = (place.root / "dogs.sqlite").stat().st_size
    with contextlib.closing(sqlite3.connect(place.root / "dogs.sqlite")) as connection:
        connection.execute("UPDATE dog SET name = 'Max'")
        connection.commit()
    assert (place.root / "dogs.sqlite").stat().st_size == size


def other_tokenizer(place: Place) -> None:
    file = place.model / "chat_template.jinja"
    file.write_text(file.read_text() + "{# a comment changes no prompt, and nobody can know #}")


def other_tool_template(place: Place) -> None:
    (place.model / "additional_chat_templates").mkdir()
    (place.model / "additional_chat_templates" / "tool_use.jinja").write_text("{{ messages }}")


CHANGED_SOURCES: dict[str, tuple[Callable[[Place], None], str]] = {
    "evidence": (other_evidence, "what the training tasks ask and take for right was of digest"),
    "gold": (other_gold, "what the training tasks ask and take for right was of digest"),
    "tasks": (one_task_more, r"the list of training tasks was 2 tasks \(digest \w+\) .* and is 3 tasks"),
    "rows": (other_rows, "the content of the training databases was of digest"),
    "weights": (lambda place: trained_further(place.model), r"the model's weights was .*/model \(digest \w+\)"),
    "another template": (
        other_tool_template,
        "the model's tokenizer was .*: set model.path and model.revision to the model",
    ),
    "sentencepiece": (lambda place: (place.model / "tokenizer.model").touch(), "the model's tokenizer was"),
    "tokenizer": (other_tokenizer, "the model's tokenizer was .*: set model.path and model.revision to the model"),
    "pieces": (lambda place: (place.model / "tokenizer.model").write_bytes(b"other"), "the model's tokenizer was"),
}


@pytest.mark.parametrize("what", CHANGED_SOURCES)
def test_a_source_that_holds_something_else_under_the_same_name_is_refused_before_ray(place, monkeypatch, what):
    monkeypatch.setattr(trainer.run, "local_ray", lambda cluster: pytest.fail("Ray was started"))
    change, sentence = CHANGED_SOURCES[what]
    change(place)
    assert re.search(sentence, place.refused(ADAPTERS))


def test_data_and_models_may_move(place):
    moved = place.root / "elsewhere"
    moved.mkdir()
    for name in ("model", "dogs.sqlite", "train.jsonl", "heldout.jsonl"):
        shutil.move(place.root / name, moved / name)
    data = (f"data.train={moved}/train.jsonl", f"data.heldout={moved}/heldout.jsonl")
    with pytest.raises(EnginesReached):
        place.start("resume=auto", ADAPTERS, f"model.path={moved}/model", *data)


def test_a_checkpoint_without_an_identity_is_gone_on_from_unchecked_and_that_is_said(place, capsys):
    checkpoint = place.run / "checkpoints" / "step-000002"
    (checkpoint / FILE).unlink()
    manifest = json.loads((checkpoint / "MANIFEST.json").read_text())
    del manifest["files"][FILE]
    (checkpoint / "MANIFEST.json").write_text(json.dumps(manifest))
    for setting in ("seed=3", "algo.sampler.type=difficulty", "learner.zero_stage=2", "learner.lora.rank=8"):
        assert setting.partition("=")[0] + " was" in place.refused(ADAPTERS, setting)
    other_evidence(place)
    capsys.readouterr()
    with pytest.raises(EnginesReached):
        place.start("resume=auto", ADAPTERS, "prompt.max_tokens=200")
    assert "was written before runs kept what they are made from" in " ".join(capsys.readouterr().out.split())


def test_rows_before_the_first_checkpoint_are_not_thrown_away_for_another_run(place):
    shutil.rmtree(place.run / "checkpoints")
    assert "seed was 0" in place.refused(ADAPTERS, "seed=1")
    (place.run / "metrics.jsonl").write_text("")
    (place.run / "ledger.jsonl").write_text("")
    with pytest.raises(EnginesReached):  # nothing was recorded: nothing to lose
        place.start("resume=auto", "seed=1")


def test_an_error_before_the_engines_leaves_the_earlier_run_as_it_was(place):
    before = place.contents()
    (place.root / "dogs.sqlite").rename(place.root / "cats.sqlite")
    with pytest.raises(QuorumError, match="no training task remains"):
        place.start("resume=auto", ADAPTERS)
    assert place.contents() == before


WARM = ("warmup.enabled=true", "warmup.steps=5")


def test_a_warm_up_that_was_made_again_is_said_and_refused_where_adapters_go_on_from_it(place, capsys):
    shutil.rmtree(place.run)
    begin(place, *WARM)
    assert "warmup.steps was 5" in place.refused("warmup.enabled=true", "warmup.steps=6")
    trained_further(place.warm)
    with pytest.raises(EnginesReached):
        place.start("resume=auto", *WARM)
    assert "the checkpoint's count" in capsys.readouterr().out
    shutil.rmtree(place.run)
    begin(place, *WARM, ADAPTERS)
    trained_further(place.warm)
    assert "the weights of the warmed-up policy was" in place.refused(*WARM, ADAPTERS)


class FakeEngines:
    """Lose the way of their weights at once, while a database is replaced."""

    place: Place
    opened = 0

    async def watch(self) -> None:
        other_rows(self.place)
        raise WeightUpdateFailed("the previous weight broadcast failed")


class EndlessJob:
    def __init__(self, **_: object) -> None:
        pass

    async def run(self) -> None:
        await asyncio.Event().wait()


def test_a_run_does_not_go_on_by_itself_from_what_was_replaced_under_it(place, monkeypatch):
    FakeEngines.place = place

    @contextlib.asynccontextmanager
    async def engines(*_: object) -> AsyncIterator[FakeEngines]:
        FakeEngines.opened += 1
        yield FakeEngines()

    monkeypatch.setattr(trainer.run._Session, "_run_job", RUN_JOB)
    monkeypatch.setattr(trainer.run, "engines", engines)
    monkeypatch.setattr(trainer.run, "Job", EndlessJob)
    with pytest.raises(ResumeRefused, match="the content of the training databases was"):
        place.start("resume=auto", ADAPTERS, "learner.max_restarts=2")
    assert FakeEngines.opened == 1


def test_a_warm_up_that_was_made_again_does_not_end_a_run_that_loses_its_engines(place, monkeypatch, capsys):
    shutil.rmtree(place.run)
    begin(place, *WARM)
    trained_further(place.warm)
    opened: list[int] = []

    class Losing:
        async def watch(self) -> None:
            raise WeightUpdateFailed("the previous weight broadcast failed")

    @contextlib.asynccontextmanager
    async def engines(*_: object) -> AsyncIterator[Losing]:
        opened.append(1)
        yield Losing()

    monkeypatch.setattr(trainer.run._Session, "_run_job", RUN_JOB)
    monkeypatch.setattr(trainer.run, "engines", engines)
    monkeypatch.setattr(trainer.run, "Job", EndlessJob)
    with pytest.raises(WeightUpdateFailed):
        place.start("resume=auto", *WARM, "learner.max_restarts=2")
    assert len(opened) == 3


DAMAGED_ROWS = {
    "metrics.jsonl": ('{"version": 1}\n', "metrics.jsonl:1 names no step"),
    "samples.jsonl": ('{"step": "1"}\n', "samples.jsonl:1 names no step"),
    "ledger.jsonl": ('{"step": 2, "version": 2, "trained": []}\n', "should hold the checkpoint's steps 1 to 2"),
}


@pytest.mark.parametrize("name", DAMAGED_ROWS)
def test_damaged_rows_are_one_sentence_before_anything_slow_and_nothing_is_cut(place, monkeypatch, name):
    text, sentence = DAMAGED_ROWS[name]
    (place.run / name).write_text(text)
    before = place.contents()
    monkeypatch.setattr("trainer.inputs.load_tasks", lambda data: pytest.fail("it went on"))
    with pytest.raises(RecordsDamaged, match=sentence):
        place.start("resume=auto", ADAPTERS)
    assert place.contents() == before


def test_a_checkpoint_without_its_manifest_is_not_taken_for_none(place):
    (place.run / "checkpoints" / "step-000002" / "MANIFEST.json").unlink()
    before = place.contents()
    with pytest.raises(CheckpointInvalid, match=r"step-000002/MANIFEST.json is missing: remove .*step-000002 to"):
        place.start("resume=auto", ADAPTERS)
    assert place.contents() == before


def test_a_first_start_under_resume_auto_is_recorded_from_its_beginning(place):
    shutil.rmtree(place.run)
    (place.root / "dogs.sqlite").rename(place.root / "cats.sqlite")
    with pytest.raises(QuorumError, match="no training task remains"):
        place.start("resume=auto", ADAPTERS)
    summary = read_summary(place.run)
    assert summary is not None
    assert summary["status"] == "failed"
    assert (place.run / "config.yaml").is_file()


@pytest.mark.parametrize("name", ["tokenizer.model", "vocab.txt", "additional_chat_templates/tools.jinja"])
def test_every_file_of_a_tokenizer_counts(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    found = set()
    for content in ("one", "two"):
        (tmp_path / name).write_text(content)
        found.add(_tokenizer_digest(tmp_path))
    assert len(found) == 2


@pytest.mark.parametrize("header", [b"[]", b"{}x", b'"a"', b"null"])
def test_weights_with_another_header_are_one_sentence(tmp_path, header):
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(QuorumError, match="model.safetensors is no safetensors file"):
        weights_digest(tmp_path)


def test_a_link_to_weights_that_are_gone_is_one_sentence(tmp_path):
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blobs" / "gone")
    with pytest.raises(QuorumError, match="model.safetensors cannot be read: No such file"):
        weights_digest(tmp_path)


def test_weights_are_told_apart_by_content_and_not_by_files(tmp_path):
    torch.manual_seed(0)
    weights = {f"w{n}": torch.randn(64, 600) for n in range(4)}
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    save_file(weights, one / "model.safetensors")
    save_file({"w0": weights["w0"]}, two / "a.safetensors", metadata={"format": "pt"})
    save_file({n: weights[n] for n in ("w1", "w2", "w3")}, two / "b.safetensors")
    assert weights_digest(one) == weights_digest(two)
    weights["w2"][-1, -1] += 1e-3
    save_file(weights, one / "model.safetensors")
    assert weights_digest(one) != weights_digest(two)
    (one / "model.safetensors").write_bytes(b"\xff" * 30)
    with pytest.raises(QuorumError, match="model.safetensors is no safetensors file"):
        weights_digest(one)


def test_a_damaged_identity_is_one_sentence(place):
    shutil.rmtree(place.run / "checkpoints")
    (place.run / FILE).write_text("{")
    with pytest.raises(QuorumError, match=r"identity.json is damaged \(Invalid JSON.*remove it to go on unchecked"):
        place.start("resume=auto", ADAPTERS)
