"""One statement for one database, as an executor gets it."""

from dataclasses import dataclass
from typing import Literal

from conf.schema.reward import BudgetConfig
from rewards.carriers import Execution
from rewards.sql.sandbox.run import Request
from rewards.sql.snapshot import readable


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """One statement for one database."""

    database: str
    """Path of the SQLite file."""
    sql: str
    budget: BudgetConfig
    text_errors: Literal["replace", "strict", "ignore"] = "replace"
    """What becomes of text that is not UTF-8; strict makes it a `runtime` error (BIRD's scorer), ignore is Spider's."""
    reverse_unordered: bool = False
    """Scan in the other direction where no ORDER BY asks for one: shows results that hang on scan order."""

    def refusal(self) -> Execution | None:
        """The verdict on a query that no executor needs to see."""
        if len(self.sql) <= self.budget.sql_chars:
            return None
        message = f"the query has {len(self.sql)} characters, more than {self.budget.sql_chars}"
        return Execution(status="error", error_kind="too_large", error=message)

    def request(self) -> Request:
        """Raises DatabaseUnreadable."""
        return self.request_for(readable(self.database))

    def request_for(self, file: str, *, cpu_budgets: float = 1) -> Request:
        """The same for the file that `readable` has found."""
        limits = self.budget
        return (
            *(file, self.sql, limits.vm_steps, limits.rows, limits.bytes, limits.value_bytes),
            *(cpu_budgets * limits.cpu_s, self.text_errors, self.reverse_unordered, limits.clock_ms),
        )
