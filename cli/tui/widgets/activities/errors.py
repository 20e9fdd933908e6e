"""Model calls that were repeated, and runs that failed."""

import json
from collections.abc import Iterator
from typing import Any, cast

from .....core.activity import ErrorActivity, RetryActivity
from ....plain import one_line
from .block import BAD, CARE, Block
from .marks import below, head


def retry(activity: RetryActivity) -> Iterator[Block]:
    name = _name(activity.error)
    yield head("Retry", one_line(name), mark="↻", tone=CARE)
    message = activity.message or activity.error
    if message.strip() and message != name:
        yield below(message)


def error(activity: ErrorActivity) -> Iterator[Block]:
    again = "" if not activity.is_retryable else " (may pass: worth another try)"
    yield head("Error", one_line(activity.error_name or "") + again, mark="✗", tone=BAD)
    yield below((activity.error or "").strip() or "The run failed without a message.", rows=8, style=BAD)


def _name(reason: str) -> str:
    """The name of a failure in the JSON that the model is told."""
    try:
        value: object = json.loads(reason)
    except (ValueError, RecursionError):
        return ""
    name = cast("dict[str, Any]", value).get("error") if isinstance(value, dict) else None
    return name if isinstance(name, str) else ""
