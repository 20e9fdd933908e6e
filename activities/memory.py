"""Memory that a worker does not need any more goes back to the machine."""

import ctypes
import gc
from functools import cache
from typing import Any


def give_back() -> None:
    """Collect what is unreachable and return free pages; takes some tenths of a second in a large process.

    Runs that wait for persons leave thousands of small holes, which the allocator keeps for itself unless told.
    """
    gc.collect()
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    """The function of the GNU C library; other systems have none, and need none as much."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
