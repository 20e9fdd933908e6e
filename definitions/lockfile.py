"""`perstack.lock`: what the skills of each expert offered when `perstack install` looked (contract 1 §2).

A run with a lock offers those tools to the model without starting any skill. Beyond the contract an expert's table
carries `digest`, over everything its definition says, and a tool may carry `isRepeatable` and `sourceName`.
"""

import hashlib
import os
import secrets
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from ..core.expert import BASE_SKILL, Expert, InteractiveSkill, Skill
from ..core.failures import DefinitionError
from ..core.tools import ToolSpec
from ..core.wire import Wire

LOCK_NAME = "perstack.lock"
LOCK_VERSION = "1"
_HEADER = (
    "Written by `perstack install`: the tools of every skill, so that a run need not start a skill to know them.\n"
)
_INSTALL = "`perstack install` writes it anew"
_MAX_BYTES = 64 * 1024 * 1024
_SKILLS: TypeAdapter[dict[str, Skill]] = TypeAdapter(dict[str, Skill])


class LockedTool(Wire):
    """One tool as its skill listed it, `pick` and `omit` applied."""

    skill_name: str
    name: str
    description: str | None = None
    input_schema: dict[str, Any] | str
    """A table, or JSON where TOML cannot say it: TOML has no null."""
    is_repeatable: bool = False
    source_name: str | None = None
    """What the skill calls it, where no provider takes that as a name."""

    @property
    def spec(self) -> ToolSpec:
        """The tool as a run offers it."""
        schema = self.input_schema if isinstance(self.input_schema, dict) else from_json(self.input_schema)
        return ToolSpec(
            name=self.name,
            skill_name=self.skill_name,
            description=self.description,
            input_schema=schema,
            is_repeatable=self.is_repeatable,
            source_name=self.source_name,
        )


class LockedExpert(Wire):
    """One expert as it was when it was locked."""

    key: str
    name: str
    version: str
    description: str | None = None
    instruction: str
    skills: dict[str, Any] = {}
    delegates: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    digest: str = ""
    tool_definitions: tuple[LockedTool, ...] = ()


class Lockfile(Wire):
    """The whole file."""

    version: Literal["1"] = LOCK_VERSION
    generated_at: int
    """In milliseconds since 1970."""
    config_path: str
    """The base name of the definition it belongs to."""
    experts: dict[str, LockedExpert] = {}


def definition_digest(expert: Expert) -> str:
    """What changes when anything that the definition says of this expert changes; the model it gets does not count."""
    content = expert.model_dump(mode="json", exclude={"model"}, exclude_none=True)
    return "sha256:" + hashlib.sha256(to_json(content)).hexdigest()


def locked_expert(expert: Expert, tools: Iterable[ToolSpec]) -> LockedExpert:
    """The entry of one expert with the tools that its skills offer now."""
    return LockedExpert(
        key=expert.key,
        name=expert.name,
        version=expert.version,
        description=expert.description,
        instruction=expert.instruction,
        skills={skill.name: skill.model_dump(mode="json", exclude_none=True) for skill in expert.skills},
        delegates=expert.delegates,
        tags=expert.tags,
        digest=definition_digest(expert),
        tool_definitions=tuple(
            LockedTool(
                skill_name=tool.skill_name,
                name=tool.name,
                description=tool.description,
                input_schema=tool.input_schema,
                is_repeatable=tool.is_repeatable,
                source_name=tool.source_name,
            )
            for tool in tools
        ),
    )


def new_lockfile(config_path: str, experts: Iterable[LockedExpert]) -> Lockfile:
    """A lock made now."""
    now = time.time_ns() // 1_000_000
    return Lockfile(generated_at=now, config_path=config_path, experts={expert.key: expert for expert in experts})


def write_lockfile(path: Path, lock: Lockfile) -> None:
    """Write the lock in one step: a reader sees the old one or the new one, whatever happens in between.

    Raises:
        OSError: the folder cannot be written.
    """
    content = lock_text(lock)  # a large one takes a while, in which no half file may lie about
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{LOCK_NAME}.{secrets.token_hex(4)}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def lock_text(lock: Lockfile) -> str:
    """The lock as TOML."""
    # Reading needs it not, and every run with a lock reads.
    import tomlkit

    document = tomlkit.document()
    document.add(tomlkit.comment(_HEADER.strip()))
    for name, value in _sayable(lock.model_dump(mode="json", exclude_none=True)).items():
        document.add(name, value)
    return tomlkit.dumps(document)


def _sayable(lock: dict[str, Any]) -> dict[str, Any]:
    for expert in lock["experts"].values():
        for tool in expert["toolDefinitions"]:
            if not isinstance(tool["inputSchema"], str) and _needs_json(tool["inputSchema"]):
                tool["inputSchema"] = to_json(tool["inputSchema"]).decode()
    return lock


def _needs_json(value: Any) -> bool:
    """Whether TOML has no word for something in `value`."""
    if isinstance(value, Mapping):
        return any(map(_needs_json, value.values()))  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, list):
        return any(map(_needs_json, value))  # pyright: ignore[reportUnknownArgumentType]
    return value is None or (isinstance(value, int) and not -(2**63) <= value < 2**63)


