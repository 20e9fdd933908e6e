"""Secrets never leave the worker: what a tool, a server or an error says is scrubbed before it is recorded or shown.

This keeps a secret from being repeated by accident, by a verbose program or by a careless server. It is no barrier
against one who means to pass it on in a form of his own; that is what keeps secrets out of `exec` in the first place.
"""

import base64
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, cast
from urllib.parse import quote, quote_plus, unquote, urlsplit

from pydantic import TypeAdapter

from ..core.messages import ExpertPart, ResultPart, TextPart
from ..core.run import Generation
from ..core.tools import StateChange, ToolOutcome
from ..definitions.checks import SECRET_VARIABLES
from .skills.environment import is_safe

MASK = "***"
SHORTEST_SECRET = 8
"""Characters; a shorter value is no secret, and would tear words apart."""
_LONG_LINE = 32
_CHANGES: TypeAdapter[StateChange] = TypeAdapter(StateChange)
# Letters by how seldom English, code and JSON have them; the earlier ones make a search faster.
_RARE = "QXZJqxzjKVWYGHUBPFDOLNMRCSEAITkvwybgpf8796453210+_-/=.:duclmhrsniotae "


def secrets_of_run(
    env_files: Mapping[str, str],
    host_env: Mapping[str, str],
    *,
    required_env: Iterable[str] = (),
    credentials: Iterable[str] = SECRET_VARIABLES,
    workspace: str = "",
) -> frozenset[str]:
    """The values that must never leave the worker: credentials, what skills require, and all of the env files.

    A value of an env file or a required variable is left out where it is plainly none: the workspace's path, or what a
    variable of the safe list (`PATH`, `HOME`, …) says, because a command may print that anyway and paths in results
    would be torn. Other words (`production`) cannot be told from a password and count. The password in a URL counts by
    itself too, also that of a proxy on the safe list.
    """
    named = {*required_env, *credentials}
    values = {value for name in credentials for value in (host_env.get(name), env_files.get(name)) if value}
    harmless = {workspace, *(value for name, value in host_env.items() if is_safe(name))}
    others = {
        **{name: value for name, value in host_env.items() if name in named},
        **{name: value for name, value in env_files.items() if not is_safe(name)},
    }
    values |= {value for value in others.values() if value not in harmless}
    urls = [*others.values(), *harmless, *env_files.values()]
    values |= {password for url in urls for password in _passwords(url)}
    return frozenset(value for value in values if len(value.strip()) >= SHORTEST_SECRET)


class Redactor:
    """Replaces each secret, and each usual form of one, by `***`."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _forms(secret.strip()) if len(form) >= SHORTEST_SECRET}
        # The longest first: a shorter one may begin like it.
        self._forms = sorted(forms, key=lambda form: (-len(form), form))

    @cached_property
    def _search(self) -> re.Pattern[str]:
        return _fast_search(self._forms)

    @cached_property
    def _longest(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self._forms)))

    @cached_property
    def _by_first(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for form in self._forms:
            found[form[0]].append(form)
        return found

    def finds(self, text: str) -> bool:
        """Whether there is a secret in `text`."""
        return bool(self._forms) and self._search.search(text) is not None

    def text(self, text: str) -> str:
        """`text` with every secret replaced."""
        pieces: list[str] = []
        position = 0
        for start, end in self.spans(text):
            pieces += (text[position:start], MASK)
            position = end
        return "".join((*pieces, text[position:])) if pieces else text

    def value(self, value: Any) -> Any:
        """Nested JSON with every secret replaced, in keys as well."""
        match value:
            case str():
                return self.text(value)
            case Mapping():
                items = cast("Mapping[Any, Any]", value).items()
                return {self.value(key): self.value(item) for key, item in items}
            case list() | tuple():
                return [self.value(item) for item in cast("list[Any]", value)]
            case _:
                return value

    def outcome(self, outcome: ToolOutcome) -> ToolOutcome:
        """What a tool answers, with every secret replaced; a file or an image that holds one is left out."""
        update: dict[str, Any] = {}
        parts = tuple(self._part(part) for part in outcome.result)
        if any(new is not old for new, old in zip(parts, outcome.result, strict=True)):
            update["result"] = parts
        if outcome.change is not None:
            plain = outcome.change.model_dump(mode="json")
            clean = self.value(plain)
            if clean != plain:
                update["change"] = _CHANGES.validate_python(clean)
        return outcome.model_copy(update=update) if update else outcome

    def generation(self, generation: Generation) -> Generation:
        """What a model answered, with every secret replaced; reasoning that changed can be replayed no more."""
        parts = tuple(self._expert_part(part) for part in generation.contents)
        if all(new is old for new, old in zip(parts, generation.contents, strict=True)):
            return generation
        return generation.model_copy(update={"contents": parts})

    def _expert_part(self, part: ExpertPart) -> ExpertPart:
        plain = part.model_dump(mode="json", exclude={"signature", "replay"})
        clean = self.value(plain)
        return part if clean == plain else type(part).model_validate(clean)

    def stream(self) -> "RedactedStream":
        """A scrubber of text that comes in pieces."""
        return RedactedStream(self)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where the secrets are, in order; those that overlap are one."""
        found: list[tuple[int, int]] = []
        match = self._longest.search(text) if self.finds(text) else None
        while match is not None:
            start, end = match.span()
            if found and start < found[-1][1]:
                found[-1] = (found[-1][0], max(end, found[-1][1]))
            else:
                found.append((start, end))
            match = self._longest.search(text, start + 1)
        return found

    def unfinished(self, text: str) -> int:
        """Where the longest end of `text` starts that may be the beginning of a secret; its length if there is none."""
        longest = len(self._forms[0]) if self._forms else 1
        for start in range(max(0, len(text) - longest + 1), len(text)):
            forms = self._by_first.get(text[start])
            if forms and any(len(form) > len(text) - start and form.startswith(text[start:]) for form in forms):
                return start
        return len(text)

    def _part(self, part: ResultPart) -> ResultPart:
        if isinstance(part, TextPart):
            if part.sources is None and not self.finds(part.text):
                return part
            return TextPart.model_validate({**self.value(part.model_dump()), "id": part.id})
        # Base64 has three forms of what it holds, and all three are among ours.
        if self.finds(part.encoded_data) or self.finds(part.mime_type):
            return TextPart(id=part.id, text=f"(a file was left out, because it holds a secret: {MASK})")
        return part


