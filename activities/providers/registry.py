"""Providers by configuration: made on first use, shared by every run of a worker, closed with it."""

import asyncio
import hashlib
import importlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

from pydantic_core import to_json

from ...core.expert import ProviderName
from ...core.failures import CredentialError, DefinitionError
from ...core.profiles.provider import ProviderProfile
from ...core.profiles.providers import PROVIDERS
from .base import Provider
from .chains import aws_problem, google_problem

PROXY_VARIABLE = "PERSTACK_PROXY_URL"
_PATHS = frozenset({"GOOGLE_APPLICATION_CREDENTIALS"})
"""Credentials by the path of their file, which never is in a header."""
Factory = Callable[[ProviderName, Mapping[str, str], Mapping[str, Any]], Provider]


def require_credentials(provider: ProviderName, env: Mapping[str, str], setting: Mapping[str, Any]) -> None:
    """Check before a run starts that `provider` can be used; imports no SDK.

    Raises:
        CredentialError: a variable is not set, or holds what no header can carry.
        DefinitionError: this release does not speak to `provider`.
    """
    profile = _profile(provider)
    for name in profile.required_env:
        _require(name, env)
    for name in profile.credentials:
        value = "" if name in _PATHS else env.get(name, "").strip()
        if not (value.isascii() and value.isprintable()):
            raise CredentialError(f"{name} holds characters that cannot be sent in a header")
    match provider:
        case "azure-openai":
            if not (setting.get("resourceName") or setting.get("baseUrl") or env.get("AZURE_BASE_URL", "").strip()):
                _require("AZURE_RESOURCE_NAME", env, "resourceName")
        case "amazon-bedrock":
            if problem := aws_problem(env, setting):
                raise problem
        case "google-vertex":
            if problem := google_problem(env, setting):
                raise problem
        case _:
            pass


def _require(name: str, env: Mapping[str, str], setting: str = "") -> None:
    if not env.get(name, "").strip():
        hint = f"Set it in the environment or in an env file: {name}=…"
        if setting:
            hint = f"{hint} Or set `{setting}` in [provider.setting]."
        raise CredentialError(f"{name} is not set", hint=hint)


def warm_up(provider: ProviderName) -> None:
    """Start importing the SDK in the background: it takes about a second, best spent waiting for something else."""
    module = _module(_profile(provider))
    threading.Thread(target=importlib.import_module, args=(module, __package__), daemon=True).start()


class ProviderRegistry:
    """The providers of one worker; one per full configuration, credentials and proxy included."""

    def __init__(self) -> None:
        self._providers: dict[str, Provider] = {}

    def provider(self, name: ProviderName, *, env: Mapping[str, str], setting: Mapping[str, Any]) -> Provider:
        """The provider for this configuration.

        Raises:
            CredentialError: a required variable is missing.
            DefinitionError: this release does not speak to the provider.
        """
        profile = _profile(name)
        require_credentials(name, env, setting)
        key = _fingerprint(name, profile, env, setting)
        if key not in self._providers:
            module = importlib.import_module(_module(profile), __package__)
            create: Factory = module.create_provider
            self._providers[key] = create(name, env, setting)
        return self._providers[key]

    async def close(self) -> None:
        """Close every provider; the registry may be used again afterwards."""
        providers = tuple(self._providers.values())
        self._providers.clear()
        await asyncio.gather(*(provider.close() for provider in providers))


def _profile(provider: ProviderName) -> ProviderProfile:
    profile = PROVIDERS.get(provider)
    if profile is None:
        known = ", ".join(f"`{name}`" for name in PROVIDERS)
        raise DefinitionError(
            f"Provider `{provider}` is not supported by this release",
            code="definition.unsupported_provider",
            hint=f"Supported: {known}.",
        )
    return profile


def _module(profile: ProviderProfile) -> str:
    return f".{profile.module}"


def _fingerprint(name: str, profile: ProviderProfile, env: Mapping[str, str], setting: Mapping[str, Any]) -> str:
    """Identifies a configuration without holding its secrets."""
    variables = (*profile.credentials, *profile.required_env, *profile.optional_env, profile.base_url_env)
    values = {variable: env.get(variable) for variable in (*variables, PROXY_VARIABLE) if variable}
    return hashlib.sha256(to_json([name, values, sorted(setting.items())])).hexdigest()
