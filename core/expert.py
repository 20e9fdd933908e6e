"""Experts as the runtime sees them: definitions already checked, defaults already applied."""

from typing import Annotated, Any, Literal

from pydantic import Field

from .wire import Wire

BASE_SKILL = "@perstack/base"

ProviderName = str
"""A key of `profiles.providers.PROVIDERS`; the definition's loader and the command line check it."""
Tier = Literal["low", "middle", "high"]
ReasoningBudget = Literal["none", "minimal", "low", "medium", "high"] | Annotated[int, Field(ge=0)]


class McpStdioSkill(Wire):
    """An MCP server started as a child process (contract §1.7); `@perstack/base` is one in name only."""

    name: str
    type: Literal["mcpStdioSkill"] = "mcpStdioSkill"
    description: str | None = None
    rule: str | None = None
    command: str = ""
    package_name: str | None = None
    args: tuple[str, ...] = ()
    pick: tuple[str, ...] = ()
    omit: tuple[str, ...] = ()
    required_env: tuple[str, ...] = ()
    allowed_domains: tuple[str, ...] = ()


class McpSseSkill(Wire):
    """An MCP server reached over HTTPS."""

    name: str
    type: Literal["mcpSseSkill"] = "mcpSseSkill"
    description: str | None = None
    rule: str | None = None
    endpoint: str
    pick: tuple[str, ...] = ()
    omit: tuple[str, ...] = ()
    allowed_domains: tuple[str, ...] = ()


class InteractiveTool(Wire):
    """A tool that a person answers."""

    name: str
    description: str | None = None
    input_schema: dict[str, Any]


class InteractiveSkill(Wire):
    """Tools that a person answers; offered to the root only."""

    name: str
    type: Literal["interactiveSkill"] = "interactiveSkill"
    description: str | None = None
    rule: str | None = None
    tools: tuple[InteractiveTool, ...] = ()


Skill = Annotated[McpStdioSkill | McpSseSkill | InteractiveSkill, Field(discriminator="type")]


class ProviderTool(Wire):
    """A tool that the model's provider runs itself, such as its web search (contract 2 §1.8)."""

    name: str
    """As in `providerTools`."""
    options: dict[str, Any] = {}
    """As in `providerToolOptions.<name>`."""


class ProviderSkill(Wire):
    """A skill that the provider keeps: one it ships, by id, or one of the author's own, by name."""

    type: Literal["builtin", "custom"]
    skill_id: str | None = None
    name: str | None = None
    definition: dict[str, Any] = {}


class ModelChoice(Wire):
    """The model of one expert, settled by the client before the run starts."""

    provider: ProviderName
    model: str
    context_window: int | None = None
    """In tokens; `None` when the model is unknown to the price data."""
    max_output_tokens: int | None = None
    reasoning_budget: ReasoningBudget = "low"


class Expert(Wire):
    """One expert definition (contract §1.4), complete."""

    key: str
    name: str
    version: str = "1.0.0"
    description: str | None = None
    instruction: str
    skills: tuple[Skill, ...] = ()
    delegates: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    default_model_tier: Tier | None = None
    provider_tools: tuple[ProviderTool, ...] = ()
    provider_skills: tuple[ProviderSkill, ...] = ()
    model: ModelChoice

    @property
    def ref(self) -> "ExpertRef":
        """How checkpoints name this expert."""
        return ExpertRef(key=self.key, name=self.name, version=self.version)


class ExpertRef(Wire):
    """An expert by key, name and version."""

    key: str
    name: str
    version: str


def reachable_experts(root: str, experts: dict[str, Expert]) -> dict[str, Expert]:
    """`root` and every expert it can reach over delegates, itself first."""
    found: dict[str, Expert] = {}
    waiting = [root]
    while waiting:
        key = waiting.pop(0)
        expert = experts.get(key)
        if expert is None or key in found:
            continue
        found[key] = expert
        waiting.extend(expert.delegates)
    return found


def mcp_skills(expert: Expert) -> tuple[McpStdioSkill | McpSseSkill, ...]:
    """The skills of an expert that have to be started to be asked."""
    return tuple(
        skill for skill in expert.skills if not isinstance(skill, InteractiveSkill) and skill.name != BASE_SKILL
    )