def read_lockfile(directory: Path | None) -> Lockfile | None:
    """The lock beside a definition; `None` when there is none.

    Raises:
        DefinitionError: there is one that cannot be used.
    """
    if directory is None:
        return None
    path = directory / LOCK_NAME
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    try:
        lock = Lockfile.model_validate(tomllib.loads(raw.decode()))
        for expert in lock.experts.values():
            _SKILLS.validate_python(expert.skills)
            for tool in expert.tool_definitions:
                tool.spec  # noqa: B018 a schema written as JSON is read here
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _unusable(path, f"{where}: {first['msg']}" if where else first["msg"]) from None
    except (ValueError, RecursionError) as error:
        raise _unusable(path, str(error)) from None
    return lock


def _unusable(path: Path, reason: str) -> DefinitionError:
    return DefinitionError(
        f"{path} cannot be used: {reason}",
        code="definition.lock",
        hint="`perstack install` writes it anew; without it the skills are started to see what they offer.",
    )


@dataclass(frozen=True)
class LockedRun:
    """What a run takes from the lock."""

    tools: dict[str, tuple[ToolSpec, ...]]
    """By expert; an expert that is absent has its skills asked."""
    warnings: tuple[str, ...] = ()


def lock_for(directory: Path | None, experts: Mapping[str, Expert], *, is_frozen: bool = False) -> LockedRun:
    """What the lock beside the definition says about `experts`, and what in it is out of date.

    Raises:
        DefinitionError: the run must be as locked (`is_frozen`) and is not.
    """
    try:
        lock = read_lockfile(directory)
    except DefinitionError as error:
        if is_frozen:
            raise
        return LockedRun({}, (f"{error.message}; it is ignored",))
    if lock is None:
        if is_frozen:
            raise DefinitionError(f"There is no {LOCK_NAME}", code="definition.lock", hint=_INSTALL)
        return LockedRun({})
    drifted = tuple(drift(lock, experts))
    if is_frozen and drifted:
        lines = "".join(f"\n  - {sentence}" for sentence in drifted)
        raise DefinitionError(f"The definition is not what was locked:{lines}", code="definition.lock", hint=_INSTALL)
    return LockedRun(locked_tools(lock, experts), tuple(f"{sentence}; {_INSTALL}" for sentence in drifted))


def drift(lock: Lockfile, experts: Mapping[str, Expert]) -> Iterator[str]:
    """What the definition says otherwise than when it was locked, a sentence for each expert."""
    for key, expert in experts.items():
        locked = lock.experts.get(key)
        if locked is None:
            yield f"{key} is not in {LOCK_NAME}"
        elif _skills_changed(locked, expert):
            yield f"the skills of {key} have changed since {LOCK_NAME} was written"
        elif locked.digest and locked.digest != definition_digest(expert):
            yield f"{key} has changed since {LOCK_NAME} was written"


def locked_tools(lock: Lockfile, experts: Mapping[str, Expert]) -> dict[str, tuple[ToolSpec, ...]]:
    """The tools of each expert's MCP skills as they were locked, `pick` and `omit` of today applied.

    Left out are experts that are not in the lock, or whose skills are others now: theirs must be asked. The base skill
    and interactive skills come from the definition itself.
    """
    found: dict[str, tuple[ToolSpec, ...]] = {}
    for key, expert in experts.items():
        locked = lock.experts.get(key)
        if locked is not None and not _skills_changed(locked, expert):
            asked = {skill.name: skill for skill in expert.skills if not isinstance(skill, InteractiveSkill)}
            asked.pop(BASE_SKILL, None)
            found[key] = tuple(
                tool.spec
                for tool in locked.tool_definitions
                if (skill := asked.get(tool.skill_name)) is not None
                and (names := {tool.name, tool.source_name}).isdisjoint(skill.omit)
                and (not skill.pick or not names.isdisjoint(skill.pick))
            )
    return found


_SELECTION = {"pick", "omit", "rule", "description"}


def _skills_changed(locked: LockedExpert, expert: Expert) -> bool:
    """Whether a skill is another now; what only chooses among its tools, or words, does not make it one.

    A `pick` that grew asks for tools that were filtered out when the lock was written.
    """
    then = _SKILLS.validate_python(locked.skills)
    now = {skill.name: skill for skill in expert.skills if skill.name != BASE_SKILL}
    then.pop(BASE_SKILL, None)
    if set(then) != set(now):
        return True
    for name, skill in now.items():
        old = then[name]
        if skill.model_dump(exclude=_SELECTION) != old.model_dump(exclude=_SELECTION):
            return True
        if not isinstance(skill, InteractiveSkill) and not isinstance(old, InteractiveSkill):
            offers_more = bool(old.pick) and not (skill.pick and set(skill.pick) <= set(old.pick))
            if offers_more or not set(old.omit) <= set(skill.omit):
                return True
    return False
