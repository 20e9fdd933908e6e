"""The variables of a job: the host's and those of its env files, and what a skill misses of them."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from dotenv import dotenv_values

from ..core.expert import BASE_SKILL, Expert, McpStdioSkill
from ..core.failures import UsageError

DEFAULT_ENV_PATHS = (".env", ".env.local")


class MissingVariable(NamedTuple):
    """A variable that a skill requires and nobody sets."""

    expert_key: str
    skill_name: str
    variable: str

    @property
    def message(self) -> str:
        """The complaint in words."""
        return f"Skill {self.skill_name} requires environment variable {self.variable}"


def read_env(env_paths: Iterable[str | Path], host_env: Mapping[str, str]) -> dict[str, str]:
    """The host's non-empty variables, then what the files add in list order; nothing is overwritten.

    Values are taken as they stand: a `$` in a secret stays one. A missing file is ignored.

    Raises:
        UsageError: a file exists and cannot be read as text.
    """
    merged = {name: value for name, value in host_env.items() if value}
    for path in env_paths:
        for name, value in _file_values(Path(path)).items():
            if value and name not in merged:
                merged[name] = value
    return merged


def _file_values(path: Path) -> dict[str, str | None]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"it is not UTF-8 text (byte {error.start})") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, getattr(error, "strerror", None) or str(error)) from None
    return dotenv_values(stream=io.StringIO(text), interpolate=False)


def _unreadable(path: Path, reason: str) -> UsageError:
    return UsageError(
        f"Env file {path} cannot be read: {reason}",
        code="usage.env_file",
        hint="Correct the file, or name others with --env-path.",
    )


def missing_required_env(experts: Iterable[Expert], env: Mapping[str, str]) -> tuple[MissingVariable, ...]:
    """Every variable that a skill of `experts` requires and `env` lacks; the base skill requires none."""
    return tuple(
        MissingVariable(expert.key, skill.name, variable)
        for expert in experts
        for skill in expert.skills
        if isinstance(skill, McpStdioSkill) and skill.name != BASE_SKILL
        for variable in skill.required_env
        if not env.get(variable)
    )


def check_required_env(experts: Iterable[Expert], env: Mapping[str, str]) -> None:
    """Refuses to start while a skill lacks a variable.

    Raises:
        UsageError: naming every skill and variable.
    """
    missing = missing_required_env(experts, env)
    if missing:
        names = ", ".join(dict.fromkeys(item.variable for item in missing))
        raise UsageError(
            "\n".join(dict.fromkeys(item.message for item in missing)),
            code="usage.missing_env",
            hint=f"Set {names} in the environment or in an env file.",
        )
