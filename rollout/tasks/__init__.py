"""Task sources (demo, spider, bird, jsonl), a resumable stream over their tasks, and checks of what they hold.

Loading reads files only: no model, no engine, no query is run (rollout/tasks/check.py runs the gold queries).
"""

from rollout.tasks.builder import LOADERS, load_tasks
from rollout.tasks.carriers import DataError, Dropped, DropReason, TaskSet, Trace
from rollout.tasks.stream import StreamMismatch, TaskStream

__all__ = [
    "LOADERS",
    "DataError",
    "DropReason",
    "Dropped",
    "StreamMismatch",
    "TaskSet",
    "TaskStream",
    "Trace",
    "load_tasks",
]
