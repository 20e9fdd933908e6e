"""Finding, reading and checking `perstack.toml`; every refusal names file, line and key path."""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.expert import BASE_SKILL
from ..core.failures import DefinitionError, UsageError
from .checks import credential_hint, rule_issues, split_url
from .document import Document, Issue, KeyPath, definition_error
from .hosts import AllowedEndpoints
from .keys import UnknownKey, unknown_keys
from .place import CONFIG_NAME, find_config
from .schema import PerstackToml, StdioSkillTable, parse_tables

if TYPE_CHECKING:
    import httpx2

BUILTIN_EXPERT = "create-expert"
REMOTE_HOST = "raw.githubusercontent.com"
MAX_CONFIG_BYTES = 4 * 1024 * 1024
_FETCH_SECONDS = 15.0


@dataclass(frozen=True)
class LoadedConfig:
    """A checked configuration, the built-in experts included."""

    source: str
    """Path or URL."""
    directory: Path | None
    """Where the file and its `perstack.lock` are; `None` for a remote or built-in one."""
    toml: PerstackToml
    warnings: tuple[str, ...]
    documents: Mapping[str, Document]
    """The file each expert comes from, by expert key."""
    document: Document
    """The file of everything but the experts."""

    @property
    def own_experts(self) -> tuple[str, ...]:
        """Keys of the experts this file defines itself."""
        return tuple(key for key, document in self.documents.items() if document is self.document)


def load_config(
    config: str | None, *, cwd: Path, expert_key: str | None = None, allowed: AllowedEndpoints = frozenset()
) -> LoadedConfig:
    """The configuration named by `config`, else the nearest `perstack.toml` above `cwd`, else a built-in one.

    `allowed` are the endpoints that a skill may have beyond the public ones (`hosts.allowed_endpoints`).

    Raises:
        UsageError: nothing found, or what was found cannot be read.
        DefinitionError: the file is not a valid definition.
    """
    if config is None:
        path = find_config(cwd)
        if path is None:
            return _builtin_config(expert_key)
        return _with_builtin(
            load_text(_read(path, str(path)), source=str(path), directory=path.parent, allowed=allowed)
        )
    if re.match(r"(?i)https?://", config):
        return _with_builtin(load_text(fetch_remote(config), source=config, allowed=allowed))
    path = Path(os.path.abspath(cwd / config))
    return _with_builtin(load_text(_read(path, config), source=str(path), directory=path.parent, allowed=allowed))


def _builtin_config(expert_key: str | None) -> LoadedConfig:
    builtin = builtin_config()
    if expert_key in builtin.toml.experts:
        return builtin
    raise UsageError(
        "perstack.toml not found. Create one or specify --config path.",
        code="usage.config_not_found",
        hint=f'`perstack run {BUILTIN_EXPERT} "<what the team is for>"` writes one for you.',
    )


@cache
def builtin_config() -> LoadedConfig:
    """The experts that ship with Perstack."""
    resource = files(__package__ or "perstack.definitions").joinpath(BUILTIN_EXPERT, CONFIG_NAME)
    return load_text(resource.read_bytes(), source=str(resource))


def _with_builtin(loaded: LoadedConfig) -> LoadedConfig:
    builtin = builtin_config()
    experts = {**builtin.toml.experts, **loaded.toml.experts}
    own = loaded.documents
    return LoadedConfig(
        source=loaded.source,
        directory=loaded.directory,
        toml=loaded.toml.model_copy(update={"experts": experts}),
        warnings=loaded.warnings,
        documents={key: own.get(key, builtin.document) for key in experts},
        document=loaded.document,
    )


def _read(path: Path, shown: str) -> bytes:
    if os.path.isdir(path):
        has_config = os.path.isfile(path / CONFIG_NAME)
        hint = f"Give the file: --config {Path(shown) / CONFIG_NAME}" if has_config else None
        raise UsageError(f'Given config path "{shown}" is a directory', code="usage.config_unreadable", hint=hint)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f'Given config path "{shown}" is not found', code="usage.config_not_found") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f'Given config path "{shown}" cannot be read: {reason}', code="usage.config_unreadable"
        ) from None
    if len(content) > MAX_CONFIG_BYTES:
        raise UsageError(
            f'Given config path "{shown}" is larger than {MAX_CONFIG_BYTES // 1024 // 1024} MiB',
            code="usage.config_unreadable",
        )
    return content


