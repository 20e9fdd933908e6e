"""The tables of `perstack.toml` as pydantic models, and pydantic's complaints in an author's words."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from ..core.expert import ProviderName, ReasoningBudget, Tier
from ..core.profiles.providers import PROVIDERS
from .document import Issue, KeyPath

REASONING_LEVELS = ("none", "minimal", "low", "medium", "high")
MAX_INSTRUCTION = 20_480
MAX_DESCRIPTION = 2048


class Table(BaseModel):
    """A TOML table; `definitions.keys` reports what it does not know."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True, strict=True, extra="ignore")

    @classmethod
    def known_keys(cls) -> frozenset[str]:
        """The keys as they are written in the file."""
        return frozenset(field.alias or name for name, field in cls.model_fields.items())


def _reasoning(value: object) -> object:
    if value in REASONING_LEVELS or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError(f"must be one of {', '.join(REASONING_LEVELS)} or a whole number of tokens")


def _provider(value: object) -> object:
    if isinstance(value, str) and value not in PROVIDERS:
        raise ValueError(f"must be one of {', '.join(map(repr, PROVIDERS))}, not {value!r}")
    return value


Reasoning = Annotated[ReasoningBudget, BeforeValidator(_reasoning)]
Text = Annotated[str, Field(min_length=1)]
Description = Annotated[str, Field(min_length=1, max_length=MAX_DESCRIPTION)]


class SettingTable(Table):
    """`[provider.setting]`: the keys of all providers; each provider's profile says which it reads."""

    base_url: Text | None = None
    headers: dict[str, str] | None = None
    organization: str | None = None
    project: str | None = None
    name: str | None = None
    resource_name: str | None = None
    api_version: str | None = None
    use_deployment_based_urls: bool | None = None
    region: str | None = None
    location: str | None = None


class ProviderTable(Table):
    """`[provider]`."""

    provider_name: Annotated[ProviderName, BeforeValidator(_provider)]
    setting: SettingTable | None = None


class StdioSkillTable(Table):
    """A skill of type `mcpStdioSkill`; `command` is required for every one but the base skill."""

    type: Literal["mcpStdioSkill"]
    description: str | None = None
    rule: str | None = None
    command: str | None = None
    package_name: str | None = None
    args: list[str] = []
    pick: list[str] = []
    omit: list[str] = []
    required_env: list[str] = []
    allowed_domains: list[str] = []


class SseSkillTable(Table):
    """A skill of type `mcpSseSkill`."""

    type: Literal["mcpSseSkill"]
    description: str | None = None
    rule: str | None = None
    endpoint: str
    pick: list[str] = []
    omit: list[str] = []
    allowed_domains: list[str] = []


class InteractiveToolTable(Table):
    """One tool of an interactive skill."""

    description: str | None = None
    input_json_schema: str


class InteractiveSkillTable(Table):
    """A skill of type `interactiveSkill`."""

    type: Literal["interactiveSkill"]
    description: str | None = None
    rule: str | None = None
    tools: dict[str, InteractiveToolTable]


SkillTable = Annotated[StdioSkillTable | SseSkillTable | InteractiveSkillTable, Field(discriminator="type")]
SKILL_TABLES: Mapping[str, type[Table]] = {
    "mcpStdioSkill": StdioSkillTable,
    "mcpSseSkill": SseSkillTable,
    "interactiveSkill": InteractiveSkillTable,
}


class BuiltinProviderSkill(Table):
    """A document skill that Anthropic ships."""

    type: Literal["builtin"]
    skill_id: Literal["pdf", "docx", "pptx", "xlsx"]


class CustomProviderSkill(Table):
    """A skill of the author's own, as a JSON string."""

    type: Literal["custom"]
    name: Text
    definition: Text


ProviderSkill = Annotated[BuiltinProviderSkill | CustomProviderSkill, Field(discriminator="type")]
Positive = Annotated[int, Field(gt=0)]


class WebSearchOptions(Table):
    """`providerToolOptions.webSearch`."""

    max_uses: Positive | None = None
    allowed_domains: list[str] | None = None


class WebFetchOptions(Table):
    """`providerToolOptions.webFetch`."""

    max_uses: Positive | None = None


