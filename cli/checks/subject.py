"""What is to be checked, read once and as far as it can be read: the definition, its env files, its experts."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...activities.redaction import Redactor, secrets_of_run
from ...core.expert import McpStdioSkill, ProviderName
from ...core.failures import PerstackError
from ...core.profiles.providers import PROVIDERS
from ...core.run import RUNTIME_LEVEL
from ...definitions.checks import SECRET_VARIABLES
from ...definitions.environment import DEFAULT_ENV_PATHS, read_env
from ...definitions.hosts import AllowedEndpoints, allowed_endpoints
from ...definitions.load import BUILTIN_EXPERT, LoadedConfig, load_config
from ...definitions.place import find_config
from ...definitions.resolve import (
    LocalExperts,
    check_runtime,
    env_files,
    local_experts,
    provider_in_use,
    reachable_definitions,
)

_SHOWN = {profile.base_url_env for profile in PROVIDERS.values()} | {"TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE"}
"""Variables that are shown on purpose, as far as they are no secret."""


@dataclass(frozen=True, kw_only=True)
class EnvFile:
    """One env file and what it sets."""

    path: str
    values: Mapping[str, str]
    error: PerstackError | None = None


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Everything that the checks of definition, provider and skills look at."""

    workspace: Path
    is_builtin: bool
    """There is no definition here; the experts that ship with Perstack stand in."""
    loaded: LoadedConfig | None
    local: LocalExperts | None
    problem: PerstackError | None
    """Why there is no definition, or why its experts cannot run."""
    provider: ProviderName | None
    provider_setting: Mapping[str, Any] = field(default_factory=dict[str, Any])
    files: tuple[EnvFile, ...]
    env: Mapping[str, str]
    """Of a run: the host's variables, then the files'."""
    allowed: AllowedEndpoints

    @property
    def file_env(self) -> dict[str, str]:
        """What the env files set, whether or not the host goes before."""
        values: dict[str, str] = {}
        for file in self.files:
            values = {**file.values, **values}
        return values

    def redactor(self) -> Redactor:
        """Takes every value out that may be secret, but for the addresses that are to be shown."""
        experts = self.local.experts.values() if self.local else ()
        skills = (skill for expert in experts for skill in expert.skills)
        required = {name for skill in skills if isinstance(skill, McpStdioSkill) for name in skill.required_env}
        secrets: set[str] = set()
        # Each file for itself: a value that another one hides is secret, too.
        for file in self.files or (EnvFile(path="", values={}),):
            secrets |= secrets_of_run(
                {name: value for name, value in file.values.items() if name not in _SHOWN},
                os.environ,
                required_env=required,
                credentials=SECRET_VARIABLES | {"TEMPORAL_API_KEY"},
                workspace=str(self.workspace),
            )
        return Redactor(secrets)


def read_subject(
    config: str | None, *, env_paths: Sequence[str], provider: ProviderName | None, workspace: Path
) -> Subject:
    """Read what there is; whatever is wrong with it is part of the answer."""
    allowed = _allowed()
    loaded: LoadedConfig | None = None
    local: LocalExperts | None = None
    problem: PerstackError | None = None
    is_builtin = config is None and find_config(workspace) is None
    try:
        loaded = load_config(config, cwd=workspace, expert_key=BUILTIN_EXPERT if is_builtin else None, allowed=allowed)
        check_runtime(reachable_definitions(loaded.own_experts, loaded), RUNTIME_LEVEL)
        local = local_experts(loaded, env_paths=env_paths, provider=provider, cwd=workspace)
    except PerstackError as error:
        problem = error
    setting: dict[str, Any] = {}
    if loaded is not None:
        provider, setting = provider_in_use(loaded.toml, provider)
        paths = env_files(loaded.toml, env_paths, cwd=workspace)
    else:
        paths = tuple(os.path.abspath(workspace / path) for path in env_paths or DEFAULT_ENV_PATHS)
    files = tuple(map(_env_file, paths))
    readable = [file.path for file in files if file.error is None]
    return Subject(
        workspace=workspace,
        is_builtin=is_builtin,
        loaded=loaded,
        local=local,
        problem=problem,
        provider=provider,
        provider_setting=setting,
        files=files,
        env=read_env(readable, os.environ),
        allowed=allowed,
    )


def _env_file(path: str) -> EnvFile:
    try:
        return EnvFile(path=path, values=read_env((path,), {}))
    except PerstackError as error:
        return EnvFile(path=path, values={}, error=error)


def _allowed() -> AllowedEndpoints:
    try:
        return allowed_endpoints(os.environ)
    except PerstackError:
        return frozenset()  # the settings have a check of their own
