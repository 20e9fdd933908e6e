"""Which events of a job somebody wants to see (contract §6.5): conditions, an expression, a page of what matches."""

import json
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

from .events import (
    EVENT_TYPES,
    CallDelegate,
    CallInteractiveTool,
    CallTools,
    Event,
    ResolveToolResults,
    Retry,
    RunBase,
    StopRunByDelegate,
    StopRunByError,
)
from .failures import UsageError
from .wire import Wire

DEFAULT_TAKE = 100

_ERRORS = (StopRunByError, Retry)
_TOOLS = (CallTools, ResolveToolResults, CallInteractiveTool)
_DELEGATIONS = (CallDelegate, StopRunByDelegate)

_STEP = re.compile(r"(?P<sign>>=|<=|>|<)?\s*(?P<first>\d{1,9})|(?P<min>\d{1,9})\s*-\s*(?P<max>\d{1,9})", re.ASCII)
_EXPRESSION = re.compile(
    r"(?P<path>\.[\w$-]+(?:\[\])*(?:\.[\w$-]+(?:\[\])*)*)\s*(?P<sign>==|!=|>=|<=|>|<)(?P<value>.*)"
)
_PART = re.compile(r"\[\]|[\w$-]+")
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,300})(\.\d{1,300})?([eE][+-]?\d{1,3})?", re.ASCII)
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class StepRange:
    """The steps from `first` to `last`, both included; open-ended where one is missing."""

    first: int | None = None
    last: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """`5`, `>5`, `>=5`, `<10`, `<=10` or `1-10`.

        Raises:
            UsageError: it is none of these.
        """
        found = _STEP.fullmatch(text.strip())
        if found is None:
            raise UsageError(f"Invalid step filter: {text}", hint="5, >5, >=5, <10, <=10 and 1-10 are filters.")
        if found["first"] is None:
            least, most = int(found["min"]), int(found["max"])
            if least > most:
                raise UsageError(f"Invalid step range: {text} (min {least} > max {most})")
            return cls(least, most)
        step = int(found["first"])
        match found["sign"]:
            case ">":
                return cls(first=step + 1)
            case ">=":
                return cls(first=step)
            case "<":
                return cls(last=step - 1)
            case "<=":
                return cls(last=step)
            case _:
                return cls(step, step)

    def holds(self, step: int) -> bool:
        """Whether `step` is one of them."""
        return (self.first is None or step >= self.first) and (self.last is None or step <= self.last)


@dataclass(frozen=True, slots=True)
class Expression:
    """`.path OP value` over the wire JSON of an event; `[]` in the path stands for any element."""

    path: tuple[str, ...]
    sign: str
    value: Value

    @classmethod
    def parse(cls, text: str) -> Self:
        """The expression that `text` spells.

        Raises:
            UsageError: it spells none.
        """
        found = _EXPRESSION.fullmatch(text.strip())
        if found is None:
            raise UsageError(
                f"Invalid filter expression: {text}", hint='For example: .toolCalls[].skillName == "@perstack/base"'
            )
        value = found["value"].strip()
        if not value:
            raise UsageError(f"Missing value in filter expression: {text}")
        return cls(tuple(_PART.findall(found["path"])), found["sign"], _literal(value, text))

    def matches(self, event: Event) -> bool:
        """Whether the field is there and any value of it compares as asked."""
        # Only the field that the path begins with: a whole event may hold a conversation three times.
        names = {one.alias or name: name for name, one in type(event).model_fields.items()}
        if self.path[0] not in names:
            return False
        told = event.model_dump(mode="json", exclude_none=True, include={names[self.path[0]]})
        return any(self._compares(found) for found in _at(told, self.path))

    def _compares(self, found: object) -> bool:
        if isinstance(found, list):
            return any(self._compares(element) for element in cast(list[object], found))
        if self.sign in ("==", "!="):
            return _is_same(found, self.value) == (self.sign == "==")
        return _is_number(found) and _is_number(self.value) and _ORDERS[self.sign](found, self.value)