class RedactedStream:
    """Text that comes in pieces: gives on what is certain, holds back what may become a secret."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = ""
        self._masked = 0
        """Characters at the start of what is held that belong to a secret already replaced."""

    def feed(self, piece: str) -> str:
        """What of the text so far may be shown; at most one secret's length of it is held back."""
        text = self._held + piece
        return self._give(text, self._redactor.unfinished(text))

    def flush(self) -> str:
        """The rest, when no more comes."""
        return self._give(self._held, len(self._held))

    def _give(self, text: str, until: int) -> str:
        pieces: list[str] = []
        position = self._masked
        for start, end in self._redactor.spans(text):
            if start >= max(until, position):
                break
            if start >= position:
                pieces += (text[position:start], MASK)
            position = max(position, end)
        if position < until:
            pieces.append(text[position:until])
        self._held = text[until:]
        self._masked = max(0, position - until)
        return "".join(pieces)


def _forms(secret: str) -> set[str]:
    """`secret` as it stands, and as other text carries it: each form is certain, and costs nothing to look for.

    JSON and URLs escape what is not plain, which most secrets do not have, so there these are the secret itself.
    Base64 is how HTTP carries a password (`Basic`) and MCP a file; the secret starts at one of three places in a group
    there, and the characters that depend on its neighbours are left out. Hexadecimal and other encodings are not:
    nothing prints a variable in them by itself.
    """
    if len(secret) < SHORTEST_SECRET:
        return set()
    forms = {secret}
    # Of a key over several lines, tools also show some alone.
    lines = [line for line in secret.splitlines() if len(line) >= _LONG_LINE and not re.search(r"\s", line)]
    forms.update(line for line in lines if "\n" in secret and not line.startswith("-----"))
    forms.update(json.dumps(secret, ensure_ascii=is_ascii)[1:-1] for is_ascii in (True, False))
    quoted = {quote(secret, safe=""), quote(secret), quote_plus(secret)} if secret.isprintable() else set[str]()
    forms |= quoted | {re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), form) for form in quoted}
    data = secret.encode("utf-8", "surrogatepass")
    for shift in range(3):
        bits = 8 * shift
        encoded = base64.b64encode(bytes(shift) + data).decode()
        first, last = -(-bits // 6), (bits + 8 * len(data)) // 6
        forms |= {encoded[first:last], encoded[first:last].translate(str.maketrans("+/", "-_"))}
    return forms


def _fast_search(forms: Iterable[str]) -> re.Pattern[str]:
    """A pattern that finds one of `forms`, and passes over text without any in a few milliseconds a megabyte.

    A plain alternation tries each form at nearly every character (130 ms a megabyte for 30 secrets). Here a form is
    looked for from one of its rarest characters on, and few characters serve all of them; what stands before that one
    is compared by looking back (5 ms).
    """
    rank = {letter: index for index, letter in enumerate(_RARE, start=1)}
    left: list[str] = list(forms)
    branches: list[str] = []
    while left:
        counts = Counter(letter for form in left for letter in set(form))
        best = max(counts, key=lambda letter: (counts[letter] / rank.get(letter, 1), letter))
        cut = [form.partition(best) for form in left if best in form]
        # The search starts at the first occurrence, which the look-back then ends with.
        tails = (f"{re.escape(tail)}(?<={re.escape(head + best + tail)})" for head, _, tail in cut)
        branches.append(f"{re.escape(best)}(?:{'|'.join(tails)})")
        left = [form for form in left if best not in form]
    return re.compile("|".join(branches))


def _passwords(value: str) -> set[str]:
    """The password of a URL, as it is written and as it is meant."""
    try:
        password = urlsplit(value).password or ""
    except ValueError:
        return set()
    return {password, unquote(password)} - {""}
