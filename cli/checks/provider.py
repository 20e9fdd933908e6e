"""The model provider: credentials by name and source, never by value. No request is made."""

import os
from collections.abc import Iterator, Mapping

import httpx2

from ...activities.providers.registry import PROXY_VARIABLE, require_credentials
from ...activities.providers.transport import base_url_of, proxy_of, secrets_of
from ...core.failures import CredentialError, PerstackError
from ...core.profiles.provider import ProviderProfile
from ...core.profiles.providers import PROVIDERS
from ..diagnostics import ExitCode
from .report import Check, failed, passed, unneeded
from .subject import Subject

_LABEL = "provider"


def provider_checks(subject: Subject) -> Iterator[Check]:
    """The provider in use, its credentials and address, and which other ones have credentials."""
    name = subject.provider
    if name is None:
        yield unneeded(_LABEL, "not known while the definition cannot be read; --provider names one")
    else:
        yield from _address_checks(subject, name)
        yield from _credential_checks(subject, name)
    others = [other for other in PROVIDERS if other != name and _is_ready(other, subject.env)]
    if others:
        yield unneeded("others", f"providers that have credentials, too: {', '.join(others)}")


def _address_checks(subject: Subject, name: str) -> Iterator[Check]:
    profile = PROVIDERS[name]
    url = base_url_of(profile, subject.env, subject.provider_setting)
    source = _address_source(subject, profile)
    try:
        secrets_of(profile, {}, url, headers={})
    except CredentialError:
        # The error quotes the URL, which may hold a password.
        yield failed(_LABEL, CredentialError(f"{source} is not an http or https URL"), hint=f"Correct {source}.")
    else:
        where = f" at {_shown(url)} ({source})" if url else ""
        yield passed(_LABEL, f"{name}{where}; not contacted")
    proxy = proxy_of(subject.env)
    if not proxy:
        return
    try:
        secrets_of(profile, {PROXY_VARIABLE: proxy}, headers={})
        yield passed(_LABEL, f"calls go through {_shown(proxy)} ({PROXY_VARIABLE})")
    except CredentialError:
        error = CredentialError(f"{PROXY_VARIABLE} is not the URL of a proxy")
        yield failed(_LABEL, error, hint=f"Correct or unset {PROXY_VARIABLE}.")


def _address_source(subject: Subject, profile: ProviderProfile) -> str:
    if subject.provider_setting.get("baseUrl"):
        return "baseUrl in [provider.setting]"
    if subject.env.get(profile.base_url_env, "").strip():
        return f"{profile.base_url_env} {_source(subject, profile.base_url_env)}"
    return "its default address"


def _credential_checks(subject: Subject, name: str) -> Iterator[Check]:
    profile = PROVIDERS[name]
    label = "credentials"
    is_set = {one: bool(subject.env.get(one, "").strip()) for one in (*profile.required_env, *profile.credentials)}
    for one, found in is_set.items():
        if found:
            yield passed(label, f"{one} is set {_source(subject, one)}")
    missing = [one for one in profile.required_env if not is_set[one]]
    for one in missing:
        hint = f"Set it in the environment or in an env file: {one}=…"
        yield failed(label, CredentialError(f"{one} is not set", hint=hint))
    try:
        if not missing:
            require_credentials(name, subject.env, subject.provider_setting)
    except PerstackError as error:
        hint = "Set it anew, without line breaks and signs beyond ASCII."
        yield failed(label, error, code=ExitCode.PROVIDER, hint=hint)
        return
    if not is_set:
        yield unneeded(label, f"{name} needs none")
    elif not any(is_set.values()) and not missing:
        yield passed(label, f"no variable, but {profile.title} finds some in its own files or on this machine")


def _is_ready(name: str, env: Mapping[str, str]) -> bool:
    if not PROVIDERS[name].credentials:
        return False
    try:
        require_credentials(name, env, {})
    except PerstackError:
        return False
    return True


def _source(subject: Subject, variable: str) -> str:
    """Where the value in use comes from."""
    if os.environ.get(variable):
        return "in the environment"
    return next((f"in {file.path}" for file in subject.files if file.values.get(variable)), "")


def _shown(url: str) -> str:
    """A URL without what may be secret in it: user, path, query."""
    parsed = httpx2.URL(url)
    host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
    port = f":{parsed.port}" if parsed.port else ""
    return f"{parsed.scheme}://{host}{port}{'/…' if parsed.path.strip('/') else ''}"
