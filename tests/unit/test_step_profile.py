"""The driver's timeline and the steps that are profiled."""

import asyncio
import json

import pytest

from conf.errors import ConfigError
from conf.load import load
from conf.schema.root import TrainConfig
from conf.schema.stages import ProfileConfig
from trainer.pipeline.clock import StageClock, now
from trainer.profile.profiler import StepProfiler
from trainer.profile.timeline import Timeline


def complete_events(trace):
    return [event for event in trace["traceEvents"] if event["ph"] == "X"]


def test_moments_become_microseconds_since_the_origin():
    timeline = Timeline(100.0)
    timeline.stage("train", 100.5, 102.0)
    (event,) = complete_events(timeline.as_chrome())
    assert (event["name"], event["ts"], event["dur"]) == ("train", 500_000.0, 1_500_000.0)


def test_groups_that_overlap_get_lanes_of_their_own_and_lanes_are_used_again():
    timeline = Timeline(0.0)
    timeline.group(0, 0.0, 1.0, 2.0)
    timeline.group(1, 0.5, 1.5, 3.0)
    timeline.group(2, 2.0, 2.5, 4.0)
    lanes = {event["name"]: event["tid"] for event in complete_events(timeline.as_chrome())}
    assert lanes["generate 0"] == lanes["score 0"] == lanes["generate 2"]
    assert lanes["generate 1"] != lanes["generate 0"]
    names = [event["args"]["name"] for event in timeline.as_chrome()["traceEvents"] if event["ph"] == "M"]
    assert names == ["driver", "group lane 0", "group lane 1"]


class FakeLearner:
    def __init__(self) -> None:
        self.events: list[str] = []

    async def start_trace(self):
        self.events.append("start")

    async def stop_trace(self, folder):
        self.events.append(f"stop {folder.name}")


@pytest.mark.parametrize("resumed_at", [1, 3])
def test_only_the_named_steps_are_recorded_also_when_a_run_resumes_among_them(tmp_path, resumed_at):
    clock, learner = StageClock(), FakeLearner()

    async def run():
        profiler = StepProfiler(ProfileConfig(steps=(2, 3)), tmp_path, clock, learner)
        await profiler.before(resumed_at)
        for step in range(resumed_at, 6):
            clock.add("train", now(), now() + step)
            await profiler.after(step)
            await profiler.before(step + 1)

    asyncio.run(run())
    assert learner.events == ["start", "stop profile"]
    trace = json.loads((tmp_path / "profile" / "timeline.json").read_text())
    recorded = [round(event["dur"] / 1e6) for event in complete_events(trace)]
    assert recorded == [step for step in (2, 3) if step >= resumed_at]
    assert clock.spans is None


def test_steps_beyond_the_run_are_refused():
    with pytest.raises(ConfigError, match="profile.steps ends at 9, beyond pipeline.steps=4"):
        load(TrainConfig, "train", ["pipeline.steps=4", "profile.steps=[2,9]"])
    with pytest.raises(ConfigError, match="the first step, 3, comes after the last, 2"):
        load(TrainConfig, "train", ["profile.steps=[3,2]"])


def test_a_trace_holds_what_torch_did(tmp_path):
    torch = pytest.importorskip("torch")
    from trainer.learner.trace import Trace

    trace = Trace()
    torch.mm(torch.ones(4, 4), torch.ones(4, 4))
    trace.write(tmp_path / "trace.json")
    names = {event.get("name") for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]}
    assert "aten::mm" in names
