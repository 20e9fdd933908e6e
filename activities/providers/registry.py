"""Providers by configuration: made on first use, shared by every run of a worker, closed with it."""

import asyncio
import hashlib
import importlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic_core import to_json

from ...core.expert import ProviderName
from ...core.failures import CredentialError, DefinitionError
from .base import Provider

PROXY_VARIABLE = "PERSTACK_PROXY_URL"
Factory = Callable[[Mapping[str, str], Mapping[str, Any]], Provider]


@dataclass(frozen=True, slots=True)
class _Family:
    """What is known of a provider without importing its SDK."""

    module: str
    """A module of this package with a `create_provider(env, setting)`."""
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


_FAMILIES: Mapping[str, _Family] = MappingProxyType(
    {"anthropic": _Family("anthropic", ("ANTHROPIC_API_KEY",), ("ANTHROPIC_BASE_URL",))}
)


def require_credentials(provider: ProviderName, env: Mapping[str, str], setting: Mapping[str, Any]) -> None:
    """Check before a run starts that `provider` can be used; imports no SDK.

    Raises:
        CredentialError: a variable is not set, or holds what no header can carry.
        DefinitionError: this release does not speak to `provider`.
    """
    del setting  # no provider of this release takes a required value from it
    for name in _family(provider).required:
        value = env.get(name, "").strip()
        if not value:
            raise CredentialError(f"{name} is not set", hint=f"Set it in the environment or in an env file: {name}=…")
        if not (value.isascii() and value.isprintable()):
            raise CredentialError(f"{name} holds characters that cannot be sent in a header")


def warm_up(provider: ProviderName) -> None:
    """Start importing the SDK in the background: it takes about a second, best spent waiting for something else."""
    name = _module(_family(provider))
    threading.Thread(target=importlib.import_module, args=(name, __package__), daemon=True).start()


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
        family = _family(name)
        require_credentials(name, env, setting)
        key = _fingerprint(name, family, env, setting)
        if key not in self._providers:
            module = importlib.import_module(_module(family), __package__)
            create: Factory = module.create_provider
            self._providers[key] = create(env, setting)
        return self._providers[key]

    async def close(self) -> None:
        """Close every provider; the registry may be used again afterwards."""
        providers = tuple(self._providers.values())
        self._providers.clear()
        await asyncio.gather(*(provider.close() for provider in providers))


def _family(provider: ProviderName) -> _Family:
    family = _FAMILIES.get(provider)
    if family is None:
        known = ", ".join(f"`{name}`" for name in _FAMILIES)
        raise DefinitionError(
            f"Provider `{provider}` is not supported by this release",
            code="definition.unsupported_provider",
            hint=f"Supported: {known}.",
        )
    return family


def _module(family: _Family) -> str:
    return f".{family.module}"


def _fingerprint(name: str, family: _Family, env: Mapping[str, str], setting: Mapping[str, Any]) -> str:
    """Identifies a configuration without holding its secrets."""
    values = {variable: env.get(variable) for variable in (*family.required, *family.optional, PROXY_VARIABLE)}
    return hashlib.sha256(to_json([name, values, sorted(setting.items())])).hexdigest()
