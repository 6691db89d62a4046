"""Making more instances of databases (python -m curation.instances)."""

from pydantic import Field, NonNegativeInt, PositiveInt

from conf.schema.base import PathText, Section
from conf.schema.reward import BudgetConfig


class InstancesConfig(Section):
    input: PathText
    """JSON lines with "db_id", "gold_sqls" and "denotation": the golds that the new instances should tell from near
    misses."""
    databases: PathText
    """Folder holding <db_id>/<db_id>.sqlite, and maybe instances that exist already."""
    output: PathText
    """Folder that receives <db_id>/<db_id>.sqlite, the existing instances, the new ones and instances.json."""
    candidates: PositiveInt = 12
    """Instances made for each database, of which the useful ones are kept."""
    keep: PositiveInt = 4
    """Most new instances kept for each database."""
    mutants_per_gold: PositiveInt = 60
    max_ambiguous: float = Field(default=0.05, ge=0.0, le=1.0)
    """Share of a database's golds whose rows may hang on scan order on a new instance (ties do that); beyond it is not
    kept."""
    rows: PositiveInt = 40
    """Rows of a table that one kind of change touches at most."""
    seed: NonNegativeInt = 0
    executors: PositiveInt = 2
    budget: BudgetConfig = BudgetConfig()
