"""Composition, validation and the messages that a wrong setting gets."""

import resource
import subprocess
import sys

import pytest
from pydantic import BaseModel, ValidationError, field_validator

from conf.errors import ConfigError, first_line
from conf.load import groups, load, to_yaml
from conf.schema.benchmark import BirdBenchmark
from conf.schema.reward import RewardConfig
from conf.schema.root import TrainConfig
from conf.schema.selection import StudyConfig


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(TrainConfig, "train", overrides)
    return str(error.value)


def budgets(*overrides: str) -> tuple[int, int, float, int, float, int]:
    config = load(TrainConfig, "train", overrides)
    warmup = config.warmup
    lengths = config.prompt.max_tokens, config.rollout.sampling.max_tokens
    return (*lengths, config.learner.learning_rate, warmup.steps, warmup.learning_rate, warmup.max_tokens)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), (192, 64, 3e-4, 400, 2e-3, 192)),
        (("model=pretrained", "model.path=x"), (1500, 256, 8e-6, 100, 1e-5, 2048)),
        (("model=qwen2_5_coder_0_5b",), (1500, 256, 8e-6, 100, 1e-5, 2048)),
        (("model=qwen2_5_coder_0_5b", "warmup=none"), (1500, 256, 8e-6, 1000, 1e-5, 2048)),
        (("experiment=spider_smoke", "data.root=x"), (1500, 64, 3e-4, 20, 1e-3, 1024)),
        (("experiment=spider_smoke", "data.root=x", "model=qwen2_5_coder_0_5b"), (1500, 256, 8e-6, 20, 1e-5, 2048)),
        (("model=qwen2_5_coder_0_5b", "warmup=smoke"), (1500, 256, 8e-6, 20, 1e-5, 2048)),
        (("experiment=quickstart_reasoning",), (192, 128, 3e-4, 400, 2e-3, 256)),
        (("experiment=quickstart_reasoning", "model=qwen2_5_coder_3b"), (1500, 512, 8e-6, 100, 1e-5, 2048)),
        (
            (
                "model=pretrained",
                "model.path=x",
                "prompt.max_tokens=300",
                "warmup.learning_rate=1e-4",
                "warmup.steps=5",
            ),
            (300, 256, 8e-6, 5, 1e-4, 2048),
        ),
    ],
)
def test_a_pretrained_model_does_not_inherit_the_tiny_policys_budgets(overrides, expected):
    assert budgets(*overrides) == expected


@pytest.mark.parametrize("experiment", groups()["experiment"])
def test_every_experiment_validates(experiment):
    overrides = [f"experiment={experiment}"]
    if experiment != "quickstart":
        overrides.append("data.root=somewhere")
    assert load(TrainConfig, "train", overrides).run.name == experiment


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rollout.grup_size=4", "rollout.grup_size is not a setting (did you mean group_size?)"),
        ("group_size=4", "group_size is not a setting (did you mean rollout.group_size?)"),
        ("model.hiden_size=4", "model.hiden_size is not a setting (did you mean hidden_size?)"),
        ("experiment=quikstart", "(did you mean quickstart?)"),
        ("algo.loss.type=gropo", "(did you mean"),
        ("rollout.engine.dtype=bfloat", "choose one of bfloat16, float32 (did you mean bfloat16?)"),
        ("rollout.group_size=1", "rollout.group_size=1: input should be greater than or equal to 2"),
        ("warmup.enabled=false", "model=tiny has random weights: set warmup.enabled=true"),
        ("prompt.thinking=true", "prompt.thinking=True contradicts reward.format.thinking=False"),
        ("rollout.engine.max_model_len=16", "rollout.engine.max_model_len=16 is smaller than"),
        ("learner.ranks=5", "must be a multiple of learner.ranks"),
        ("what is this", "write settings as name=value"),
        ("rollout.sampling.temperature=0", "rollout.sampling.temperature=0 samples the same completion every time"),
        ("rollout.sampling.top_p=0.9", "train with top_p=1 top_k=0"),
        ("rollout.sampling.top_k=20", "train with top_p=1 top_k=0"),
        ("rollout.engine.tensor_parallel_size=2", "weights by shared memory reach one process of an engine"),
        ("algo.overlong.buffer_tokens=65", "algo.overlong.buffer_tokens=65 exceeds rollout.sampling.max_tokens=64"),
        ("rollout.group_timeout_s=900", "pipeline.stall_timeout_s=900 has ended the run"),
        ("reward.server.timeout_s=300", "lower the former below a third of the latter"),
        ("reward.server.timeout_s=30", "reward.execution.budget.wall_s=30: raise the former above the latter"),
        ("reward.execution.budget.clock=tomorrow", "'tomorrow' is no moment: write it as YYYY-MM-DD HH:MM:SS, in UTC"),
        ("reward.execution.budget.clock=2026-02-30", "'2026-02-30' is no moment"),
        (
            "reward.execution.budget.clock=2026-01-01T00:00:00Z",
            "'2026-01-01T00:00:00Z' has a time zone: leave that out",
        ),
        ("algo.importance.floor=4", "floor=4 must be smaller than cap=3"),
        ("learner.micro_batch_tokens=255", "rollout.sampling.max_tokens = 256, the longest sequence of a forward pass"),
        ("rollout.weight_transfer=nccl", "needs cluster.accelerator=gpu: choose cluster=split, or rollout.weight_tr"),
        ("rollout.weight_transfer=ipc", "needs cluster.accelerator=gpu: choose cluster=single_gpu, or rollout.wei"),
        ("model.vocabulary=263", "model.vocabulary=263 is too small: at least 264 tokens are needed"),
        ("model.max_positions=100", "rollout.sampling.max_tokens = 256: raise it to at least 256"),
        ("rollout.engine.max_model_len=4096", "is beyond model.max_positions=2048: lower the former or raise"),
        ("rollout.engine.max_num_seqs=9000", "is more than the tokens of a step, rollout.engine.max_num_batched_tok"),
        (
            "reward.rank_correct_first=true reward.execution.weight=0 reward.memory.enabled=false",
            "right answers to earn",
        ),
        ("model=pretrained model.path=x model.random_weights=true warmup.enabled=false", "set warmup.enabled=true, or"),
        ("seed=4294967296", "seed=4294967296: input should be less than 4294967296"),
        ("model.path=here", "model.path is a setting of model=pretrained: choose that, or leave it out"),
        ("data.databases=y", "data.databases is a setting of data=jsonl: choose that"),
        (
            "reward.atomic.shaping={type: published, power: 2}",
            "power is a setting of reward.atomic.shaping.type=linear",
        ),
        ("algo.sampler.floor=0.1", "algo.sampler needs a type: add algo.sampler.type=uniform or difficulty"),
        ("algo.loss.delta=1.1", "delta=1.1 must be greater than 1 + epsilon_high"),
        ("algo.loss=5", "algo.loss=5: a section, whose settings are written one by one: algo.loss.type=grpo or"),
        ("rollout.sampling=null", "rollout.sampling=None: a section, whose settings are written one by one: rollout."),
        ("rollout.engine.zzz=4", "rollout.engine.zzz is not a setting; rollout.engine has dtype, max_model_len,"),
        (
            "run.dir='a=b",
            'cannot read "run.dir=\'a=b": write settings as name=value, and values with special characters',
        ),
        ("=x", "cannot read '=x': write settings as name=value"),
        ("run.dir=${nope}", "run.dir: Interpolation key 'nope' not found"),
    ],
)
def test_a_wrong_setting_is_named_with_what_to_write_instead(override, message):
    overrides = override.split() if override.count("=") > 1 and "{" not in override else [override]
    assert message in refused(*overrides)


