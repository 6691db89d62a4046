"""Reading a weight segment: a header that names the version, then the tensors.

The writer marks the segment as being written, fills it, then stamps the version. A reader that finds another version
before or after it read refuses: a half-written or superseded segment is noticed, never served.
"""

import mmap
import os
import struct
from pathlib import Path

from rollout.errors import WeightsSuperseded, WeightUpdateFailed
from rollout.weights.handle import SharedMemoryHandle

HEADER_BYTES = 64
"""Header: magic (8 bytes), version (int64, -1 while being written); tensors begin at the next 64-byte boundary."""
ALIGNMENT = 64
MAGIC = b"QUORUMW1"
WRITING = -1
_HEADER = struct.Struct("<8sq")


def machine_id() -> str:
    """This machine's boot identifier: shared memory reaches no further."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def header(version: int) -> bytes:
    """The header's bytes; `version` WRITING marks the contents as incomplete."""
    return _HEADER.pack(MAGIC, version)


class SegmentReader:
    """A private, copy-on-write view of the learner's segment; changes made through it stay in this process."""

    def __init__(self, handle: SharedMemoryHandle) -> None:
        """Map the segment and check its version.

        Raises:
            WeightUpdateFailed: the learner runs on another machine.
            WeightsSuperseded: the learner has ended, or the segment holds another version.
        """
        self._handle = handle
        if handle.machine != machine_id():
            raise WeightUpdateFailed(
                "rollout.weight_transfer=shared_memory needs learner and rollout workers on one machine:"
                " use nccl across machines"
            )
        try:
            fd = os.open(f"/proc/{handle.pid}/fd/{handle.fd}", os.O_RDWR)
        except OSError as error:
            raise WeightsSuperseded(
                f"the weights of version {handle.version} cannot be opened: the learner's process {handle.pid} has"
                f" ended or belongs to another user ({error.strerror})"
            ) from error
        try:
            status = os.fstat(fd)
            if status.st_ino != handle.inode or status.st_size != handle.size:
                raise WeightsSuperseded(f"the weights of version {handle.version} are gone: the learner was restarted")
            self._map = mmap.mmap(fd, handle.size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        finally:
            os.close(fd)
        self.check()

    @property
    def memory(self) -> mmap.mmap:
        """The mapped bytes, header included."""
        return self._map

    def check(self) -> None:
        """Raise WeightsSuperseded unless the segment holds exactly the handle's version."""
        magic, version = _HEADER.unpack_from(self._map, 0)
        if magic != MAGIC or version != self._handle.version:
            state = "being rewritten" if version == WRITING else f"at version {version}"
            raise WeightsSuperseded(f"weights of version {self._handle.version} were asked for, the segment is {state}")
