"""The rules a definition must keep beyond its shape: names, scopes, skills, endpoints, provider settings."""

import json
import re
from collections.abc import Iterator
from typing import assert_never, cast
from urllib.parse import SplitResult, urlsplit

from ..core.expert import BASE_SKILL, ProviderName
from ..core.failures import DefinitionError
from ..core.ids import parse_expert_key
from ..core.models import DEFAULT_PROVIDER
from ..core.profiles.providers import PROVIDERS
from .document import Issue, KeyPath
from .hosts import AllowedEndpoints, domain_problem, is_lookalike, is_public_address, plain_host
from .keys import looks_secret
from .protected import is_protected
from .schema import (
    CustomProviderSkill,
    ExpertTable,
    InteractiveSkillTable,
    InteractiveToolTable,
    PerstackToml,
    ProviderTable,
    SkillTable,
    SseSkillTable,
    StdioSkillTable,
)

MAX_NAME = 255
_NUMBER = r"(?:0|[1-9][0-9]*)"
_SEMVER = rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-[\w.-]+)?(?:\+[\w.-]+)?"
_VERSION = re.compile(_SEMVER, re.ASCII)
_RUNTIME_VERSION = re.compile(rf"v{_NUMBER}\.{_NUMBER}|{_SEMVER}", re.ASCII)
_NAME = re.compile(r"(@[a-z0-9][a-z0-9_-]*/)?[a-z0-9][a-z0-9_-]*")
_TAG = re.compile(r"[a-z0-9][a-z0-9_-]*")
_HTTP_PORTS = {"http": 80, "https": 443}
_VARIABLE = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_-]*")
SECRET_VARIABLES = frozenset(name for profile in PROVIDERS.values() for name in profile.credentials) | {
    "ANTHROPIC_AUTH_TOKEN",
    "PERSTACK_API_KEY",
}
"""What a definition made while a job runs may never require."""


def rule_issues(toml: PerstackToml, *, allowed: AllowedEndpoints = frozenset()) -> Iterator[Issue]:
    """Every broken rule of a well-shaped file; `allowed` are endpoints beyond the public ones."""
    url = toml.perstack_api_base_url
    if url is not None and not _is_https(url):
        yield Issue(("perstackApiBaseUrl",), "perstackApiBaseUrl must use HTTPS")
    if toml.provider is not None:
        yield from _provider_issues(toml.provider)
    for key, expert in toml.experts.items():
        yield from _expert_issues(key, expert, set(toml.experts), allowed)


def delegation_problem(parent: str, delegate: str) -> str | None:
    """The scoping rule that forbids `parent` to delegate to `delegate`, or `None`."""
    from_key, to_key = parse_expert_key(parent), parse_expert_key(delegate)
    if from_key is None or to_key is None:
        return f"Invalid expert key format: {delegate if from_key else parent}"
    own = from_key.scope or from_key.name
    if from_key.name == to_key.name:
        rule = "an expert cannot delegate to itself"
    elif to_key.scope is None and to_key.name == from_key.scope:
        rule = "a delegate cannot delegate to its own coordinator"
    elif to_key.scope is None or to_key.scope == own:
        return None
    elif from_key.scope is None:
        rule = f"a coordinator may delegate to its own delegates (`@{own}/…`) and to other coordinators only"
    else:
        rule = f"a delegate may delegate to delegates of its own scope (`@{own}/…`) and to other coordinators only"
    return f'"{parent}" cannot delegate to "{delegate}": {rule}'


def check_delegation(parent: str, delegate: str) -> None:
    """Refuses a delegation that the scoping rules forbid; for delegates attached while a job runs.

    Raises:
        DefinitionError: naming both keys and the rule.
    """
    if problem := delegation_problem(parent, delegate):
        raise DefinitionError(problem, code="definition.scope")


def _is_https(url: str) -> bool:
    parts = split_url(url)
    return parts is not None and parts.scheme == "https" and bool(parts.hostname)


