"""What the selection study and the training of the reranker need."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, field_validator

from conf.schema.base import PathText, Section
from conf.schema.benchmark import BenchmarkExecution
from conf.schema.data import BirdData, SpiderData


class CandidateFile(Section):
    """Executed candidates: a file of them, and the questions and databases that they answer."""

    candidates: PathText | Annotated[tuple[PathText, ...], Field(min_length=1)]
    """JSON lines {"index" or "question_id", "candidates": [..], "logprobs": [..]}; the candidates of several files,
    of several models for instance, are pooled by question."""
    data: Annotated[SpiderData | BirdData, Field(discriminator="type")] | None = None
    """The questions (None: the file's lines hold them, as those that benchmarks write do)."""
    split: Literal["heldout", "train"]
    """Which question file of the data the candidates answer."""

    @field_validator("data", mode="before")
    @classmethod
    def _says_whose(cls, data: object) -> object:
        if isinstance(data, dict) and "type" not in data:
            raise ValueError("say whose questions they are: data=spider or data=bird, beside data.root=DIR")
        return data

    @property
    def files(self) -> tuple[str, ...]:
        return (self.candidates,) if isinstance(self.candidates, str) else self.candidates

    instances: Literal["primary", "all"] = "all"
    """all: right means right on every instance of the database."""
    execution: BenchmarkExecution = BenchmarkExecution()
    seed: NonNegativeInt = 0


class StudyConfig(CandidateFile):
    """Everything `python -m benchmarks.study` needs."""

    split: Literal["heldout", "train"] = "heldout"
    n: PositiveInt = 30
    """Largest number of candidates looked at."""
    reranker: PathText | None = None
    """File of a trained reranker, studied beside the voters."""
    output: PathText
    """Folder that receives study.json and study.html."""


class RerankerTraining(CandidateFile):
    """Everything `python -m benchmarks.study.train_reranker` needs."""

    split: Literal["heldout", "train"] = "train"
    l2: NonNegativeFloat = 1.0
    """Penalty on squared weights of the standardised features."""
    output: PathText
    """The reranker's file (JSON)."""
