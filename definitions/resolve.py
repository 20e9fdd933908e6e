"""From a checked configuration and what the caller overrides to everything a job starts with."""

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.expert import BASE_SKILL, Expert, McpStdioSkill, ProviderName, ReasoningBudget
from ..core.failures import DefinitionError, UsageError
from ..core.ids import parse_expert_key
from ..core.models import DEFAULT_PROVIDER
from ..core.profiles.providers import PROVIDERS
from ..core.run import Limits
from ..core.tools import BASE_TOOL_NAMES, delegate_tools
from .checks import SECRET_VARIABLES
from .document import KeyPath, located_error
from .environment import DEFAULT_ENV_PATHS, check_required_env, read_env
from .experts import Definition, ModelSettings
from .keys import closest
from .load import LoadedConfig
from .provider_tools import unused_options
from .schema import REASONING_LEVELS, PerstackToml


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What the caller sets for one job; `None` leaves it to the configuration."""

    provider: ProviderName | None = None
    model: str | None = None
    reasoning_budget: ReasoningBudget | None = None
    max_steps: int | None = None
    max_retries: int | None = None
    timeout_ms: int | None = None
    env_paths: tuple[str, ...] = ()


NO_OVERRIDES = Overrides()


@dataclass(frozen=True, kw_only=True)
class ResolvedJob:
    """Everything a job starts with, checked."""

    expert_key: str
    experts: dict[str, Expert]
    """The expert to run and all it can reach."""
    limits: Limits
    provider: ProviderName
    provider_setting: dict[str, Any]
    env_paths: tuple[str, ...]
    """Absolute paths; earlier files win."""
    allowed_env: tuple[str, ...]
    """Variables that a definition made while the job runs may require."""
    model_settings: ModelSettings
    warnings: tuple[str, ...]
    """Those of loading included."""


def parse_provider(text: str) -> ProviderName:
    """A provider by name.

    Raises:
        UsageError: there is no such provider.
    """
    if text in PROVIDERS:
        return text
    meant = closest(text, tuple(PROVIDERS))
    raise UsageError(
        f'Unknown provider "{text}"' + (f', did you mean "{meant}"?' if meant else ""),
        code="usage.provider",
        hint=f"Providers: {', '.join(PROVIDERS)}.",
    )


def parse_reasoning_budget(text: str) -> ReasoningBudget:
    """A reasoning budget as typed: a level or a number of tokens.

    Raises:
        UsageError: it is neither.
    """
    if re.fullmatch(r"[0-9]{1,9}", text):
        return int(text)
    for level in REASONING_LEVELS:
        if level == text:
            return level
    raise UsageError(
        f'"{text}" is not a reasoning budget',
        code="usage.reasoning_budget",
        hint=f"Give one of {', '.join(REASONING_LEVELS)}, or a number of tokens.",
    )


def resolve_job(
    loaded: LoadedConfig,
    expert_key: str,
    overrides: Overrides = NO_OVERRIDES,
    *,
    host_env: Mapping[str, str],
    cwd: Path,
    runtime_version: str,
) -> ResolvedJob:
    """What running `expert_key` needs.

    Raises:
        UsageError: the expert, an override, an env file or a required variable is wrong or missing.
        DefinitionError: the expert or something it reaches is invalid or not built yet.
    """
    toml = loaded.toml
    used = _used_definitions(loaded, expert_key)
    check_runtime(used, runtime_version)
    settings = _model_settings(toml, overrides)
    refuse_unbuilt(used)
    experts = {definition.key: definition.expert(settings) for definition in used}
    env_paths = _env_paths(toml, overrides, cwd)
    check_required_env(experts.values(), read_env(env_paths, host_env))
    return ResolvedJob(
        expert_key=expert_key,
        experts=experts,
        limits=_limits(toml, overrides),
        provider=settings.provider,
        provider_setting=_provider_setting(toml, settings.provider),
        env_paths=env_paths,
        allowed_env=_allowed_env(loaded),
        model_settings=settings,
        warnings=(
            *loaded.warnings,
            *_provider_advice(loaded, settings, used),
            *_option_advice(used, settings.provider),
            *_name_advice(used, experts),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class LocalExperts:
    """All that a definition file defines, and what those experts can reach."""

    experts: dict[str, Expert]
    provider: ProviderName
    provider_setting: dict[str, Any]
    env_paths: tuple[str, ...]
    warnings: tuple[str, ...]


def local_experts(
    loaded: LoadedConfig, *, env_paths: Sequence[str] = (), provider: ProviderName | None = None, cwd: Path
) -> LocalExperts:
    """Every expert of the file itself, the built-in ones only where they are delegates.

    Raises:
        DefinitionError: one of them is invalid or not built yet.
    """
    overrides = Overrides(env_paths=tuple(env_paths), provider=provider)
    settings = _model_settings(loaded.toml, overrides)
    used = reachable_definitions(loaded.own_experts, loaded)
    refuse_unbuilt(used)
    experts = {definition.key: definition.expert(settings) for definition in used}
    return LocalExperts(
        experts=experts,
        provider=settings.provider,
        provider_setting=_provider_setting(loaded.toml, settings.provider),
        env_paths=_env_paths(loaded.toml, overrides, cwd),
        warnings=(
            *_provider_advice(loaded, settings, used),
            *_option_advice(used, settings.provider),
            *_name_advice(used, experts),
        ),
    )


def provider_in_use(toml: PerstackToml, provider: ProviderName | None = None) -> tuple[ProviderName, dict[str, Any]]:
    """The provider of a definition, unless the caller names another one, and its settings."""
    settings = _model_settings(toml, Overrides(provider=provider))
    return settings.provider, _provider_setting(toml, settings.provider)


def env_files(toml: PerstackToml, env_paths: Sequence[str], *, cwd: Path) -> tuple[str, ...]:
    """The env files of a job, as absolute paths; earlier files win."""
    return _env_paths(toml, Overrides(env_paths=tuple(env_paths)), cwd)


def _used_definitions(loaded: LoadedConfig, expert_key: str) -> list[Definition]:
    parsed = parse_expert_key(expert_key)
    if parsed is None:
        raise UsageError(f"Invalid expert key format: {expert_key}", code="usage.expert_key")
    if expert_key not in loaded.toml.experts:
        if parsed.version or parsed.tag:
            raise DefinitionError(
                f'Expert "{expert_key}" not found in {loaded.source}, and the registry is not built yet',
                code="definition.not_built",
            )
        raise unknown_expert(expert_key, loaded)
    return reachable_definitions([expert_key], loaded)


def unknown_expert(key: str, loaded: LoadedConfig) -> UsageError:
    """The complaint about a key nobody defines, with the keys there are."""
    keys = list(loaded.toml.experts)
    meant = closest(key, tuple(keys))
    available = f"Available experts: {', '.join(keys) or 'none'}."
    return UsageError(
        f'Expert "{key}" not found in {loaded.source}',
        code="usage.unknown_expert",
        hint=f'Did you mean "{meant}"? {available}' if meant else available,
    )


def reachable_definitions(roots: Iterable[str], loaded: LoadedConfig, known: Collection[str] = ()) -> list[Definition]:
    """`roots` and every expert they can reach, in order of discovery.

    Raises:
        DefinitionError: a delegate is nowhere to be found.
    """
    found: dict[str, Definition] = {}
    waiting = list(roots)
    while waiting:
        key = waiting.pop(0)
        if key in found:
            continue
        definition = Definition(key, loaded.toml.experts[key], loaded.documents[key])
        found[key] = definition
        for index, delegate in enumerate(definition.table.delegates):
            if delegate in loaded.toml.experts:
                waiting.append(delegate)
            elif delegate not in known and not _is_pinned(delegate):
                meant = closest(delegate, tuple(loaded.toml.experts))
                raise located_error(
                    definition.document,
                    (*definition.path, "delegates", index),
                    f"Delegate {delegate} not found",
                    code="definition.unknown_delegate",
                    hint=f'Did you mean "{meant}"?' if meant else f'Define [experts."{delegate}"].',
                )
    return list(found.values())


def _is_pinned(key: str) -> bool:
    parsed = parse_expert_key(key)
    return parsed is not None and bool(parsed.version or parsed.tag)


def refuse_unbuilt(experts_used: Sequence[Definition]) -> None:
    """Refuses a valid definition that needs what this version does not have.

    Raises:
        DefinitionError: naming file, line and key.
    """
    keys = {definition.key for definition in experts_used}
    for definition in experts_used:
        for path, message in _unbuilt(definition, keys):
            raise located_error(
                definition.document,
                path,
                message,
                code="definition.not_built",
                hint="The definition is valid; take this out to run it with this version.",
            )


def _unbuilt(definition: Definition, keys: set[str]) -> Iterator[tuple[KeyPath, str]]:
    table, path = definition.table, definition.path
    for index, delegate in enumerate(table.delegates):
        if delegate not in keys and _is_pinned(delegate):
            yield (*path, "delegates", index), f"Delegate {delegate} not found, and the registry is not built yet"


def check_runtime(used: Iterable[Definition], runtime_version: str) -> None:
    """Refuses experts whose `minRuntimeVersion` is higher than `runtime_version`.

    Raises:
        DefinitionError: naming both versions.
    """
    for definition in used:
        needed = definition.table.min_runtime_version
        if needed is not None and _version_order(needed) > _version_order(runtime_version):
            raise located_error(
                definition.document,
                (*definition.path, "minRuntimeVersion"),
                f"Expert {definition.key} needs Perstack {needed} or newer, this is {runtime_version}",
                code="definition.runtime_version",
                hint="Upgrade Perstack, or lower minRuntimeVersion.",
            )


def _version_order(text: str) -> tuple[tuple[int, ...], bool, str]:
    """Orders `vX.Y`, semantic and Python versions; a pre-release comes before its release."""
    match = re.match(r"v?([0-9]+(?:\.[0-9]+){0,2})([^+]*)", text)
    numbers = [int(part) for part in match[1].split(".")] if match else []
    rest = match[2].lstrip("-.") if match else ""
    return (*numbers, *(0,) * (3 - len(numbers))), not rest, rest


def _model_settings(toml: PerstackToml, overrides: Overrides) -> ModelSettings:
    configured = toml.provider.provider_name if toml.provider else DEFAULT_PROVIDER
    budget = overrides.reasoning_budget if overrides.reasoning_budget is not None else toml.reasoning_budget
    return ModelSettings(
        provider=parse_provider(overrides.provider) if overrides.provider else configured,
        model_override=overrides.model or None,
        model=toml.model,
        default_tier=toml.default_model_tier,
        reasoning_budget="low" if budget is None else budget,
    )


def _provider_setting(toml: PerstackToml, provider: ProviderName) -> dict[str, Any]:
    table = toml.provider
    if table is None or table.setting is None or table.provider_name != provider:
        return {}
    setting = table.setting.model_dump(by_alias=True, exclude_none=True)
    return {key: value for key, value in setting.items() if key in PROVIDERS[provider].setting_keys}


def _limits(toml: PerstackToml, overrides: Overrides) -> Limits:
    defaults = Limits()
    return Limits(
        max_steps=_limit("--max-steps", 1, overrides.max_steps, toml.max_steps, defaults.max_steps),
        max_retries=_limit("--max-retries", 0, overrides.max_retries, toml.max_retries, defaults.max_retries),
        timeout_ms=_limit("--timeout", 1, overrides.timeout_ms, toml.timeout, defaults.timeout_ms),
    )


def _limit(option: str, least: int, override: int | None, configured: int | None, default: int) -> int:
    if override is None:
        return default if configured is None else configured
    if override < least:
        raise UsageError(f"{option} must be at least {least}, not {override}", code="usage.limit")
    return override


def _env_paths(toml: PerstackToml, overrides: Overrides, cwd: Path) -> tuple[str, ...]:
    configured = DEFAULT_ENV_PATHS if toml.env_path is None else tuple(toml.env_path)
    return tuple(os.path.abspath(cwd / path) for path in overrides.env_paths or configured)


def _allowed_env(loaded: LoadedConfig) -> tuple[str, ...]:
    definitions = [Definition(key, table, loaded.documents[key]) for key, table in loaded.toml.experts.items()]
    named = {variable for definition in definitions for _, variable in definition.required_env()}
    return tuple(sorted(named - SECRET_VARIABLES))


def _provider_advice(loaded: LoadedConfig, settings: ModelSettings, used: Sequence[Definition]) -> Iterator[str]:
    table = loaded.toml.provider
    configured = table.provider_name if table else DEFAULT_PROVIDER
    if settings.provider == configured:
        return
    if table is not None and table.setting is not None:
        where = loaded.document.where(("provider", "setting"))
        yield f"{where}: [provider.setting] belongs to {configured} and is not used with {settings.provider}"
    uses_model = any(definition.table.default_model_tier is None for definition in used)
    if settings.model and not settings.model_override and uses_model:
        where = loaded.document.where(("model",))
        yield f"{where}: `model` was written for {configured}; give --model when {settings.provider} has another name"


def _option_advice(used: Sequence[Definition], provider: ProviderName) -> Iterator[str]:
    for definition in used:
        for option in unused_options(definition.table, provider):
            where = definition.document.where((*definition.path, "providerToolOptions"))
            yield f"{where}: providerToolOptions.{option} is not used: no tool of {provider} here takes it"


def _base_tools(expert: Expert) -> set[str]:
    """The names that the base skill takes in a run of `expert`."""
    skill = next((skill for skill in expert.skills if skill.name == BASE_SKILL), None)
    pick, omit = (skill.pick, skill.omit) if isinstance(skill, McpStdioSkill) else ((), ())
    return {name for name in BASE_TOOL_NAMES if (not pick or name in pick) and name not in omit}


def _name_advice(used: Sequence[Definition], experts: dict[str, Expert]) -> Iterator[str]:
    for definition in used:
        delegates = definition.table.delegates
        expert = experts[definition.key]
        for spec in delegate_tools(expert.delegates, experts, _base_tools(expert)):
            name = experts[spec.skill_name].name.rpartition("/")[2]
            if spec.name != name:
                where = definition.document.where((*definition.path, "delegates", delegates.index(spec.skill_name)))
                yield f"{where}: another tool is called `{name}`, so {spec.skill_name} is offered as `{spec.name}`"
