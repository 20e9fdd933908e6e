"""Screens as text, kept and compared: what a person sees, without what differs from run to run."""

import re
from collections.abc import Callable
from difflib import unified_diff
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "golden" / "terminal"
_MASKS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"\d\d:\d\d:\d\d\.\d{3}"), "12:00:00.000"),
    (re.compile(r"(?<= · )(?:\d+m )?\d+(?:\.\d)?m?s(?= · |$)", re.MULTILINE), "4s"),
    (re.compile(r"\d{4}-\d\d-\d\d"), "2026-01-01"),
    (
        re.compile(r"(?:today|[A-Z][a-z]{2} [ \d]\d) \d\d:\d\d$|\d{4} [A-Z][a-z]{2} [ \d]\d$", re.MULTILINE),
        "today 12:00",
    ),
    (re.compile(r"\b(?=[a-z]*\d)[a-z0-9]{24}\b"), "id0000000000000000000000"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:7233"),
    # What a dialog leaves of a time.
    (re.compile(r"^ [\d:.]{1,11}(?=[╭│╰])", re.MULTILINE), lambda found: re.sub(r"\d", "0", found[0])),
    # The ends of a scroll bar, whose place is of eighths of a line; without colours its middle is a blank.
    (re.compile(r" *[▁▂▃▄▅▆▇]$", re.MULTILINE), ""),
)


def masked(text: str) -> str:
    """A screen without times and durations; each line keeps its place."""
    for pattern, instead in _MASKS:
        text = pattern.sub(instead, text)
    return text


def require_capture(name: str, text: str, *, is_updating: bool) -> None:
    """Compare with `tests/golden/terminal/<name>.txt`; `--update-goldens` writes it anew, to be read by a person."""
    path = FOLDER / f"{name}.txt"
    shown = masked(text).rstrip("\n") + "\n"
    if is_updating:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(shown)
    kept = path.read_text()
    difference = unified_diff(kept.splitlines(), shown.splitlines(), "as kept", "as shown", lineterm="", n=2)
    assert shown == kept, "\n".join(difference)
