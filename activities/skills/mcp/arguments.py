"""Arguments against the schema a server gave for them; the schema is a stranger's, so every check is bounded."""

import copy
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend as untyped_extend  # pyright: ignore[reportUnknownVariableType]
from jsonschema.validators import validator_for
from referencing import Registry

from ..problems import SHOWN_CHARACTERS, shown_problem

MAX_SCHEMA_BYTES = 128 * 1024
"""Of one tool's schema as JSON."""
MAX_NODES = 4000
"""Of one schema; to check whether it is one takes up to 0.3 ms for each."""
MAX_WRITTEN_OUT = 50_000
"""Nodes of a schema with every reference replaced by what it names."""
_MAX_STEPS = 20_000
"""Keywords looked at in one check."""
_SHOWN_ERRORS = 5

# Regular expressions of a stranger can take for ever, and these keywords match them outside of the counted steps.
_UNCHECKED = frozenset({"pattern", "patternProperties", "unevaluatedProperties", "unevaluatedItems", "format"})

_extend = cast("Callable[..., Any]", untyped_extend)
_Keyword = Callable[[Any, Any, Any, Any], Iterable[ValidationError] | None]


class _TooCostly(Exception):
    """A check took more steps than honest schemas need."""


class ArgumentCheck:
    """Tells what is wrong with the arguments of one tool; a schema that cannot be used finds nothing wrong."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = _without_dialects(schema)
        self._validator_class = validator_for(schema, default=Draft202012Validator)

    def problem(self, args: dict[str, Any]) -> str | None:
        """What is wrong with `args`, or `None`."""
        steps = iter(range(_MAX_STEPS))
        validator = _counting(self._validator_class, steps)(self._schema, registry=Registry())
        try:
            found = validator.iter_errors(args)
            errors = [error for _, error in zip(range(_SHOWN_ERRORS), found, strict=False)]
        except Exception:  # what a stranger's schema makes the library raise is not to be foreseen
            return None
        return "; ".join(shown_problem(error) for error in errors) if errors else None


def schema_problem(schema: dict[str, Any]) -> str | None:
    """Why neither a model nor a check can use a tool's schema, or `None`."""
    if schema.get("type", "object") != "object":
        return "its type is not object"
    if node_count(schema) > MAX_NODES:
        return f"it has more than {MAX_NODES} parts"
    if (size := _written_out(schema)) is None:
        return "it refers to something outside of itself"
    if size > MAX_WRITTEN_OUT:
        return "it is too large with its references written out"
    try:
        validator_class = validator_for(schema, default=Draft202012Validator)
        validator_class.check_schema(schema)
    except SchemaError as error:
        return f"it is no JSON Schema: {error.message[:SHOWN_CHARACTERS]}"
    except Exception as error:
        return f"it is no JSON Schema: {type(error).__name__}"
    return None


def node_count(schema: dict[str, Any]) -> int:
    """How many values a schema is made of."""
    count = 0
    waiting: list[Any] = [schema]
    while waiting:
        node = waiting.pop()
        count += 1
        if isinstance(node, dict):
            waiting.extend(cast("dict[str, Any]", node).values())
        elif isinstance(node, list):
            waiting.extend(cast("list[Any]", node))
    return count


def _written_out(root: dict[str, Any]) -> int | None:
    """How many nodes `root` has with its references written out once each way; `None` if one leads outside."""
    sizes: dict[str, int] = {}

    def size(node: Any) -> int:
        if isinstance(node, list):
            return 1 + sum(size(item) for item in cast("list[Any]", node))
        if not isinstance(node, dict):
            return 1
        total = 1
        for key, value in cast("dict[str, Any]", node).items():
            total += target(value) if key in ("$ref", "$dynamicRef") and isinstance(value, str) else size(value)
        return total

    def target(reference: str) -> int:
        if not reference.startswith("#"):
            raise LookupError(reference)
        if reference not in sizes:
            sizes[reference] = 1  # a schema may contain itself
            found = _pointed_at(root, reference)
            sizes[reference] = 1 if found is None else size(found)
        return sizes[reference]

    try:
        return size(root)
    except LookupError:
        return None
    except RecursionError:
        return MAX_WRITTEN_OUT + 1


def _pointed_at(root: Any, reference: str) -> Any:
    """What a JSON pointer within the document names; `None` for an anchor or a dead end."""
    node = root
    for part in reference.removeprefix("#").split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict):
            node = cast("dict[str, Any]", node).get(key)
        elif isinstance(node, list) and key.isdigit() and int(key) < len(cast("list[Any]", node)):
            node = cast("list[Any]", node)[int(key)]
        else:
            return None
    return node


def _without_dialects(schema: dict[str, Any]) -> dict[str, Any]:
    """A copy in which no part names a dialect, since that would change to a validator that does not count."""
    copied = copy.deepcopy(schema)
    waiting: list[Any] = [copied]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            members = cast("dict[str, Any]", node)
            if isinstance(members.get("$schema"), str):
                del members["$schema"]
            waiting.extend(members.values())
        elif isinstance(node, list):
            waiting.extend(cast("list[Any]", node))
    return copied


def _counting(base: type[Validator], steps: Iterator[int]) -> type[Validator]:
    def counted(check: _Keyword) -> _Keyword:
        def step(validator: Any, value: Any, instance: Any, schema: Any) -> Iterable[ValidationError]:
            if next(steps, None) is None:
                raise _TooCostly
            return check(validator, value, instance, schema) or ()

        return step

    keywords = {name: counted(check) for name, check in _bounded_keywords(base).items()}
    return cast("type[Validator]", _extend(base, validators=keywords))


@cache
def _bounded_keywords(base: type[Validator]) -> dict[str, _Keyword]:
    checks = cast("dict[str, _Keyword]", dict(base.VALIDATORS))
    additional = checks["additionalProperties"]

    def additional_properties(validator: Any, value: Any, instance: Any, schema: Any) -> Iterable[ValidationError]:
        return () if "patternProperties" in schema else (additional(validator, value, instance, schema) or ())

    checks["additionalProperties"] = additional_properties
    return {name: _nothing if name in _UNCHECKED else check for name, check in checks.items()}


def _nothing(validator: Any, value: Any, instance: Any, schema: Any) -> Iterable[ValidationError]:
    return ()
