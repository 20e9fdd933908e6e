"""What a run knows of its skills beyond their definitions."""

from .wire import Wire


class SkillStart(Wire):
    """How a skill came up, for the runtime events; durations in milliseconds."""

    name: str
    command: str | None = None
    args: tuple[str, ...] = ()
    server_name: str | None = None
    server_version: str | None = None
    spawn_ms: float | None = None
    handshake_ms: float | None = None
    discovery_ms: float | None = None
    renamed_tools: dict[str, str] | None = None
    """Tools that are offered under another name than the skill's own, because that was taken or is not allowed."""
