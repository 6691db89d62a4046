"""What a run leaves, and how it is shown: run folder, checkpoints, metrics, index, report, statistics."""
