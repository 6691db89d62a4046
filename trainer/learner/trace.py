"""A torch profiler trace of one learner rank."""

from pathlib import Path

import torch


class Trace:
    """Records from its making until `write`."""

    def __init__(self) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profile = torch.profiler.profile(activities=activities)
        self._profile.start()

    def write(self, file: Path) -> None:
        """Ends the recording; a Chrome trace, which Perfetto opens."""
        self._profile.stop()
        self._profile.export_chrome_trace(str(file))
