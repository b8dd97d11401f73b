"""The wall clock and the monotonic clock of the operating system."""

import time


class SystemClock:
    """`Clock` from the operating system: wall time may jump, monotonic time never goes back."""

    def now(self) -> int:
        """Return wall-clock milliseconds since 1970, UTC."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Return seconds that never go back; for durations only."""
        return time.monotonic()
