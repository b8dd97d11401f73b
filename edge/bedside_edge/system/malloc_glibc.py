"""Tell glibc's allocator to keep what was freed: an image's arrays are needed again at once.

By default a thread's arena gives memory back to the kernel as soon as 128 kB lie free at its end
(or twice the largest block freed so far), and gets it again page by page, zeroed. One radiograph
of 512 x 512 costs 900 page faults that way, 2 ms of 13 (measured). What is kept is bounded below.
"""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_* of <malloc.h>
_KEPT_BYTES = 128 << 20  # free bytes at the end of an arena before it is trimmed
_OWN_MAPPING_BYTES = 32 << 20  # larger blocks get a mapping of their own; glibc allows no more


def keep_freed_memory() -> bool:
    """Set the thresholds for this process; False where the C library has none to set."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, another system
        return False
    return bool(
        mallopt(_MMAP_THRESHOLD, _OWN_MAPPING_BYTES) and mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
    )
