"""Credential chains of clouds, looked at from outside: whether any member can be there at all.

No SDK and no network: what is found here may still be refused later, but what is missing is named before a run starts.
"""

import configparser
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ...core.failures import CredentialError

_KEY_PAIR = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_AWS_SIGNS = (
    "AWS_BEARER_TOKEN_BEDROCK",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_AMAZON_MACHINE = (("/sys/class/dmi/id/sys_vendor", "amazon ec2"), ("/sys/hypervisor/uuid", "ec2"))
_GOOGLE_FILE = "GOOGLE_APPLICATION_CREDENTIALS"
_GOOGLE_PROJECTS = ("GOOGLE_VERTEX_PROJECT", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT")
_GOOGLE_SIGNS = ("GCE_METADATA_HOST", "GCE_METADATA_IP", "K_SERVICE", "CLOUD_RUN_JOB")
_GOOGLE_MACHINE = "/sys/class/dmi/id/product_name"


def aws_problem(env: Mapping[str, str], setting: Mapping[str, Any]) -> CredentialError | None:
    """What certainly keeps Amazon's clients from working: half a key pair, no member of the chain, no region."""
    missing = [name for name in _KEY_PAIR if not _value(env, name)]
    if len(missing) == 1:
        return _unset(missing[0], "A key pair has two halves: set it too, or unset the other.")
    if missing and not _has_sign(env):
        return _unset(
            _KEY_PAIR[0],
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment or in an env file, or "
            "AWS_BEARER_TOKEN_BEDROCK, or AWS_PROFILE.",
        )
    if not aws_region(env, setting):
        return _unset("AWS_REGION", "Set it in the environment or in an env file, or `region` in [provider.setting].")
    return None


def aws_region(env: Mapping[str, str], setting: Mapping[str, Any]) -> str:
    """The region: `[provider.setting]`, then the variables, then the profile; empty where there is none."""
    given = str(setting.get("region") or "").strip() or _value(env, "AWS_REGION") or _value(env, "AWS_DEFAULT_REGION")
    return given or _region_of_profile(env)


def aws_profile(env: Mapping[str, str]) -> str:
    """The profile named by the environment, or nothing."""
    return _value(env, "AWS_PROFILE") or _value(env, "AWS_DEFAULT_PROFILE")


def aws_file(env: Mapping[str, str], variable: str, default: str) -> Path:
    """Where one of the shared files is, whether or not it exists."""
    path = _value(env, variable) or f"~/.aws/{default}"
    home = _value(env, "HOME")
    # `~` is the home of the merged environment, as every program that is started with it would read it.
    return Path(home, path[2:]) if home and path.startswith("~/") else Path(path).expanduser()


def _unset(name: str, hint: str) -> CredentialError:
    return CredentialError(f"{name} is not set", hint=hint)


def _value(env: Mapping[str, str], name: str) -> str:
    return env.get(name, "").strip()


def _has_sign(env: Mapping[str, str]) -> bool:
    if any(_value(env, name) for name in _AWS_SIGNS):
        return True
    files = (
        aws_file(env, "AWS_SHARED_CREDENTIALS_FILE", "credentials"),
        aws_file(env, "AWS_CONFIG_FILE", "config"),
    )
    return any(path.is_file() for path in files) or _is_amazon_machine(env)


def _is_amazon_machine(env: Mapping[str, str]) -> bool:
    if _value(env, "AWS_EC2_METADATA_DISABLED").lower() == "true":
        return False
    for path, words in _AMAZON_MACHINE:
        try:
            if Path(path).read_text(encoding="utf-8", errors="replace").lower().startswith(words):
                return True
        except OSError:
            continue
    return False


def _region_of_profile(env: Mapping[str, str]) -> str:
    profile = aws_profile(env) or "default"
    for variable, default in (("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")):
        parsed = configparser.RawConfigParser(strict=False)
        try:
            parsed.read_string(aws_file(env, variable, default).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, configparser.Error):
            continue
        for section in (f"profile {profile}", profile):
            if region := parsed.get(section, "region", fallback="").strip():
                return region
    return ""


def google_problem(env: Mapping[str, str], setting: Mapping[str, Any]) -> CredentialError | None:
    """What certainly keeps Google's clients from working: no member of the chain, a file that is none, no project."""
    named = _value(env, _GOOGLE_FILE)
    path = google_file(env)
    if path is None and not is_google_machine(env):
        hint = f"Name a file in {_GOOGLE_FILE}, or run `gcloud auth application-default login`."
        return CredentialError(f"{_GOOGLE_FILE} is not set, and there are no default credentials", hint=hint)
    if path is not None and _json_of(path) is None:
        what = _GOOGLE_FILE if named else "The default credentials of Google"
        return CredentialError(f"{what}: `{path}` is no readable file with credentials")
    if not google_project(env, setting) and not is_google_machine(env):
        hint = "Set it in the environment or in an env file, or `project` in [provider.setting]."
        return CredentialError("GOOGLE_VERTEX_PROJECT is not set", hint=hint)
    return None


def google_file(env: Mapping[str, str]) -> Path | None:
    """The file with credentials: the one that is named, or the one `gcloud` has left; the first may not exist."""
    if named := _value(env, _GOOGLE_FILE):
        return Path(named)
    home = Path(_value(env, "HOME") or Path.home())
    folder = Path(_value(env, "CLOUDSDK_CONFIG") or home / ".config" / "gcloud")
    path = folder / "application_default_credentials.json"
    return path if path.is_file() else None


def google_project(env: Mapping[str, str], setting: Mapping[str, Any]) -> str:
    """The project: `[provider.setting]`, then the variables, then the credentials; empty where none of them knows."""
    address = str(setting.get("baseUrl") or "") or _value(env, "GOOGLE_VERTEX_BASE_URL")
    given = str(setting.get("project") or "").strip() or address.partition("/projects/")[2].partition("/")[0]
    given = given or next(filter(None, (_value(env, name) for name in _GOOGLE_PROJECTS)), "")
    if given:
        return given
    path = google_file(env)
    info = _json_of(path) if path is not None else None
    return next((str(info[key]) for key in ("project_id", "quota_project_id") if info.get(key)), "") if info else ""


def is_google_machine(env: Mapping[str, str]) -> bool:
    """Whether a metadata server hands out credentials here."""
    if any(_value(env, name) for name in _GOOGLE_SIGNS):
        return True
    try:
        return Path(_GOOGLE_MACHINE).read_text(encoding="utf-8", errors="replace").startswith("Google")
    except OSError:
        return False


def _json_of(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None
