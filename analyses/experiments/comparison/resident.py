"""By how much does the process grow within a block? The kernel's own high-water mark, so that any allocation counts."""

from pathlib import Path
from types import TracebackType

from mcaprobe.errors import InputError
from mcaprobe.memory import base_memory, give_back, peak_memory

CLEAR = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # man 5 proc: sets VmHWM to what is resident now


class PeakGrowth:
    """Measure a block; memory that the process holds and does not use is handed back before.

    Attributes:
        bytes: Largest resident memory within the block less that at its beginning.

    Raises:
        InputError: a system without /proc/self/clear_refs.
    """

    bytes: int

    def __enter__(self) -> "PeakGrowth":
        give_back()
        try:
            CLEAR.write_text(RESET_PEAK)
        except OSError as error:
            raise InputError(f"Expected Linux, where {CLEAR} resets the peak of memory, got {error}.") from error
        self._before = base_memory("cpu")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bytes = max(0, peak_memory("cpu") - self._before)
