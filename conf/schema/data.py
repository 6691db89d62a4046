"""Where the questions come from. One variant a task source; see rollout/tasks."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from conf.schema.base import PathBelow, PathText, Section

Denotation = Literal["bird", "spider"]
"""bird: set of rows, columns by position. spider: bag of rows, ordered if the gold is, any one column permutation."""


class DemoData(Section):
    """Small databases and templated questions made on this machine; the three splits are disjoint."""

    type: Literal["demo"] = "demo"
    root: PathText = "runs/.cache/demo"
    """Folder that receives the databases; made when absent."""
    warmup_size: PositiveInt = 16000
    train_size: PositiveInt = 4000
    heldout_size: PositiveInt = 320
    seed: NonNegativeInt = 0
    """Seed of the generated databases and questions; independent of the run's seed."""
    denotation: Denotation = "spider"


class SpiderData(Section):
    """The published Spider layout: ROOT/dev.json, tables.json, database/<db_id>/*.sqlite."""

    type: Literal["spider"] = "spider"
    root: PathText
    train_file: PathBelow = "train_spider.json"
    heldout_file: PathBelow = "dev.json"
    database_folder: PathBelow = "database"
    train_limit: PositiveInt | None = None
    heldout_limit: PositiveInt | None = None
    denotation: Denotation = "spider"


class BirdData(Section):
    """The published BIRD layout: ROOT/train/train.json + train/train_databases, ROOT/dev.json + dev_databases."""

    type: Literal["bird"] = "bird"
    root: PathText
    train_file: PathBelow = "train/train.json"
    train_databases: PathBelow = "train/train_databases"
    heldout_file: PathBelow = "dev.json"
    heldout_databases: PathBelow = "dev_databases"
    train_limit: PositiveInt | None = None
    heldout_limit: PositiveInt | None = None
    denotation: Denotation = "bird"


class JsonlData(Section):
    """Your own questions, one JSON object a line (the fields are documented in docs/data.md)."""

    type: Literal["jsonl"] = "jsonl"
    train: PathText
    heldout: PathText | None = None
    databases: PathText | None = None
    """Folder holding <db_id>/<db_id>.sqlite, for lines that name a db_id instead of a database path."""
    train_limit: PositiveInt | None = None
    heldout_limit: PositiveInt | None = None
    denotation: Denotation = "bird"


DataConfig = Annotated[DemoData | SpiderData | BirdData | JsonlData, Field(discriminator="type")]
