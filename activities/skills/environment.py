"""Which variables of the worker a command or a skill may see, and which nobody may set."""

from collections.abc import Iterable, Mapping

from ...core.failures import UsageError
from ...definitions.protected import is_protected

SAFE_NAMES = frozenset(
    {
        "PATH",
        "HOME",
        "SHELL",
        "TERM",
        "NODE_PATH",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "PERSTACK_PROXY_URL",
        "NPM_CONFIG_PROXY",
        "NPM_CONFIG_HTTPS_PROXY",
        "LANG",
        "TMPDIR",
    }
)
"""Upper-case names that pass from the worker to its children."""
SAFE_PREFIXES = ("LC_",)


def is_safe(name: str) -> bool:
    """Whether the worker's own value of `name` may reach a child."""
    upper = name.upper()
    return upper in SAFE_NAMES or upper.startswith(SAFE_PREFIXES)


def exec_environment(host_env: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a command: the safe part of the worker's and `extra` without protected names."""
    own = {name: value for name, value in extra.items() if not is_protected(name)}
    return {**_safe_part(host_env), **own}


def skill_environment(host_env: Mapping[str, str], *, skill_name: str, required_env: Iterable[str]) -> dict[str, str]:
    """The environment of a skill's process: the safe part of the worker's and the variables it requires.

    Raises:
        UsageError: a required variable is missing or empty.
    """
    environment = _safe_part(host_env)
    for name in required_env:
        if is_protected(name):
            continue
        value = host_env.get(name)
        if not value:
            raise UsageError(
                f"Skill {skill_name} requires the environment variable {name}, which is not set.",
                code="skill.missing_env",
                hint=f"Set {name} in the environment or in an env file of the run.",
            )
        environment[name] = value
    return environment


def _safe_part(host_env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in host_env.items() if value and is_safe(name)}