def fetch_remote(url: str, *, transport: "httpx2.BaseTransport | None" = None) -> bytes:
    """The bytes behind a remote configuration; one host, HTTPS, no redirects.

    Raises:
        UsageError: the URL is refused or cannot be fetched.
    """
    checked = _checked_url(url)
    import httpx2

    try:
        with (
            httpx2.Client(transport=transport, follow_redirects=False, timeout=_FETCH_SECONDS) as client,
            client.stream("GET", checked) as response,
        ):
            if response.is_redirect:
                raise _fetch_error(f"redirects are refused ({response.status_code} {response.reason_phrase})")
            if response.status_code != 200:
                raise _fetch_error(f"{response.status_code} {response.reason_phrase}")
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > MAX_CONFIG_BYTES:
                    raise _fetch_error(f"it is larger than {MAX_CONFIG_BYTES // 1024 // 1024} MiB")
            return bytes(content)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise _fetch_error(str(error) or type(error).__name__) from None


def _checked_url(url: str) -> str:
    parts = split_url(url)
    if parts is None or not parts.hostname:
        raise UsageError(f"Invalid remote config URL: {url}", code="usage.remote_config")
    if parts.scheme != "https":
        raise UsageError("Remote config requires HTTPS", code="usage.remote_config")
    if parts.netloc.lower() != REMOTE_HOST:
        raise UsageError(f"Remote config only allowed from: {REMOTE_HOST}", code="usage.remote_config")
    return url


def _fetch_error(reason: str) -> UsageError:
    return UsageError(f"Failed to fetch remote config: {reason}", code="usage.remote_config")


def load_text(
    content: bytes | str, *, source: str, directory: Path | None = None, allowed: AllowedEndpoints = frozenset()
) -> LoadedConfig:
    """One file, checked as a whole, without the built-in experts; `allowed` are endpoints beyond the public ones.

    Raises:
        DefinitionError: every problem found, each with line and key path.
    """
    text = content if isinstance(content, str) else _decoded(content, source)
    return load_document(Document(source, _parsed(text, source), text), directory=directory, allowed=allowed)


def load_document(
    document: Document, *, directory: Path | None = None, allowed: AllowedEndpoints = frozenset()
) -> LoadedConfig:
    """A parsed file, checked as a whole."""
    unknown = unknown_keys(document.raw)
    issues = list(_key_issues(document, unknown))
    parsed = parse_tables(document.raw)
    if isinstance(parsed, PerstackToml):
        issues += rule_issues(parsed, allowed=allowed)
    else:
        meant = {(*key.path[:-1], key.meant) for key in unknown if key.meant}
        issues += [issue for issue in parsed if issue.path not in meant]
    if issues or not isinstance(parsed, PerstackToml):
        raise definition_error(document, issues)
    warnings = [f"{document.where(key.path)}: {key.message}" for key in unknown]
    warnings += [f"{document.where(path)}: {message}" for path, message in _base_skill_advice(parsed)]
    return LoadedConfig(
        source=document.source,
        directory=directory,
        toml=parsed,
        warnings=tuple(warnings),
        documents=dict.fromkeys(parsed.experts, document),
        document=document,
    )


def _decoded(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DefinitionError(
            f"{source}:{line}: the file is not UTF-8 text (byte 0x{content[error.start]:02x})",
            code="definition.encoding",
            hint="Save the file as UTF-8.",
            details={"file": source, "line": line},
        ) from None


def _parsed(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "the tables are nested too deeply" if isinstance(error, RecursionError) else str(error)
        match = re.search(r"at line (\d+), column \d+\)$", reason)
        at_end = reason.endswith("(at end of document)")
        line = int(match[1]) if match else len(text.splitlines()) if at_end else None
        raise DefinitionError(
            f"{source}:{line}: {reason}" if line else f"{source}: {reason}",
            code="definition.syntax",
            details={"file": source, "line": line},
        ) from None


def _key_issues(document: Document, unknown: list[UnknownKey]) -> Iterator[Issue]:
    for key in unknown:
        if key.is_credential:
            # Only `[provider.setting]` has such keys, so `provider` is a table.
            hint = credential_hint(document.raw["provider"].get("providerName"))
            yield Issue(key.path, key.message, code="definition.credential", hint=hint)
        elif key.is_error:
            yield Issue(key.path, key.message, code="definition.unknown_key")


def _base_skill_advice(toml: PerstackToml) -> Iterator[tuple[KeyPath, str]]:
    for key, expert in toml.experts.items():
        skill = (expert.skills or {}).get(BASE_SKILL)
        if not isinstance(skill, StdioSkillTable):
            continue
        path: KeyPath = ("experts", key, "skills", BASE_SKILL)
        if any(text.startswith(f"{BASE_SKILL}@") for text in (skill.package_name or "", *skill.args)):
            yield path, f"the version of {BASE_SKILL} is ignored: it is part of Perstack"
        if skill.required_env:
            yield (*path, "requiredEnv"), f"requiredEnv of {BASE_SKILL} is ignored: it reads no variables"
        if skill.allowed_domains:
            yield (*path, "allowedDomains"), f"allowedDomains of {BASE_SKILL} is ignored: it never uses the network"
