"""Keys a file has and the schema does not: misspelt ones are errors, all others are warnings."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from ..core.profiles.providers import PROVIDERS
from .document import KeyPath, dotted
from .schema import (
    SKILL_TABLES,
    BuiltinProviderSkill,
    CustomProviderSkill,
    ExpertTable,
    FileSearchOptions,
    GoogleMapsOptions,
    InteractiveToolTable,
    PerstackToml,
    ProviderTable,
    ProviderToolOptions,
    SettingTable,
    StdioSkillTable,
    Table,
    WebFetchOptions,
    WebSearchOptions,
)

_SIMILAR = 0.75
_RETIRED_TOP: Mapping[str, str] = {
    "runtime": "there is one runtime; for isolation run inside the container image",
    "perstackBaseSkillCommand": "the base skill is part of Perstack and needs no command",
}
_RETIRED_SKILL: Mapping[str, str] = {
    "lazyInit": "with a perstack.lock (`perstack install`) a skill starts at the first call of one of its tools",
}
_CREDENTIALS = ("apikey", "accesskey", "secret", "token", "password", "credential")


@dataclass(frozen=True)
class UnknownKey:
    """One key nobody reads."""

    path: KeyPath
    message: str
    meant: str | None = None
    """The valid key it was probably meant to be; makes it an error."""
    is_credential: bool = False

    @property
    def is_error(self) -> bool:
        """Whether the file must not be used like this."""
        return self.meant is not None or self.is_credential


@dataclass(frozen=True)
class _Place:
    """A table of the file and what may stand in it."""

    path: KeyPath
    table: Mapping[str, Any]
    known: frozenset[str]
    retired: Mapping[str, str]
    foreign: frozenset[str] = frozenset()
    """Keys that are read under another provider or skill type, and ignored here."""
    holds_settings: bool = False


def looks_secret(name: str) -> bool:
    """Whether a setting or header of this name usually carries a credential."""
    plain = _plain(name)
    return any(word in plain for word in (*_CREDENTIALS, "authorization", "cookie"))


def closest(name: str, candidates: Mapping[str, Any] | frozenset[str] | tuple[str, ...]) -> str | None:
    """The candidate that `name` was probably meant to be, spelling and case aside."""
    by_plain = {_plain(candidate): candidate for candidate in sorted(candidates)}
    found = difflib.get_close_matches(_plain(name), list(by_plain), n=1, cutoff=_SIMILAR)
    return by_plain[found[0]] if found else None


def unknown_keys(raw: Mapping[str, Any]) -> list[UnknownKey]:
    """Every unknown key of a parsed file, in file order of its tables."""
    return [_judged(place, key) for place in _places(raw) for key in place.table if key not in place.known]


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _judged(place: _Place, key: str) -> UnknownKey:
    path = (*place.path, key)
    if key in place.retired:
        return UnknownKey(path, f"`{dotted(path)}` has no effect any more: {place.retired[key]}")
    if key in place.foreign:
        return UnknownKey(path, f"`{dotted(path)}` is not read here and is ignored")
    if meant := closest(key, place.known):
        return UnknownKey(path, f"unknown key, did you mean `{meant}`?", meant=meant)
    if place.holds_settings and looks_secret(key):
        return UnknownKey(path, "a credential must not stand in a definition", is_credential=True)
    if place.path and key in PerstackToml.known_keys():
        return UnknownKey(path, f"`{dotted(path)}` is ignored: write `{key}` above the first [table] of the file")
    return UnknownKey(path, f"unknown key `{dotted(path)}` is ignored")


def _table(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _tables(value: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, item in _table(value).items():
        yield key, _table(item)


def _place(path: KeyPath, value: object, model: type[Table], retired: Mapping[str, str] | None = None) -> _Place:
    return _Place(path, _table(value), model.known_keys(), retired or {})


def _places(raw: Mapping[str, Any]) -> Iterator[_Place]:
    yield _place((), raw, PerstackToml, _RETIRED_TOP)
    provider = _table(raw.get("provider"))
    yield _place(("provider",), provider, ProviderTable)
    known = _setting_keys(provider.get("providerName"))
    yield _Place(
        ("provider", "setting"),
        _table(provider.get("setting")),
        known,
        {},
        SettingTable.known_keys() - known,
        holds_settings=True,
    )
    for key, expert in _tables(raw.get("experts")):
        yield from _expert_places(("experts", key), expert)


def _setting_keys(provider: object) -> frozenset[str]:
    profile = PROVIDERS.get(provider) if isinstance(provider, str) else None
    return profile.setting_keys if profile else SettingTable.known_keys()


def _expert_places(path: KeyPath, expert: Mapping[str, Any]) -> Iterator[_Place]:
    yield _place(path, expert, ExpertTable)
    for name, skill in _tables(expert.get("skills")):
        yield from _skill_places((*path, "skills", name), skill)
    skills = expert.get("providerSkills")
    for index, skill in enumerate(cast("list[object]", skills) if isinstance(skills, list) else []):
        is_custom = _table(skill).get("type") == "custom"
        model = CustomProviderSkill if is_custom else BuiltinProviderSkill
        yield _place((*path, "providerSkills", index), skill, model)
    options_path = (*path, "providerToolOptions")
    options = _table(expert.get("providerToolOptions"))
    yield _place(options_path, options, ProviderToolOptions)
    for key, model in (
        ("webSearch", WebSearchOptions),
        ("webFetch", WebFetchOptions),
        ("fileSearch", FileSearchOptions),
        ("googleMaps", GoogleMapsOptions),
    ):
        yield _place((*options_path, key), options.get(key), model)


def _skill_places(path: KeyPath, skill: Mapping[str, Any]) -> Iterator[_Place]:
    model = SKILL_TABLES.get(str(skill.get("type")), StdioSkillTable)
    everywhere = frozenset[str]().union(*(table.known_keys() for table in SKILL_TABLES.values()))
    yield _Place(path, skill, model.known_keys(), _RETIRED_SKILL, everywhere - model.known_keys())
    for name, tool in _tables(skill.get("tools")):
        yield _place((*path, "tools", name), tool, InteractiveToolTable)
