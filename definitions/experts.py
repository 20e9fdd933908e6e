"""Turns a checked expert table into the expert a run executes: model settled, base skill present."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from ..core.expert import (
    BASE_SKILL,
    Expert,
    InteractiveSkill,
    InteractiveTool,
    McpSseSkill,
    McpStdioSkill,
    ModelChoice,
    ProviderName,
    ReasoningBudget,
    Skill,
    Tier,
)
from ..core.failures import UsageError
from ..core.ids import parse_expert_key
from ..core.models import choose_model
from .document import Document, KeyPath
from .prices import context_window, max_output_tokens
from .provider_tools import provider_skills, provider_tools
from .schema import ExpertTable, InteractiveSkillTable, SkillTable, SseSkillTable, StdioSkillTable


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """How experts of one job get their model."""

    provider: ProviderName
    model_override: str | None = None
    """`--model`: beats an expert's tier."""
    model: str | None = None
    """Top-level `model`: gives way to an expert's tier."""
    default_tier: Tier | None = None
    reasoning_budget: ReasoningBudget = "low"

    def choice(self, tier: Tier | None) -> ModelChoice:
        """The model of an expert with this `defaultModelTier`."""
        model = choose_model(
            self.provider, override=self.model_override, expert_tier=tier, model=self.model, tier=self.default_tier
        )
        if model is None:
            raise UsageError(
                f"No model is known for {self.provider}", code="usage.model", hint="Give one with --model."
            )
        return ModelChoice(
            provider=self.provider,
            model=model,
            context_window=context_window(self.provider, model),
            max_output_tokens=max_output_tokens(self.provider, model),
            reasoning_budget=self.reasoning_budget,
        )


@dataclass(frozen=True)
class Definition:
    """One expert table and the file it stands in."""

    key: str
    table: ExpertTable
    document: Document

    @property
    def path(self) -> KeyPath:
        """Where the expert stands in its file."""
        return ("experts", self.key)

    def required_env(self) -> Iterator[tuple[KeyPath, str]]:
        """Every variable its skills require, with its place; the base skill reads none."""
        for name, skill in (self.table.skills or {}).items():
            if isinstance(skill, StdioSkillTable) and name != BASE_SKILL:
                for index, variable in enumerate(skill.required_env):
                    yield (*self.path, "skills", name, "requiredEnv", index), variable

    def expert(self, settings: ModelSettings) -> Expert:
        """The expert as the runtime sees it.

        Raises:
            DefinitionError: it wants something of its provider that the provider does not have.
        """
        parsed = parse_expert_key(self.key)
        return Expert(
            key=self.key,
            name=parsed.name if parsed else self.key,
            version=self.table.version,
            description=self.table.description,
            instruction=self.table.instruction,
            skills=_skills(self.table.skills or {}),
            delegates=tuple(dict.fromkeys(self.table.delegates)),
            tags=tuple(self.table.tags),
            default_model_tier=self.table.default_model_tier,
            provider_tools=tuple(provider_tools(self.table, settings.provider, self.document, self.path)),
            provider_skills=tuple(provider_skills(self.table, settings.provider, self.document, self.path)),
            model=settings.choice(self.table.default_model_tier),
        )


def _skills(tables: Mapping[str, SkillTable]) -> tuple[Skill, ...]:
    skills = tuple(_skill(name, table) for name, table in tables.items())
    return skills if BASE_SKILL in tables else (McpStdioSkill(name=BASE_SKILL), *skills)


def _skill(name: str, table: SkillTable) -> Skill:
    match table:
        case StdioSkillTable():
            return _stdio_skill(name, table)
        case SseSkillTable():
            return McpSseSkill(
                name=name,
                description=table.description,
                rule=table.rule,
                endpoint=table.endpoint,
                pick=tuple(table.pick),
                omit=tuple(table.omit),
                allowed_domains=tuple(table.allowed_domains),
            )
        case InteractiveSkillTable():
            return InteractiveSkill(
                name=name,
                description=table.description,
                rule=table.rule,
                tools=tuple(
                    InteractiveTool(
                        name=tool_name, description=tool.description, input_schema=_schema(tool.input_json_schema)
                    )
                    for tool_name, tool in table.tools.items()
                ),
            )
        case _:
            assert_never(table)


def _stdio_skill(name: str, table: StdioSkillTable) -> McpStdioSkill:
    shared = McpStdioSkill(
        name=name,
        description=table.description,
        rule=table.rule,
        pick=tuple(table.pick),
        omit=tuple(table.omit),
    )
    if name == BASE_SKILL:
        return shared
    return shared.model_copy(
        update={
            "command": table.command or "",
            "package_name": table.package_name,
            "args": tuple(table.args),
            "required_env": tuple(table.required_env),
            "allowed_domains": tuple(table.allowed_domains),
        }
    )


def _schema(text: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(text)
    return schema
