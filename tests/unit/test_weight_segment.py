"""Weights survive the way through shared memory bit for bit, and old or torn segments are refused."""

import dataclasses
import os
import subprocess
import sys

import pytest
import torch

from rollout.errors import WeightsSuperseded, WeightUpdateFailed
from rollout.weights.handle import SharedMemoryHandle
from rollout.weights.segment import WRITING, SegmentReader, header
from trainer.learner.gather import gathered_weights
from trainer.weights.shared_memory import SharedMemorySender


def read(handle: SharedMemoryHandle) -> dict[str, torch.Tensor]:
    reader = SegmentReader(handle)
    return {
        spec.name: torch.frombuffer(
            reader.memory,
            dtype={"float32": torch.float32, "bfloat16": torch.bfloat16}[spec.dtype],
            count=torch.Size(spec.shape).numel(),
            offset=spec.offset,
        ).view(spec.shape)
        for spec in handle.tensors
    }


def test_tensors_arrive_bit_for_bit_in_the_wire_type() -> None:
    weights = {"a": torch.randn(3, 5), "b": torch.randn(7, 2).t(), "c": torch.randn(1)}
    for dtype in (torch.float32, torch.bfloat16):
        sender = SharedMemorySender(dtype)
        arrived = read(sender.publish(weights.items(), 1))
        assert arrived.keys() == weights.keys()
        for name, tensor in weights.items():
            assert torch.equal(arrived[name], tensor.to(dtype)), name
        sender.close()


def test_only_the_newest_version_can_be_read() -> None:
    sender = SharedMemorySender(torch.float32)
    old = sender.publish([("a", torch.zeros(4))], 1)
    new = sender.publish([("a", torch.ones(4))], 2)
    with pytest.raises(WeightsSuperseded, match="version 1 were asked for, the segment is at version 2"):
        SegmentReader(old)
    assert torch.equal(read(new)["a"], torch.ones(4))
    sender.close()


def test_a_rewrite_during_reading_is_noticed() -> None:
    sender = SharedMemorySender(torch.float32)
    handle = sender.publish([("a", torch.zeros(4))], 1)
    reader = SegmentReader(handle)
    os.pwrite(handle.fd, header(WRITING), 0)
    with pytest.raises(WeightsSuperseded, match="being rewritten"):
        reader.check()
    sender.close()


def test_a_reader_cannot_change_the_learners_copy() -> None:
    sender = SharedMemorySender(torch.float32)
    handle = sender.publish([("a", torch.zeros(4))], 1)
    read(handle)["a"].fill_(5.0)
    assert torch.equal(read(handle)["a"], torch.zeros(4))
    sender.close()


def test_closed_and_foreign_segments_are_named_errors() -> None:
    sender = SharedMemorySender(torch.float32)
    handle = sender.publish([("a", torch.zeros(4))], 1)
    with pytest.raises(WeightUpdateFailed, match="one machine"):
        SegmentReader(dataclasses.replace(handle, machine="another"))
    with pytest.raises(WeightsSuperseded, match="learner was restarted"):
        SegmentReader(dataclasses.replace(handle, inode=handle.inode + 1))
    sender.close()
    with pytest.raises(WeightsSuperseded, match="has ended"):
        SegmentReader(handle)


@pytest.mark.integration
def test_a_killed_learner_leaves_nothing_behind() -> None:
    code = (
        "import torch, pickle, sys, time\n"
        "from trainer.weights.shared_memory import SharedMemorySender\n"
        "sender = SharedMemorySender(torch.float32)\n"
        "sys.stdout.buffer.write(pickle.dumps(sender.publish([('a', torch.ones(4))], 1)).hex().encode() + b'\\n')\n"
        "sys.stdout.flush(); time.sleep(60)\n"
    )
    import pickle

    before = set(os.listdir("/dev/shm"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ | _path()) as process:
        assert process.stdout is not None
        handle = pickle.loads(bytes.fromhex(process.stdout.readline().decode().strip()))
        assert torch.equal(read(handle)["a"], torch.ones(4))
        process.kill()
    with pytest.raises(WeightsSuperseded, match="has ended"):
        SegmentReader(handle)
    assert not [name for name in set(os.listdir("/dev/shm")) - before if "quorum" in name]


def _path() -> dict[str, str]:
    from pathlib import Path

    return {"PYTHONPATH": str(Path(__file__).parents[2])}


def test_tied_embeddings_are_sent_once() -> None:
    model = torch.nn.Module()
    model.embed = torch.nn.Embedding(4, 2)
    model.head = torch.nn.Linear(2, 4, bias=False)
    model.head.weight = model.embed.weight
    assert [name for name, _ in gathered_weights(model, sharded=False)] == ["embed.weight"]
