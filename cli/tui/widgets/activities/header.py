"""The first row of a log entry: when, who, for whom."""

from datetime import datetime

from textual.content import Content

from .....core.view_state import Entry
from ....plain import one_line
from .block import DIM


def header(entry: Entry) -> Content:
    """Local time with milliseconds, the expert's key, and `⎇` with the expert it works for."""
    activity = entry.activity
    parts: list[tuple[str, str]] = [
        (f"{local_time(entry.at)} ", DIM),
        (one_line(activity.expert_key or entry.run.expert_key), "bold"),
    ]
    if activity.delegated_by is not None:
        parts.append((f" ⎇ {one_line(activity.delegated_by.expert_key)}", DIM))
    return Content.assemble(*parts)


def local_time(milliseconds: int) -> str:
    """A time of day where the person sits."""
    moment = datetime.fromtimestamp(milliseconds // 1000).astimezone()
    return f"{moment:%H:%M:%S}.{milliseconds % 1000:03}"
