"""Task sources (demo, spider, bird, jsonl), a resumable stream over their tasks, and checks of what they hold.

Loading reads files only: no model, no engine, no query is run (rollout/tasks/check.py runs the gold queries).
"""

from rollout.tasks.builder import LOADERS, load_tasks
from rollout.tasks.carriers import DataError, Dropped, DropReason, TaskSet, Trace
from rollout.tasks.sampler import build_stream
from rollout.tasks.stream import Stream, StreamDamaged, StreamMismatch, TaskStream

__all__ = [
    "LOADERS",
    "DataError",
    "DropReason",
    "Dropped",
    "Stream",
    "StreamDamaged",
    "StreamMismatch",
    "TaskSet",
    "TaskStream",
    "Trace",
    "build_stream",
    "load_tasks",
]
