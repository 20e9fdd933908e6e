"""Settings from the environment that are numbers, checked where they are read."""

import math
import os

from .core.failures import UsageError


def seconds_setting(name: str, default: float) -> float:
    """The environment variable `name` in seconds.

    Raises:
        UsageError: it is set to something that is no time.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UsageError(
            f"{name} is {text!r}, which is no number of seconds.", hint=f"Unset it, or set it to e.g. {default:g}."
        )
    return seconds
