"""Peak memory of a run: the driver and every process below it."""

import threading

import psutil


class MemoryWatch:
    """Samples memory in a thread of its own every `interval_s` seconds until closed.

    Counts proportional set sizes, so that pages shared between processes (libraries, shared-memory weights) count once;
    the kernel takes some 10 ms of CPU to add up those of an engine or learner.
    """

    def __init__(self, interval_s: float = 5.0) -> None:
        self._interval_s = interval_s
        self._peak = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory watch", daemon=True)
        self._thread.start()

    @property
    def peak_gib(self) -> float:
        return self._peak

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=10.0)

    def _run(self) -> None:
        this = psutil.Process()
        while not self._stop.wait(self._interval_s):
            total = 0
            for process in [this, *this.children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    # It ended between listing and reading; the next sample sees the rest.
                    continue
            self._peak = max(self._peak, total / 2**30)
