"""Metrics as Prometheus gauges of Ray's own exporter, which every node of a cluster runs.

`reward/accuracy` becomes `ray_quorum_reward_accuracy` with the tag `run`; docker/grafana/quorum.json shows them. A
private Ray has no exporter: the gauges are then set and read by nobody.
"""

from typing import TYPE_CHECKING

from records.metrics import Row

if TYPE_CHECKING:
    from ray.util.metrics import Gauge


def gauge_name(key: str) -> str:
    """The gauge of a metric key; Ray's exporter puts `ray_` in front."""
    return f"quorum_{key.replace('/', '_')}"


class PrometheusSink:
    """Sets one gauge a key to the newest value. Ray must be initialised before the first row."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._gauges: dict[str, Gauge] = {}

    def write(self, row: Row) -> None:
        from ray.util.metrics import Gauge

        for key, value in row.items():
            if value is None:
                continue
            if key not in self._gauges:
                self._gauges[key] = Gauge(gauge_name(key), description=key, tag_keys=("run",))
            self._gauges[key].set(float(value), tags={"run": self._run})

    def close(self) -> None:
        """The exporter drops the gauges of a process that has ended."""
