"""The provider's own tools and skills of an expert, checked against what the provider has (contract 2 §1.8)."""

import json
from collections.abc import Iterator
from typing import Any

from ..core.expert import ProviderName, ProviderSkill, ProviderTool
from ..core.failures import DefinitionError
from ..core.profiles.providers import PROVIDERS
from .document import Document, KeyPath, located_error
from .keys import closest
from .schema import BuiltinProviderSkill, ExpertTable


def provider_tools(table: ExpertTable, provider: ProviderName, document: Document, path: KeyPath) -> list[ProviderTool]:
    """The tools that `provider` shall run for this expert, each with the options it takes.

    Raises:
        DefinitionError: the provider has no such tool, or a tool lacks an option it cannot do without.
    """
    known = PROVIDERS[provider].provider_tools
    options = table.provider_tool_options
    given: dict[str, Any] = options.model_dump(by_alias=True, exclude_none=True) if options else {}
    found: list[ProviderTool] = []
    for index, name in enumerate(table.provider_tools or ()):
        here = (*path, "providerTools", index)
        if name not in known:
            raise _unknown_tool(name, provider, document, here)
        own: dict[str, Any] = given.get(name, {})
        for option in known[name].required:
            if not own.get(option):
                raise located_error(
                    document,
                    here,
                    f"Provider tool {name} needs providerToolOptions.{name}.{option}",
                    code="definition.provider_tool",
                )
        if name not in [tool.name for tool in found]:
            found.append(ProviderTool(name=name, options={key: own[key] for key in known[name].options if key in own}))
    return found


def _unknown_tool(name: str, provider: ProviderName, document: Document, path: KeyPath) -> DefinitionError:
    known = tuple(PROVIDERS[provider].provider_tools)
    meant = closest(name, known)
    return located_error(
        document,
        path,
        f"{provider} has no provider tool {name}",
        code="definition.provider_tool",
        hint=(f'Did you mean "{meant}"? ' if meant else "")
        + (f"Tools of {provider}: {', '.join(known)}." if known else f"{provider} has none."),
    )


def provider_skills(
    table: ExpertTable, provider: ProviderName, document: Document, path: KeyPath
) -> list[ProviderSkill]:
    """The skills that `provider` keeps for this expert.

    Raises:
        DefinitionError: the provider keeps no skills.
    """
    if table.provider_skills and not PROVIDERS[provider].takes_provider_skills:
        takers = ", ".join(name for name, profile in PROVIDERS.items() if profile.takes_provider_skills)
        raise located_error(
            document,
            (*path, "providerSkills"),
            f"{provider} has no provider skills",
            code="definition.provider_tool",
            hint=f"Providers that have: {takers}.",
        )
    return list(_skills(table))


def _skills(table: ExpertTable) -> Iterator[ProviderSkill]:
    for skill in table.provider_skills or ():
        if isinstance(skill, BuiltinProviderSkill):
            yield ProviderSkill(type="builtin", skill_id=skill.skill_id)
        else:
            yield ProviderSkill(type="custom", name=skill.name, definition=json.loads(skill.definition))


def unused_options(table: ExpertTable, provider: ProviderName) -> Iterator[str]:
    """The options that are not sent: `webSearch.maxUses`, of a tool not listed or one that does not take them."""
    options = table.provider_tool_options
    for name, given in (options.model_dump(by_alias=True, exclude_none=True) if options else {}).items():
        tool = PROVIDERS[provider].provider_tools.get(name)
        if tool is None or name not in (table.provider_tools or ()):
            yield name
        else:
            yield from (f"{name}.{option}" for option in given if option not in tool.options)
