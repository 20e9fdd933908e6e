"""`perstack install`: start every skill once, list its tools, write `perstack.lock`."""

import os
from pathlib import Path
from typing import NoReturn

from ...core.expert import McpSseSkill, McpStdioSkill, mcp_skills
from ...core.failures import PerstackError, UsageError, WorkspaceError
from ...definitions.hosts import allowed_endpoints
from ...definitions.load import LoadedConfig, load_config
from ...definitions.lockfile import LOCK_NAME, LockedExpert, locked_expert, new_lockfile, write_lockfile
from ...definitions.resolve import LocalExperts, local_experts
from ..advice import domains_advice, name_advice, pick_advice
from ..diagnostics import ExitCode, waiting, warn
from ..lifecycle import run_command
from ..output import write_line


def install(config: str | None, *, env_paths: tuple[str, ...]) -> NoReturn:
    """Write the lock beside the definition; without every skill there is none."""

    async def command() -> ExitCode:
        loaded, local = _read(config, env_paths)
        write_line("Resolving experts...")
        write_line(f"Found {len(local.experts)} expert(s)")
        locked = await _lock(loaded, local)
        assert loaded.directory is not None
        path = loaded.directory / LOCK_NAME
        try:
            write_lockfile(path, new_lockfile(Path(loaded.source).name, locked))
        except OSError as error:
            raise WorkspaceError(f"{path} cannot be written: {error.strerror or error}.") from error
        write_line(f"Generated {path}")
        return ExitCode.COMPLETED

    run_command(command)


def _read(config: str | None, env_paths: tuple[str, ...]) -> tuple[LoadedConfig, LocalExperts]:
    loaded = load_config(config, cwd=Path.cwd(), allowed=allowed_endpoints(os.environ))
    if loaded.directory is None:
        raise UsageError(
            f"{loaded.source} is not a file of this machine; a lock stands beside its definition",
            hint="Save the definition as perstack.toml and install there.",
        )
    local = local_experts(loaded, env_paths=env_paths, cwd=Path.cwd())
    for warning in (*loaded.warnings, *local.warnings):
        warn(warning)
    return loaded, local


async def _lock(loaded: LoadedConfig, local: LocalExperts) -> list[LockedExpert]:
    # These bring the client library for MCP, a second of imports.
    from ...activities.skills.listing import SkillListing, known_tools
    from ..skills import skill_lister

    lister = skill_lister(local)
    asked: dict[str, SkillListing] = {}
    locked: list[LockedExpert] = []
    for key, expert in local.experts.items():
        write_line(f"Collecting tool definitions for {key}...")
        base, people = known_tools(expert)
        tools = list(base)
        for skill in mcp_skills(expert):
            content = skill.model_dump_json()
            if content not in asked:
                with waiting(f"starting skill {skill.name} of {key} …"):
                    asked[content] = await lister.ask(skill)
            listing = asked[content]
            if listing.error is not None:
                raise _failed(key, skill, listing.error)
            for sentence in (*pick_advice(skill, listing.tools), *domains_advice(skill)):
                warn(f"{key}: {sentence}")
            tools += listing.tools
        for sentence in name_advice([*tools, *people]):
            warn(f"{key}: {sentence}")
        tools += people
        write_line(f"  Found {len(tools)} tool(s)")
        locked.append(locked_expert(expert, tools))
    return locked


def _failed(key: str, skill: McpStdioSkill | McpSseSkill, error: PerstackError) -> PerstackError:
    hint = f"{error.hint or ''} Nothing was written; the old {LOCK_NAME}, if there is one, stays.".strip()
    return PerstackError(f"Skill {skill.name} of {key}: {error.message}", code=error.code, hint=hint)