@pytest.mark.parametrize(
    ("refusal", "advice"),
    [
        (("rollout.weight_transfer=nccl",), ("rollout.weight_transfer=auto",)),
        (("rollout.weight_transfer=nccl",), ("cluster=split",)),
        (("rollout.weight_transfer=ipc", "rollout.workers=1"), ("cluster=single_gpu",)),
        (("cluster=split", "rollout.weight_transfer=ipc", "rollout.workers=1"), ("cluster=single_gpu",)),
        (("cluster=split", "rollout.weight_transfer=ipc"), ("rollout.weight_transfer=nccl",)),
        (("cluster=single_gpu", "rollout.workers=2"), ("cluster=split",)),
        (("cluster=single_gpu", "rollout.workers=2"), ("cluster.learner_gpus=0.4", "cluster.rollout_gpus=0.3")),
        (
            ("cluster=single_gpu", "rollout.workers=2", "rollout.weight_transfer=ipc"),
            ("cluster=split", "rollout.weight_transfer=auto"),
        ),
        (
            ("cluster=single_gpu", "rollout.workers=1", "rollout.engine.tensor_parallel_size=2"),
            ("rollout.engine.tensor_parallel_size=1",),
        ),
        (("rollout.engine.max_num_seqs=9000",), ("rollout.engine.max_num_batched_tokens=9000",)),
        (("rollout.engine.max_model_len=4096",), ("model.max_positions=4096",)),
        (("rollout.engine.max_model_len=4096",), ("rollout.engine.max_model_len=2048",)),
        (("model.max_positions=100",), ("model.max_positions=256",)),
    ],
)
def test_what_a_refusal_advises_is_accepted(refusal, advice):
    usual = ("learner.dtype=bfloat16", "learner.packing=padded")
    said = refused(*usual, *refusal)
    for setting in advice:
        assert setting.partition("=")[0].partition(".")[0] in said
    load(TrainConfig, "train", ["experiment=quickstart", *usual, *refusal, *advice])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("cluster=split", "rollout.weight_transfer=ipc"),
            "ipc needs rollout and learner on one device: choose cluster=single_gpu, or rollout.weight_transfer=nccl",
        ),
        (
            ("cluster=single_gpu", "rollout.workers=1", "rollout.weight_transfer=nccl"),
            "cluster.colocate=true shares one: choose cluster=split, or rollout.weight_transfer=ipc",
        ),
        (("cluster=single_gpu", "rollout.workers=2"), "rollout.workers=2 x 0.5 ask for 1.5: choose cluster=split"),
        (("cluster=single_gpu", "rollout.workers=1", "learner.ranks=2"), "learner.ranks=2 x cluster.learner_gpus=0.5"),
        (
            ("cluster=single_gpu", "rollout.workers=1", "rollout.engine.tensor_parallel_size=2"),
            "rollout.workers=1 x 2 ask for 2.5",
        ),
    ],
)
def test_weights_that_could_not_reach_the_engines_are_refused(overrides, message):
    assert message in refused("learner.dtype=bfloat16", *overrides)


