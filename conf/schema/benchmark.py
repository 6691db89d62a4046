"""What a benchmark run needs: the questions, where the answers come from, how one is chosen, and the limits."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from conf.passwords import NO_PASSWORD, VariableName
from conf.schema.base import PathBelow, PathText, Section, Word
from conf.schema.data import DemoData
from conf.schema.prompt import PromptConfig
from conf.schema.reward import PRESENT, BudgetConfig
from conf.schema.rollout import EngineConfig
from conf.schema.stages import ClusterConfig

VoterName = Literal[
    "value_aware",
    "value_aware_conditioned",
    "majority",
    "first",
    "greedy",
    "oracle",
    "soft_vote",
    "log_probability",
    "confidence_weighted",
    "reranker",
]


class SpiderQuestions(Section):
    """The published Spider layout: ROOT/dev.json, tables.json, database/<db_id>/*.sqlite."""

    type: Literal["spider"] = "spider"
    root: PathText
    split: Literal["dev", "test", "train"] = "dev"
    questions: PathBelow | None = None
    """Question file below root, instead of the split's."""
    tables: PathBelow | None = None
    """Schema file below root, instead of the split's; exact set match takes its foreign keys."""
    databases: PathBelow | None = None
    """Database folder below root, instead of the split's: the test-suite databases, for instance."""


class BirdQuestions(Section):
    """The published BIRD layout: ROOT/dev.json, dev_databases/<db_id>/<db_id>.sqlite; also train, mini-dev."""

    type: Literal["bird"] = "bird"
    root: PathText
    split: Literal["dev", "train", "mini_dev"] = "dev"
    questions: PathBelow | None = None
    """Question file below root, instead of the split's."""
    databases: PathBelow | None = None
    """Database folder below root, instead of the split's."""


class ModelSource(Section):
    """Who answers: a policy in a folder, or a hosted model that speaks the OpenAI protocol."""

    path: PathText | None = None
    """Hugging Face folder; generates with vLLM through the same rollout code as training."""
    api: Word | None = None
    """Base URL of a hosted model, for instance https://host/v1."""
    name: Word | None = None
    """The hosted model's name."""
    key_variable: VariableName = "OPENAI_API_KEY"
    """Environment variable that holds the key; a server that asks for none needs none."""
    requests_per_minute: PositiveFloat = 60.0
    budget_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls the completion budget; hosted reasoning models take the second alone."""
    batch_choices: bool = True
    """Ask for several candidates in one request (the protocol's n); false for servers that refuse that."""
    concurrency: PositiveInt = 8
    """Requests under way at a time."""
    retries: NonNegativeInt = 5
    """Repetitions of a request that failed for a passing reason; pauses grow."""
    timeout_s: PositiveFloat = 120.0
    """Longest wait for one response."""

    @field_validator("api")
    @classmethod
    def _is_url(cls, api: str | None) -> str | None:
        if api is None:
            return None
        if "@" in api:
            raise ValueError(NO_PASSWORD)
        if "?" in api or "#" in api:
            raise ValueError("an address without ? and # expected: put a key into the variable model.key_variable")
        if not api.startswith(("http://", "https://")):
            raise ValueError(f"a URL expected, for instance https://{api.partition('://')[2] or api}")
        import httpx  # it takes longer to import than `quorum --help` should

        try:
            url = httpx.URL(api)
            usable = bool(url.host) and 0 < (url.port or 80) < 2**16
        except (httpx.InvalidURL, ValueError):  # its words repeat what is in the port's place, such as a password
            usable = False
        if not usable:
            raise ValueError("an address of a host, and a port up to 65535 if any, expected: https://host:8000/v1")
        return api


class BenchmarkSampling(Section):
    n: PositiveInt = 30
    """Candidates for each question."""
    temperature: float = Field(default=1.0, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: NonNegativeInt = 0
    """0: no limit."""
    max_tokens: PositiveInt = 2048
    """Completion budget in tokens."""
    greedy: bool = True
    """One more candidate decoded at temperature 0, reported beside the sampled ones."""


class BenchmarkMetrics(Section):
    ves: bool = False
    """BIRD only: time right answers against the gold (VES and R-VES)."""
    ves_repeats: PositiveInt = 10
    """Timed runs of both queries."""


OFFICIAL_BUDGET = BudgetConfig(
    vm_steps=2_000_000_000,
    rows=1_000_000,
    bytes=256 * 2**20,
    value_bytes=64 * 2**20,
    heap_mib=1024,
    sql_chars=1_000_000,
    cpu_s=30.0,
    wall_s=60.0,
    clock=PRESENT,  # what the official scripts read, but one time for gold and prediction
)


class BenchmarkExecution(Section):
    executors: PositiveInt | None = None
    """SQLite processes (None: one for each CPU)."""
    budget: BudgetConfig = OFFICIAL_BUDGET
    """Wide enough for what the official scripts run; what is not given is the benchmarks' value, not training's."""

    @field_validator("budget", mode="before")
    @classmethod
    def _rest_is_official(cls, budget: object) -> object:
        return OFFICIAL_BUDGET.model_dump() | budget if isinstance(budget, dict) else budget


class BenchmarkConfig(Section):
    """Shared by the benchmarks."""

    limit: PositiveInt | None = None
    """Use the first questions only (None: all); scores are then no benchmark numbers, and the report says so."""
    predictions: PathText | None = None
    """File of existing predictions: the official format, or JSON lines with several candidates."""
    model: ModelSource = ModelSource()
    sampling: BenchmarkSampling = BenchmarkSampling()
    prompt: PromptConfig = PromptConfig()
    engine: EngineConfig = EngineConfig()
    workers: PositiveInt = 1
    """vLLM engines for model.path."""
    cluster: ClusterConfig = ClusterConfig()
    selection: VoterName = "value_aware"
    reranker: PathText | None = None
    """File of a trained reranker, for selection=reranker."""
    metrics: BenchmarkMetrics = BenchmarkMetrics()
    execution: BenchmarkExecution = BenchmarkExecution()
    seed: NonNegativeInt = 0
    output: PathText

    @model_validator(mode="after")
    def _one_source(self) -> "BenchmarkConfig":
        given = [
            name
            for name, value in (
                ("predictions", self.predictions),
                ("model.path", self.model.path),
                ("model.api", self.model.api),
            )
            if value is not None
        ]
        if len(given) != 1:
            raise ValueError(
                "give exactly one of predictions=FILE, model.path=FOLDER and model.api=URL "
                f"(given: {', '.join(given) or 'none'})"
            )
        if self.model.api is not None and not self.model.name:
            raise ValueError("model.api needs model.name=NAME, the hosted model's name")
        if self.selection == "greedy" and self.predictions is None and not self.sampling.greedy:
            raise ValueError("selection=greedy needs sampling.greedy=true")
        if self.model.path is not None:
            length = self.engine.max_model_len or self.prompt.max_tokens + self.sampling.max_tokens
            self.engine.check_step(length, "engine")
        if (self.selection == "reranker") != (self.reranker is not None):
            raise ValueError("selection=reranker and reranker=FILE go together: give both or neither")
        return self


class SpiderBenchmark(BenchmarkConfig):
    """Everything `python -m benchmarks.spider` needs."""

    data: SpiderQuestions


class DemoBenchmark(BenchmarkConfig):
    """Everything `python -m benchmarks.demo` needs."""

    data: DemoData


class BirdBenchmark(BenchmarkConfig):
    """Everything `python -m benchmarks.bird` needs."""

    data: BirdQuestions
