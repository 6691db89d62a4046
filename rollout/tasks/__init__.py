"""Task sources: demo, spider, bird, jsonl -> SqlTask; a resumable stream over them; checks that leave out what cannot be trained on.

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
