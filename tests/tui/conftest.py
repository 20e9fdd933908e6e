"""What tests of screens share: one time zone, and nothing of the terminal that they run in."""

import time
from collections.abc import Iterator

import pytest
from pytest_textual_snapshot import SVGImageExtension  # pyright: ignore[reportMissingTypeStubs]

# The plugin names it as syrupy did before its version 7; without it the pictures end in `.raw`, which nothing opens.
SVGImageExtension.file_extension = "svg"


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times of day in UTC, colours as they are without anybody's wishes."""
    monkeypatch.setenv("TZ", "UTC")
    for name in ("NO_COLOR", "COLORTERM", "TEXTUAL", "TEXTUAL_THEME"):
        monkeypatch.delenv(name, raising=False)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
