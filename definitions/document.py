"""One TOML text with its key paths and lines, and how problems in it are put into words."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..core.failures import DefinitionError

KeyPath = tuple[str | int, ...]
"""Keys and array positions from the top of the file, for example `("experts", "a", "delegates", 0)`."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def dotted(path: KeyPath) -> str:
    """The path as an author writes it: `experts."@a/b".delegates[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        key = part if _BARE_KEY.fullmatch(part) else '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
        text += f".{key}" if text else key
    return text


@dataclass(frozen=True)
class Document:
    """A parsed TOML text; lines are found only when something has to be reported."""

    source: str
    """Path or URL as shown to people."""
    raw: dict[str, Any]
    text: str = ""

    @cached_property
    def _lines(self) -> dict[KeyPath, int]:
        return key_lines(self.text)

    def line(self, path: KeyPath) -> int | None:
        """The line of `path`, else of the nearest table around it; `None` for a key that nothing surrounds."""
        for length in range(len(path), 0, -1):
            if found := self._lines.get(path[:length]):
                return found
        return None

    def where(self, path: KeyPath) -> str:
        """`file:line`, or the file alone when no line is known."""
        line = self.line(path)
        return f"{self.source}:{line}" if line else self.source

    def describe(self, path: KeyPath) -> str:
        """Key path and place together, for the end of a message."""
        return f"{dotted(path)}, {self.where(path)}"


@dataclass(frozen=True)
class Issue:
    """One thing the author of a definition has to change."""

    path: KeyPath
    message: str
    code: str = "definition.invalid"
    hint: str | None = None


def definition_error(document: Document, issues: Sequence[Issue]) -> DefinitionError:
    """All issues of one file as one error, a line each."""
    lines = [
        f"  - {dotted(issue.path)}: {issue.message} ({document.where(issue.path)})"
        if issue.path
        else f"  - {issue.message} ({document.where(issue.path)})"
        for issue in issues
    ]
    return DefinitionError(
        "\n".join(["perstack.toml: Validation failed:", *lines]),
        code=issues[0].code,
        hint="\n".join(_distinct(issue.hint for issue in issues if issue.hint)) or None,
        details={
            "issues": [
                {
                    "file": document.source,
                    "line": document.line(issue.path),
                    "path": dotted(issue.path),
                    "message": issue.message,
                }
                for issue in issues
            ]
        },
    )


def located_error(
    document: Document, path: KeyPath, message: str, *, code: str, hint: str | None = None
) -> DefinitionError:
    """One problem of one place as an error."""
    return DefinitionError(
        f"{message} ({document.describe(path)})",
        code=code,
        hint=hint,
        details={"file": document.source, "line": document.line(path), "path": dotted(path)},
    )


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line of every table header, key and array item of a valid TOML text; best effort otherwise."""
    scanner = _Scanner(text)
    # What was found before a surprise still points near the problem.
    with suppress(ValueError, RecursionError):
        scanner.run()
    return scanner.lines


_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_QUOTED = r'"(?:[^"\\\n]|\\.)*"' + r"|'[^'\n]*'"
_KEY = re.compile(rf"({_QUOTED}|[A-Za-z0-9_-]+)[ \t]*")
_STRING = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"""(?:"{0,2})' + r"|'''(?:[^']|'(?!''))*'''(?:'{0,2})" + f"|{_QUOTED}", re.DOTALL
)
_PLAIN = re.compile(r"[^,\]}\n#]+")


class _Scanner:
    """Walks a text that the TOML parser accepted and notes where each key stands."""

    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._text = text
        self._at = 0
        self._line_ends = [index for index, character in enumerate(text) if character == "\n"]
        self._last_items: dict[KeyPath, int] = {}

    def run(self) -> None:
        table: KeyPath = ()
        while True:
            self._take(_BLANK)
            if self._at >= len(self._text):
                return
            if self._next("["):
                table = self._header()
            else:
                self._pair(table)

    def _line(self) -> int:
        return bisect_right(self._line_ends, self._at - 1) + 1

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise ValueError(f"unexpected text at {self._at}")
        self._at = match.end()
        return match[match.lastindex or 0]

    def _next(self, text: str) -> bool:
        return self._text.startswith(text, self._at)

    def _accept(self, text: str) -> bool:
        if not self._next(text):
            return False
        self._at += len(text)
        return True

    def _keys(self) -> list[str]:
        keys: list[str] = []
        while True:
            self._take(_SPACE)
            keys.append(_unquoted(self._take(_KEY)))
            if not self._accept("."):
                return keys

    def _note(self, path: KeyPath, line: int, *, base: int) -> None:
        for length in range(base + 1, len(path)):
            self.lines.setdefault(path[:length], line)
        self.lines[path] = line

    def _header(self) -> KeyPath:
        line = self._line()
        is_item = self._next("[[")
        self._at += 2 if is_item else 1
        path: KeyPath = ()
        keys = self._keys()
        for place, key in enumerate(keys):
            path = (*path, key)
            if is_item and place == len(keys) - 1:
                self._last_items[path] = self._last_items.get(path, -1) + 1
            if path in self._last_items:
                path = (*path, self._last_items[path])
        if not self._accept("]]" if is_item else "]"):
            raise ValueError("unclosed header")
        self._note(path, line, base=0)
        return path

    def _pair(self, table: KeyPath) -> None:
        line = self._line()
        path = (*table, *self._keys())
        if not self._accept("="):
            raise ValueError("no value")
        self._note(path, line, base=len(table))
        self._take(_SPACE)
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        if self._next('"') or self._next("'"):
            self._take(_STRING)
        elif self._accept("["):
            self._array(path)
        elif self._accept("{"):
            self._inline_table(path)
        else:
            self._take(_PLAIN)

    def _array(self, path: KeyPath) -> None:
        index = 0
        while True:
            self._take(_BLANK)
            if self._accept("]"):
                return
            if self._accept(","):
                index += 1
                continue
            self.lines[(*path, index)] = self._line()
            self._value((*path, index))

    def _inline_table(self, path: KeyPath) -> None:
        while True:
            self._take(_BLANK)
            if self._accept("}"):
                return
            if not self._accept(","):
                self._pair(path)


_ESCAPE = re.compile(r'\\(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[btnfr"\\])')
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


def _unquoted(key: str) -> str:
    if key.startswith('"'):
        return _ESCAPE.sub(lambda match: _ESCAPED.get(match[1]) or chr(int(match[1][1:], 16)), key[1:-1])
    return key[1:-1] if key.startswith("'") else key