def split_url(url: str) -> SplitResult | None:
    """The parts of a URL, or `None` when it cannot be read as one."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return None if re.search(r"[\s\\]", url) else parts


def _provider_issues(provider: ProviderTable) -> Iterator[Issue]:
    path: KeyPath = ("provider", "setting")
    setting = provider.setting
    if setting is None:
        return
    base_url = setting.base_url
    if base_url is not None and "baseUrl" in PROVIDERS[provider.provider_name].setting_keys:
        parts = split_url(base_url)
        if not PROVIDERS[provider.provider_name].takes_http and not _is_https(base_url):
            yield Issue((*path, "baseUrl"), "URL must use HTTPS")
        elif parts is not None and (parts.username or parts.password):
            yield Issue(
                (*path, "baseUrl"),
                "a URL with a user name or password must not stand in a definition",
                code="definition.credential",
                hint=_credential_hint(provider.provider_name),
            )
    for name, value in (setting.headers or {}).items():
        if looks_secret(name) or re.match(r"(?i)(bearer|basic)\s", value):
            yield Issue(
                (*path, "headers", name),
                f"header `{name}` looks like a credential; settings are recorded with every run, secrets never are",
                code="definition.credential",
                hint=_credential_hint(provider.provider_name),
            )


def _credential_hint(provider: ProviderName) -> str:
    names = ", ".join(PROVIDERS[provider].credentials)
    return f"Set {names} in the environment or in an env file." if names else "Use the environment for credentials."


def credential_hint(provider: object) -> str:
    """Where a credential belongs instead, for whatever stands as the provider's name."""
    return _credential_hint(provider if isinstance(provider, str) and provider in PROVIDERS else DEFAULT_PROVIDER)


def _expert_issues(key: str, expert: ExpertTable, keys: set[str], allowed: AllowedEndpoints) -> Iterator[Issue]:
    path: KeyPath = ("experts", key)
    parsed = parse_expert_key(key)
    if parsed is None:
        yield Issue(path, f"Invalid expert key format: {key}")
    elif len(parsed.name) > MAX_NAME or not _NAME.fullmatch(parsed.name):
        yield Issue(path, f"`{parsed.name}` is not an expert name: lower-case letters, digits, `_` and `-`, no dots")
    elif len(parsed.version or parsed.tag or "") > MAX_NAME:
        yield Issue(path, f"a version or tag has at most {MAX_NAME} characters")
    if len(expert.version) > MAX_NAME or not _VERSION.fullmatch(expert.version):
        yield Issue((*path, "version"), f"{expert.version!r} is not a semantic version such as 1.0.0")
    runtime = expert.min_runtime_version
    if runtime is not None and not _RUNTIME_VERSION.fullmatch(runtime):
        yield Issue((*path, "minRuntimeVersion"), f"{runtime!r} is not a version such as v1.0 or 1.0.0")
    for index, tag in enumerate(expert.tags):
        if len(tag) > MAX_NAME or not _TAG.fullmatch(tag):
            yield Issue((*path, "tags", index), f"{tag!r} is not a tag: lower-case letters, digits, `_` and `-`")
    if parsed is not None:
        yield from _delegate_issues(path, key, expert.delegates, keys)
    for name, skill in (expert.skills or {}).items():
        yield from _skill_issues((*path, "skills", name), name, skill, allowed)
    yield from _provider_skill_issues(path, expert)


def _delegate_issues(path: KeyPath, key: str, delegates: list[str], keys: set[str]) -> Iterator[Issue]:
    for index, delegate in enumerate(delegates):
        here = (*path, "delegates", index)
        parsed = parse_expert_key(delegate)
        if parsed is None:
            yield Issue(here, f"Invalid expert key format: {delegate}")
        elif delegate not in keys and (parsed.version or parsed.tag):
            continue  # A pinned key names the registry, where "@org/name" is an owner and not a coordinator.
        elif problem := delegation_problem(key, delegate):
            yield Issue(here, problem, code="definition.scope")


def _provider_skill_issues(path: KeyPath, expert: ExpertTable) -> Iterator[Issue]:
    for index, skill in enumerate(expert.provider_skills or []):
        here = (*path, "providerSkills", index, "definition")
        if not isinstance(skill, CustomProviderSkill):
            continue
        if problem := _json_problem(skill.definition):
            yield Issue(here, f'Invalid JSON in custom skill definition for "{skill.name}": {problem}')
        elif not isinstance(json.loads(skill.definition), dict):
            yield Issue(here, f'The custom skill definition for "{skill.name}" must be a JSON object')


def _json_problem(text: str) -> str | None:
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        return str(error)
    return None


