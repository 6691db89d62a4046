"""The dashboard asks only for gauges that a run can set."""

import json
import re
from pathlib import Path

from records.metrics_keys import KEYS
from records.sinks.prometheus_sink import gauge_name

DASHBOARD = Path(__file__).resolve().parents[2] / "docker" / "grafana" / "quorum.json"


def test_every_query_of_the_dashboard_names_a_registered_metric():
    known = {f"ray_{gauge_name(key)}" for key in (*KEYS, "step", "version")}
    board = json.loads(DASHBOARD.read_text())
    texts = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    texts += [variable["query"]["query"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    asked = {name for text in texts for name in re.findall(r"ray_quorum_\w+", text)}
    assert len(asked) > 15
    assert asked - known == set()


def test_gauge_names_are_what_prometheus_allows_and_do_not_collide():
    names = [gauge_name(key) for key in KEYS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", name) for name in names)
