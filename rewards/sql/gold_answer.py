"""What a gold query answers on each instance of its database, and which other answers it accepts."""

from dataclasses import dataclass

from conf.schema.data import Denotation
from rewards.carriers import Execution
from rewards.sql.denotation import equal, rows_equal
from rewards.sql.inexact import settled
from rewards.sql.ties import Ties


@dataclass(frozen=True, kw_only=True, slots=True)
class Gold:
    """One gold query with its results."""

    sql: str
    ordered: bool
    """Has a top-level ORDER BY."""
    executions: tuple[Execution, ...]
    """One for each database instance, in the task's order."""
    ties: tuple[Ties | None, ...] = ()
    """For each instance the rows that may exchange; None or absent: none."""
    inexact: bool = False
    """Holds sums whose last bits do not count."""
    order_dependent: bool = False
    """Its rows hang on an order that SQL leaves open, beyond what `accepts` allows for."""
    order_unknown: bool = False
    """Nothing showed that they do, but not all of it could be found out."""
    order_lost: bool = False
    """It is unknown because the infrastructure lost a query that might have shown it: worth another try."""

    @property
    def usable(self) -> bool:
        return all(execution.status == "ok" for execution in self.executions)

    def accepts(self, instance: int, execution: Execution, *, policy: Denotation) -> bool:
        """Whether an execution on the instance of this number is an answer that this gold gives there.

        Equal under the policy, with rows that tie in another order and other last bits of sums. A failed execution is
        none.
        """
        own = self.executions[instance]
        if equal(own, execution, policy=policy, ordered=self.ordered):
            return True
        if own.status != "ok" or execution.status != "ok":
            return False
        ties = self.ties[instance] if self.ties else None
        if ties is not None:
            return ties.allow(own.rows, execution.rows, policy=policy, inexact=self.inexact)
        if not self.inexact:
            return False
        gold, predicted = settled((own.rows, execution.rows), (True, True))
        return rows_equal(gold, predicted, policy=policy, ordered=self.ordered)

    @property
    def infrastructure(self) -> bool:
        """Whether the infrastructure, not the query, kept it from running."""
        return any(execution.lost for execution in self.executions)

    @property
    def reason(self) -> str | None:
        """Why it is unusable."""
        return next((str(execution.error) for execution in self.executions if execution.status != "ok"), None)