class FileSearchOptions(Table):
    """`providerToolOptions.fileSearch`."""

    vector_store_ids: list[str] | None = None
    max_num_results: Positive | None = None


class GoogleMapsOptions(Table):
    """`providerToolOptions.googleMaps`; `retrievalConfig` is passed on as it is."""

    retrieval_config: dict[str, Any] | None = None


class ProviderToolOptions(Table):
    """`providerToolOptions`."""

    web_search: WebSearchOptions | None = None
    web_fetch: WebFetchOptions | None = None
    file_search: FileSearchOptions | None = None
    google_maps: GoogleMapsOptions | None = None


class ExpertTable(Table):
    """`[experts."<key>"]`."""

    version: str = "1.0.0"
    min_runtime_version: str | None = None
    description: Description | None = None
    instruction: Annotated[str, Field(min_length=1, max_length=MAX_INSTRUCTION)]
    skills: dict[str, SkillTable] | None = None
    delegates: list[str] = []
    tags: list[str] = []
    provider_tools: list[str] | None = None
    provider_skills: list[ProviderSkill] | None = None
    provider_tool_options: ProviderToolOptions | None = None
    default_model_tier: Tier | None = None


class PerstackToml(Table):
    """The whole file."""

    model: Text | None = None
    provider: ProviderTable | None = None
    reasoning_budget: Reasoning | None = None
    max_steps: Annotated[int, Field(ge=1)] | None = None
    max_retries: Annotated[int, Field(ge=0)] | None = None
    timeout: Annotated[int, Field(ge=1)] | None = None
    experts: dict[str, ExpertTable] = {}
    perstack_api_base_url: str | None = None
    env_path: list[Text] | None = None
    default_model_tier: Tier | None = None


def parse_tables(raw: Mapping[str, Any]) -> PerstackToml | list[Issue]:
    """The file as a model, or what keeps it from being one."""
    try:
        return PerstackToml.model_validate(raw)
    except ValidationError as error:
        return [_issue(detail, raw) for detail in error.errors(include_url=False)]


def _issue(detail: ErrorDetails, raw: Mapping[str, Any]) -> Issue:
    path = _key_path(detail["loc"], raw)
    if detail["type"].startswith("union_tag"):
        path = (*path, "type")
    words = _WORDS.get(detail["type"])
    return Issue(path, words(detail.get("ctx", {})) + _given(detail) if words else detail["msg"])


def _key_path(location: tuple[int | str, ...], raw: Mapping[str, Any]) -> KeyPath:
    """Pydantic's location without the union members it names on the way."""
    path: KeyPath = ()
    here: Any = raw
    for place, part in enumerate(location):
        is_present = part in here if isinstance(here, Mapping) else isinstance(here, list)
        if is_present:
            here = cast("Any", here)[part]
        elif place < len(location) - 1 or not isinstance(here, Mapping):
            continue
        path = (*path, part)
    return path


def _given(detail: ErrorDetails) -> str:
    value = detail["input"]
    is_choice = detail["type"] == "literal_error"
    return f", not {value!r}" if is_choice and isinstance(value, str) and len(value) <= 64 else ""


_WORDS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "missing": lambda _: "is required",
    "string_type": lambda _: "must be a string",
    "int_type": lambda _: "must be a whole number",
    "bool_type": lambda _: "must be true or false",
    "list_type": lambda _: "must be an array",
    "dict_type": lambda _: "must be a table",
    "model_type": lambda _: "must be a table",
    "model_attributes_type": lambda _: "must be a table",
    "literal_error": lambda ctx: f"must be one of {ctx['expected']}",
    "union_tag_not_found": lambda _: "is required",
    "union_tag_invalid": lambda ctx: f"must be one of {ctx['expected_tags']}, not {ctx['tag']!r}",
    "string_too_short": lambda _: "must not be empty",
    "string_too_long": lambda ctx: f"must have at most {ctx['max_length']} characters",
    "greater_than": lambda ctx: f"must be greater than {ctx['gt']}",
    "greater_than_equal": lambda ctx: f"must be at least {ctx['ge']}",
    "value_error": lambda ctx: str(ctx["error"]),
}
