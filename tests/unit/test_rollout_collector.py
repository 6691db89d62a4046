"""Engine outputs become whole groups with exact policy versions."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rollout.collector import Collector
from rollout.errors import GenerationFailed, LogprobsDamaged


@dataclass
class Output:
    """An engine output as the collector reads it."""

    request_id: str
    new_token_ids: list[int]
    new_logprobs: Any = None
    finish_reason: Any = None


@dataclass
class Request:
    request_id: str
    external_req_id: str


@dataclass
class Parent:
    n: int
    child_requests: set[str] = field(default_factory=set)


def logprobs(*values: float) -> SimpleNamespace:
    """The sampled token's value first, another candidate's behind it."""
    return SimpleNamespace(logprobs=np.array([[value, -9.0] for value in values], dtype=np.float32))


def add_group(collector: Collector, group: str, n: int) -> None:
    for index in range(n):
        parent = Parent(n=n) if n > 1 else None
        collector.add_request(Request(f"{index}_{group}", group), None, parent, index)


def test_group_is_taken_once_and_only_when_all_completions_ended() -> None:
    collector = Collector()
    add_group(collector, "g", 2)
    collector.process_outputs([Output("1_g", [7], logprobs(-0.5), "stop"), Output("0_g", [1, 2], logprobs(-1.0, -2.0))])
    assert collector.take() == []
    assert (collector.groups, collector.running, collector.running_tokens) == (1, 1, 2)
    collector.process_outputs([Output("0_g", [3], logprobs(-3.0), "length")])
    [(group, (first, second))] = collector.take()
    assert group == "g"
    assert first.token_ids == [1, 2, 3]
    assert np.concatenate(first.logprobs)[:, 0].tolist() == [-1.0, -2.0, -3.0]
    assert (first.finish_reason, second.finish_reason) == ("length", "stop")
    assert collector.take() == []
    assert not collector.has_unfinished_requests()


def test_spans_change_exactly_where_the_weights_did() -> None:
    collector = Collector(version=3)
    add_group(collector, "g", 1)
    collector.process_outputs([Output("0_g", [1])])
    collector.process_outputs([Output("0_g", [2])])
    collector.version = 4
    collector.process_outputs([Output("0_g", [])])
    collector.version = 5
    collector.process_outputs([Output("0_g", [3])])
    collector.process_outputs([Output("0_g", [4], None, "stop")])
    [(_, [sampled])] = collector.take()
    assert sampled.spans == [(0, 3), (2, 5)]


def test_aborted_group_disappears_and_late_outputs_are_ignored() -> None:
    collector = Collector()
    add_group(collector, "gone", 2)
    add_group(collector, "kept", 1)
    assert sorted(collector.abort_requests(["gone", "unknown"], internal=False)) == ["0_gone", "1_gone"]
    collector.process_outputs([Output("0_gone", [1], None, "stop"), Output("0_kept", [1], None, "stop")])
    assert [group for group, _ in collector.take()] == ["kept"]
    assert collector.groups == 0


def test_engine_failure_is_never_a_completion() -> None:
    collector = Collector()
    add_group(collector, "g", 1)
    with pytest.raises(GenerationFailed, match=r"group g with 'abort'"):
        collector.process_outputs([Output("0_g", [1], None, "abort")])


@pytest.mark.parametrize("bad", [float("nan"), float("-inf"), float("inf")])
def test_a_token_sampled_from_logits_that_are_no_numbers_is_no_completion(bad: float) -> None:
    collector = Collector()
    add_group(collector, "g", 2)
    collector.process_outputs(
        [Output("0_g", [1, 2], logprobs(-1.0, -0.5)), Output("1_g", [4], logprobs(-0.25), "stop")]
    )
    collector.process_outputs([Output("0_g", [3], logprobs(bad), "stop")])
    [(_, (damaged, whole))] = collector.take()
    assert whole.token_logprobs() == (-0.25,)
    with pytest.raises(LogprobsDamaged, match=f"token 3 of a completion of group g with .* {bad}: the policy's"):
        damaged.token_logprobs()