def test_shared_prompts_on_a_gpu_need_bfloat16():
    assert "choose one of learner.dtype=bfloat16 and learner.packing=padded" in refused("cluster=single_gpu")


@pytest.mark.parametrize("share", ["0", "1.1"])
def test_a_share_of_copied_runs_is_a_share(share):
    assert f"reward.memory.copy_overlap={share}" in refused("reward=strict", f"reward.memory.copy_overlap={share}")


def test_finer_is_as_published_and_strict_pays_no_cheat():
    finer, strict = (load(TrainConfig, "train", [f"reward={name}"]).reward for name in ("finer", "strict"))
    assert (finer.memory.needs_execution, finer.memory.copy_overlap) == (False, None)
    assert (finer.execution.instances, finer.execution.constant_answer) == ("primary", "score")
    assert (strict.memory.needs_execution, strict.memory.copy_overlap) == (True, 0.7)
    assert (strict.execution.instances, strict.execution.constant_answer) == ("all", "wrong")


def test_resampling_needs_dropping():
    assert "set it to true" in refused("algo.resample=true", "algo.drop_zero_variance=false")


def test_samplers_and_options_load_by_name():
    overrides = ["algo.sampler.type=difficulty", "algo.sampler.floor=0.1", "learner.lora.rank=8"]
    config = load(TrainConfig, "train", overrides)
    assert config.algo.sampler.type == "difficulty"
    assert config.learner.lora.rank == 8


def test_a_mandatory_setting_is_named():
    assert "data.root" in refused("experiment=spider_smoke")


def test_the_printed_configuration_is_complete_and_loads_again():
    config = load(TrainConfig, "train", ["seed=7", "algo.loss.epsilon_low=0.1"])
    printed = to_yaml(config)
    assert "seed: 7" in printed
    assert "stall_timeout_s" in printed
    import yaml

    assert TrainConfig.model_validate(yaml.safe_load(printed)) == config


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60)


def test_help_answers_in_under_two_seconds_without_heavy_imports():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = run_python("-X", "importtime", "-m", "trainer", "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert answer.returncode == 0
    assert "experiment" in answer.stdout
    for heavy in ("torch", "ray", "vllm", "transformers", "deepspeed"):
        assert f"| {heavy}\n" not in answer.stderr.replace(" " * 2, "")
    # CPU time: what others do on the machine is no reason to fail.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2.0


def test_a_wrong_setting_ends_with_code_2_and_one_line():
    answer = run_python("-m", "trainer", "rollout.grup_size=4")
    assert answer.returncode == 2
    assert answer.stderr == "configuration: rollout.grup_size is not a setting (did you mean group_size?)\n"


def test_a_benchmarks_budget_keeps_its_own_values_where_one_is_given():
    given = ["data.root=x", "predictions=y", "output=z", "execution.budget.cpu_s=60"]
    budget = load(BirdBenchmark, "benchmark_bird", given).execution.budget
    assert (budget.cpu_s, budget.vm_steps, budget.sql_chars) == (60.0, 2_000_000_000, 1_000_000)
    assert RewardConfig().execution.budget.sql_chars == 20_000


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("candidates={a: 1}", "candidates={'a': 1}: input should be a valid string or a list, written [A,B]"),
    ],
)
def test_a_setting_of_several_kinds_names_none_of_pydantics_types(setting, message):
    with pytest.raises(ConfigError) as error:
        load(StudyConfig, "selection_study", [setting, "output=x"])
    assert str(error.value) == message


class _Model(BaseModel):
    length: int
    name: str = ""

    @field_validator("name")
    @classmethod
    def _short(cls, name: str) -> str:
        if len(name) > 3:
            raise ValueError(f"a long name:\n  choose a shorter one than {name}")
        return name


def test_a_librarys_error_is_quoted_with_its_cause():
    with pytest.raises(ValidationError) as error:
        _Model(length="x", name="long")
    told = first_line(error.value, otherwise="nothing")
    assert told == (
        "length: Input should be a valid integer, unable to parse string as an integer; "
        "name: a long name: choose a shorter one than long"
    )
    assert first_line(OSError("one of:\n(1) a\n\n (2) b\n"), otherwise="") == "one of: (1) a (2) b"
    assert first_line(OSError("plain\nmore"), otherwise="") == "plain"
    assert first_line(OSError(" \n"), otherwise="no model") == "no model"
    assert len(first_line(OSError("a" * 5000), otherwise="")) < 1000
    with pytest.raises(ValidationError) as long:
        _Model(length=1, name="four" * 1000)
    assert len(first_line(long.value, otherwise="")) < 1000