@dataclass(frozen=True, slots=True)
class Page:
    """What is shown of the events that match."""

    events: tuple[Event, ...]
    matched: int
    """How many match in all."""
    shown: int
    """How many of those are on the page; the other events of it are neighbours."""

    @property
    def neighbours(self) -> int:
        """How many events are there for context only."""
        return len(self.events) - self.shown


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Conditions that all have to hold, and which part of what matches is shown."""

    steps: StepRange | None = None
    type: str | None = None
    is_errors: bool = False
    is_tools: bool = False
    is_delegations: bool = False
    expression: Expression | None = None
    take: int = DEFAULT_TAKE
    """At most so many matches; 0 is all."""
    offset: int = 0
    context: int = 0
    """So many neighbours on each side of a match."""

    def __post_init__(self) -> None:
        """Refuse a type that no event has.

        Raises:
            UsageError: there is none such.
        """
        if self.type is not None and self.type not in EVENT_TYPES:
            hint = "Event types: " + ", ".join(EVENT_TYPES)
            raise UsageError(f"Unknown event type in --type: {self.type}.", hint=hint)

    def matches(self, event: Event) -> bool:
        """Whether every condition holds for an event."""
        return (
            (self.steps is None or (isinstance(event, RunBase) and self.steps.holds(event.step_number)))
            and (self.type is None or event.type == self.type)
            and (not self.is_errors or isinstance(event, _ERRORS))
            and (not self.is_tools or isinstance(event, _TOOLS))
            and (not self.is_delegations or isinstance(event, _DELEGATIONS))
            and (self.expression is None or self.expression.matches(event))
        )

    def matching(self, events: Sequence[Event]) -> list[int]:
        """The places of the events that match."""
        return [place for place, event in enumerate(events) if self.matches(event)]

    def page(self, events: Sequence[Event], matching: Sequence[int]) -> Page:
        """The page of the events at `matching`: offset, take, then neighbours."""
        end = self.offset + self.take if self.take else None
        chosen = matching[self.offset : end]
        around: set[int] = set()
        for place in chosen:
            around.update(range(max(0, place - self.context), min(len(events), place + self.context + 1)))
        return Page(tuple(events[place] for place in sorted(around)), len(matching), len(chosen))


class SmallestAndLargest(Wire):
    """The ends of a range, both included."""

    min: int
    max: int


class EventSummary(Wire):
    """Events, counted."""

    total_events: int
    error_count: int
    tool_call_count: int
    delegation_count: int
    step_range: SmallestAndLargest | None = None

    @classmethod
    def of(cls, events: Sequence[Event]) -> Self:
        """What these events come to."""
        steps = [event.step_number for event in events if isinstance(event, RunBase)]
        return cls(
            total_events=len(events),
            error_count=sum(isinstance(event, _ERRORS) for event in events),
            tool_call_count=sum(len(event.tool_calls) for event in events if isinstance(event, CallTools)),
            delegation_count=sum(len(event.tool_calls) for event in events if isinstance(event, CallDelegate)),
            step_range=SmallestAndLargest(min=min(steps), max=max(steps)) if steps else None,
        )


def parse_count(option: str, text: str) -> int:
    """A number from 0 on.

    Raises:
        UsageError: it is none.
    """
    if not re.fullmatch(r"\d{1,9}", text.strip(), re.ASCII):
        raise UsageError(f"Invalid value for {option}: {text}", hint="A whole number, 0 or more.")
    return int(text)


def _literal(text: str, expression: str) -> Value:
    if text in ("true", "false"):
        return text == "true"
    if _NUMBER.fullmatch(text):
        return cast(Value, json.loads(text))
    if text[0] in "\"'":
        return _quoted(text, expression)
    if re.search(r"[\s\"'=<>!]", text):
        raise UsageError(f"Invalid filter expression: {expression}", hint="Put quotes around a value of several words.")
    return text


def _quoted(text: str, expression: str) -> str:
    if text[0] == "'" and len(text) > 1 and text.find("'", 1) == len(text) - 1:
        return text[1:-1]
    try:
        value: object = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, str):
        raise UsageError(f"Invalid filter expression: {expression}", hint="The quotes around the value do not match.")
    return value


def _at(value: object, path: tuple[str, ...]) -> list[object]:
    """What stands at the end of a path; nothing where a part of it is missing."""
    if not path:
        return [value]
    if path[0] == "[]":
        elements = cast(list[object], value) if isinstance(value, list) else []
        return [found for element in elements for found in _at(element, path[1:])]
    if not isinstance(value, dict) or path[0] not in value:
        return []
    return _at(cast(dict[str, object], value)[path[0]], path[1:])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_same(found: object, value: Value) -> bool:
    if _is_number(found) and _is_number(value):
        return found == value
    return type(found) is type(value) and found == value