def _skill_issues(path: KeyPath, name: str, skill: SkillTable, allowed: AllowedEndpoints) -> Iterator[Issue]:
    if not 1 <= len(name) <= MAX_NAME:
        yield Issue(path, f"a skill name has 1 to {MAX_NAME} characters")
    if name == BASE_SKILL and not isinstance(skill, StdioSkillTable):
        yield Issue((*path, "type"), f"`{BASE_SKILL}` is part of Perstack and always of type mcpStdioSkill")
        return
    match skill:
        case StdioSkillTable():
            yield from _stdio_issues(path, name, skill)
        case SseSkillTable():
            yield from _endpoint_issues((*path, "endpoint"), name, skill.endpoint, allowed)
        case InteractiveSkillTable():
            for tool_name, tool in skill.tools.items():
                yield from _tool_issues((*path, "tools", tool_name), tool_name, tool)
            return
        case _:
            assert_never(skill)
    for index, pattern in enumerate(skill.allowed_domains):
        if problem := domain_problem(pattern):
            yield Issue((*path, "allowedDomains", index), problem)


def _stdio_issues(path: KeyPath, name: str, skill: StdioSkillTable) -> Iterator[Issue]:
    for index, variable in enumerate(skill.required_env):
        if len(variable) > MAX_NAME or not _VARIABLE.fullmatch(variable):
            yield Issue((*path, "requiredEnv", index), f"{variable!r} is not the name of an environment variable")
        elif is_protected(variable):
            yield Issue(
                (*path, "requiredEnv", index),
                f"{variable} cannot be required: it decides what code runs, or whom it trusts",
            )
    if name == BASE_SKILL:
        return
    if not (skill.command or "").strip():
        yield Issue((*path, "command") if skill.command is not None else path, f"Skill {name} has no command")
    if skill.package_name and skill.args:
        yield Issue(path, f"Skill {name} has both packageName and args. Please provide only one of them.")
    if not skill.package_name and not skill.args:
        yield Issue(path, f"Skill {name} has no packageName or args. Please provide one of them.")


def _endpoint_issues(path: KeyPath, name: str, endpoint: str, allowed: AllowedEndpoints) -> Iterator[Issue]:
    parts = split_url(endpoint)
    port = _HTTP_PORTS.get(parts.scheme) if parts else None
    is_allowed = bool(parts and port and (plain_host(parts.hostname or ""), parts.port or port) in allowed)
    if parts is None or not parts.hostname:
        yield Issue(path, "SSE endpoint must be a public HTTPS URL")
    elif parts.scheme != "https" and not is_allowed:
        yield Issue(path, f"Skill {name} SSE endpoint must use HTTPS: {endpoint}")
    elif parts.username or parts.password:
        yield Issue(
            path, f"Skill {name} SSE endpoint must not carry a user name or password", code="definition.credential"
        )
    elif not is_allowed and not is_public_address(parts.hostname):
        yield Issue(path, _host_problem(name, parts.hostname, endpoint))


def _host_problem(name: str, host: str, endpoint: str) -> str:
    if is_lookalike(host):
        return (
            f"Skill {name} SSE endpoint has a punycode host, refused against look-alike (homograph) names: {endpoint}"
        )
    return f"Skill {name} SSE endpoint cannot use private/local IP: {endpoint}"


def _tool_issues(path: KeyPath, name: str, tool: InteractiveToolTable) -> Iterator[Issue]:
    if not 1 <= len(name) <= MAX_NAME:
        yield Issue(path, f"a tool name has 1 to {MAX_NAME} characters")
    path = (*path, "inputJsonSchema")
    if problem := _json_problem(tool.input_json_schema):
        yield Issue(path, f"is not JSON: {problem}")
        return
    schema: object = json.loads(tool.input_json_schema)
    if not isinstance(schema, dict):
        yield Issue(path, "must be a JSON Schema object")
    elif problem := _schema_problem(cast("dict[str, object]", schema)):
        yield Issue(path, f"is not a JSON Schema: {problem}")


def _schema_problem(schema: dict[str, object]) -> str | None:
    # Costs 0.1 s to import, and few definitions have interactive tools.
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return error.message
    if schema.get("type", "object") != "object":
        return 'the arguments of a tool are an object, so "type" must be "object"'
    return None
