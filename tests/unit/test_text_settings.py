"""Settings that are text: the text that was typed, never empty, relative paths absolute once and for all."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

import pytest
from pydantic import BaseModel

import conf.schema
from conf.cli import run_entrypoint
from conf.errors import ConfigError
from conf.load import load, quoted, to_yaml
from conf.paths import absolute, kinds, relative_paths
from conf.schema.base import Kind, Section
from conf.schema.benchmark import DemoBenchmark
from conf.schema.root import TrainConfig
from conf.schema.selection import StudyConfig
from conf.schema.simulation import SimulationConfig
from operate.jobs.settings import KINDS, prepare

ROOT = Path(__file__).resolve().parents[2]
PRETRAINED = ("model=pretrained", "warmup=none", "prompt.thinking=false")
JSONL = ("data=jsonl", "data.train=t.jsonl")


def sections() -> Iterator[type[BaseModel]]:
    for file in Path(conf.schema.__file__).parent.glob("*.py"):
        __import__(f"conf.schema.{file.stem}")
    waiting: list[type[BaseModel]] = [Section]
    while waiting:
        found = waiting.pop()
        yield found
        waiting += found.__subclasses__()


def bare(annotation: Any) -> bool:
    """Whether some part is a str whose kind is not said."""
    if get_origin(annotation) is Annotated:
        marked = any(isinstance(mark, Kind) for mark in get_args(annotation))
        return not marked and bare(get_args(annotation)[0])
    return annotation is str or any(map(bare, get_args(annotation))) and annotation is not UnionType


def test_every_text_setting_of_every_section_says_what_it_names():
    unmarked = [
        f"{section.__name__}.{name}"
        for section in sections()
        if section.__module__.startswith("conf.")
        for name, field in section.model_fields.items()
        if bare(field.annotation) and not any(isinstance(mark, Kind) for mark in field.metadata)
    ]
    assert unmarked == []


def test_the_walk_finds_a_bare_text():
    assert bare(str)
    assert bare(tuple[str, ...] | None)
    assert not bare(Annotated[str, Kind.PATH] | None)


TYPED = ("20261130", "1e5", "1_000", "0x1F", "true", "False", "null", "nan", "007", "1.50", "-3", "a=b", "1,2")
FOLDERS = (
    *("/tmp/müller", "/tmp/日本", "a=b", "~x", "a#b", "a&b", "a[b]", "[a,b]", "a{b}", "{a: 1}", "a b", "it's", "a,b"),
    *("a(b)", "x;y", "a|b", "a!b", "a%b", "a?b*"),
)
HARD = (
    *(
        "/tmp/müller",
        "a\\",
        "a\\\\",
        "a\\'b",
        "it's",
        'q"q',
        "${x}",
        "\\${x}",
        "$${x}",
        "${",
        "null",
        "1e5",
        "+a",
        "a\\b",
    ),
    *("[a,b]", "a\\\\'${x}\\", "0"),
)
PLACES = ("run.dir", "warmup.cache", "logging.wandb.project")


def read(written: Sequence[str], *, prefix: str = "") -> list[str]:
    """What text settings become; several at a time, since composing is slow."""
    found = []
    for start in range(0, len(written), 3):
        part = written[start : start + 3]
        settings = [f"{prefix}{place}={text}" for place, text in zip(PLACES, part, strict=False)]
        config = load(TrainConfig, "train", settings)
        found += [config.run.dir, config.warmup.cache, config.logging.wandb.project][: len(part)]
    return found


def test_a_text_setting_takes_the_text_that_was_typed():
    assert read(TYPED) == [*TYPED]
    assert read([f"'{text}'" for text in TYPED[:3]], prefix="++") == [*TYPED[:3]]


def test_folders_with_letters_of_any_kind_are_read_as_typed():
    assert read(FOLDERS) == [*FOLDERS]


def test_what_is_quoted_is_read_as_that_very_text():
    assert read([quoted(text) for text in HARD], prefix="++") == [*HARD]


def test_names_revisions_and_files_may_be_digits():
    settings = [*PRETRAINED, *JSONL, "run.name=20261130", "model.path=123", "model.revision=1e5", "data.heldout=7"]
    config = load(TrainConfig, "train", settings)
    assert (config.run.name, config.model.path, config.model.revision) == ("20261130", "123", "1e5")
    assert config.data.heldout == "7"


def test_nothing_stays_nothing_where_a_setting_may_be_left_out_and_numbers_stay_numbers():
    assert load(TrainConfig, "train", [*PRETRAINED, *JSONL, "model.path=x", "data.heldout=null"]).data.heldout is None
    assert load(TrainConfig, "train", ["seed=7", "run.dir=7"]).seed == 7


def test_items_of_a_list_of_texts_are_what_was_typed():
    typed = ["calibrate=[20261130,runs/a=b, 'x,y' ,1e5,a[1]]", "train=[seed=1,algo.x=[1,2]]"]
    config = load(SimulationConfig, "simulation", typed)
    assert config.calibrate == ("20261130", "runs/a=b", "x,y", "1e5", "a[1]")
    assert config.train == ("seed=1", "algo.x=[1,2]")
    assert load(SimulationConfig, "simulation", ["calibrate=[]"]).calibrate == ()
    files = load(StudyConfig, "selection_study", ["candidates=20261130", "output=o"]).files
    assert files == ("20261130",)


def test_empty_paths_and_names_are_refused_by_name():
    empty = ("model.path=", "model.revision='  '", "data.train=", "data.heldout=''", "rollout.lengths=", "run.dir=")
    with pytest.raises(ConfigError) as error:
        load(TrainConfig, "train", [*PRETRAINED, *JSONL, *empty])
    names = sorted(setting.partition("=")[0] for setting in empty)
    assert sorted(str(error.value).splitlines()) == [
        f"{name}: an empty value: write one, or leave the setting out" for name in names
    ]


def test_interpolations_and_quotes_that_do_not_end_are_no_text_of_their_own():
    assert load(TrainConfig, "train", ["run.dir=${run.name}"]).run.dir == "quickstart"
    for setting in ("run.dir='abc", "run.dir=${run.name}#a"):
        with pytest.raises(ConfigError, match="cannot read"):
            load(TrainConfig, "train", [setting])


def test_digits_survive_the_configuration_file():
    config = load(TrainConfig, "train", ["run.name=20261130", "run.dir=1e5"])
    from omegaconf import OmegaConf

    values = OmegaConf.to_container(OmegaConf.create(to_yaml(config)))
    assert TrainConfig.model_validate(values) == config


def test_every_relative_path_becomes_absolute_and_names_stay_names(tmp_path):
    (tmp_path / "policy").mkdir()
    settings = [
        *(*PRETRAINED, *JSONL, "data.heldout=/abs/h.jsonl", "data.databases=db", "rollout.lengths=l.txt"),
        *("run.index=i.db", "reward.memory.store=m.db", "warmup.cache=../w", "model.path=policy", "run.dir=r"),
        *("reward.memory.embedder.type=vllm", "reward.memory.embedder.model=org/embedder"),
    ]
    config = absolute(load(TrainConfig, "train", settings), tmp_path)
    here = str(tmp_path)
    assert config.model.path == f"{here}/policy"
    assert (config.data.train, config.data.heldout) == (f"{here}/t.jsonl", "/abs/h.jsonl")
    assert (config.data.databases, config.rollout.lengths) == (f"{here}/db", f"{here}/l.txt")
    assert (config.run.dir, config.run.index) == (f"{here}/r", f"{here}/i.db")
    assert (config.reward.memory.store, config.warmup.cache) == (f"{here}/m.db", f"{here}/../w")
    assert config.reward.memory.embedder.model == "org/embedder"
    assert absolute(config, Path("/elsewhere")) is config
    hub = load(TrainConfig, "train", [*PRETRAINED, "model.path=Qwen/Qwen2.5-Coder-3B"])
    assert absolute(hub, tmp_path).model.path == "Qwen/Qwen2.5-Coder-3B"


def test_what_lies_below_a_folder_stays_below_it_and_lists_are_resolved(tmp_path):
    spider = load(TrainConfig, "train", ["data=spider", "data.root=s", "data.train_file=t.json"])
    assert absolute(spider, tmp_path).data.root == f"{tmp_path}/s"
    assert absolute(spider, tmp_path).data.train_file == "t.json"
    several = load(StudyConfig, "selection_study", ["candidates=[a,/b]", "output=o"])
    assert absolute(several, tmp_path).candidates == (f"{tmp_path}/a", "/b")
    assert relative_paths(several, tmp_path) == {"candidates": (f"{tmp_path}/a", "/b"), "output": f"{tmp_path}/o"}


def test_an_entrypoint_hands_absolute_paths_to_its_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen: list[DemoBenchmark] = []

    def job(config: DemoBenchmark) -> int:
        seen.append(config)
        return 0

    assert run_entrypoint(DemoBenchmark, "benchmark_demo", job, "", ["predictions=p", "output=out"]) == 0
    assert (seen[0].predictions, seen[0].output) == (f"{tmp_path}/p", f"{tmp_path}/out")
    assert seen[0].data.root == f"{tmp_path}/runs/.cache/demo"


def test_every_path_of_a_submitted_job_is_given_and_from_any_folder(tmp_path):
    base = tmp_path / "mü =~#&[x] it's"
    (base / "policy").mkdir(parents=True)
    settings = [*PRETRAINED, "model.path=policy", "rollout.lengths=l.txt", "reward.memory.store=m.db", "run.name=2026"]
    prepared = prepare(KINDS["train",], settings, base)
    config = load(TrainConfig, "train", prepared.arguments)
    assert relative_paths(config, base) == {}
    assert (config.model.path, config.rollout.lengths) == (f"{base}/policy", f"{base}/l.txt")
    assert (config.reward.memory.store, prepared.folder) == (f"{base}/m.db", f"{base}/runs/2026")


def test_a_working_directory_that_is_gone_is_one_sentence(tmp_path):
    program = f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); os.mkdir('x'); os.chdir('x'); os.rmdir('../x');"
    program += "from conf.cli import run_entrypoint; from conf.schema.root import TrainConfig;"
    program += "chosen = [[], ['experiment=quickstart']];"
    program += "print([run_entrypoint(TrainConfig, 'train', lambda config: 0, '', one) for one in chosen])"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    said = "configuration: the working directory has been removed\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "[2, 2]\n", 2 * said)


def test_kinds_are_found_inside_lists_and_alternatives():
    assert kinds(StudyConfig.model_fields["candidates"]) == {Kind.PATH}
    assert kinds(TrainConfig.model_fields["seed"]) == set()
