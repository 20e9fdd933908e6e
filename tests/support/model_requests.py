"""Model requests for tests of providers: a small conversation, an expert, a pair of ears."""

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from perstack.activities.providers.anthropic import AnthropicProvider, create_provider
from perstack.activities.providers.base import ModelRequest, WireCache
from perstack.activities.providers.bedrock import BedrockProvider
from perstack.activities.providers.bedrock import create_provider as create_bedrock
from perstack.activities.providers.compatible import CompatibleProvider
from perstack.activities.providers.compatible import create_provider as create_compatible
from perstack.activities.providers.openai import OpenAIProvider
from perstack.activities.providers.openai import create_provider as create_openai
from perstack.core.expert import Expert, ModelChoice, ProviderSkill, ProviderTool, ReasoningBudget
from perstack.core.messages import (
    ExpertMessage,
    ExpertPart,
    InstructionMessage,
    Message,
    ResultPart,
    TextPart,
    ToolCallPart,
    ToolMessage,
    ToolResultPart,
    UserMessage,
    UserPart,
)
from perstack.core.profiles.providers import PROVIDERS
from perstack.core.tools import ToolKind, ToolSpec
from perstack.core.usage import Usage

from .model_server import ModelServer

API_KEY = "sk-ant-test-0123456789"
MODEL = "claude-sonnet-5-5"


class Heard:
    """Deltas as they came."""

    def __init__(self) -> None:
        self.pieces: list[tuple[str, str]] = []

    def reasoning(self, delta: str) -> None:
        self.pieces.append(("reasoning", delta))

    def text(self, delta: str) -> None:
        self.pieces.append(("text", delta))

    def all(self, kind: str) -> str:
        """Everything of one kind."""
        return "".join(piece for said, piece in self.pieces if said == kind)


def anthropic(
    server: ModelServer | None, *, setting: dict[str, Any] | None = None, env: dict[str, str] | None = None
) -> AnthropicProvider:
    """A provider that talks to `server`."""
    base = {"ANTHROPIC_BASE_URL": server.url} if server is not None else {}
    return create_provider("anthropic", {"ANTHROPIC_API_KEY": API_KEY, **base, **(env or {})}, setting or {})


def compatible(
    name: str,
    server: ModelServer | None,
    *,
    setting: dict[str, Any] | None = None,
    env: dict[str, str] | None = None,
) -> CompatibleProvider:
    """A provider of Chat Completions that talks to `server`, under the path that it has at its own address."""
    profile = PROVIDERS[name]
    keys = dict.fromkeys(profile.required_env, API_KEY)
    base = {profile.base_url_env: f"{server.url}{urlsplit(profile.base_url).path}"} if server is not None else {}
    return create_compatible(name, {**keys, **base, **(env or {})}, setting or {})


def openai(
    server: ModelServer | None, *, setting: dict[str, Any] | None = None, env: dict[str, str] | None = None
) -> OpenAIProvider:
    """OpenAI, at `server`."""
    base = {"OPENAI_BASE_URL": f"{server.url}/v1"} if server is not None else {}
    return create_openai("openai", {"OPENAI_API_KEY": API_KEY, **base, **(env or {})}, setting or {})


def azure(
    server: ModelServer | None, *, setting: dict[str, Any] | None = None, env: dict[str, str] | None = None
) -> OpenAIProvider:
    """Azure OpenAI, at `server`."""
    base = {"AZURE_BASE_URL": f"{server.url}/openai"} if server is not None else {}
    return create_openai("azure-openai", {"AZURE_API_KEY": API_KEY, **base, **(env or {})}, setting or {})


def bedrock(
    server: ModelServer | None, *, setting: dict[str, Any] | None = None, env: dict[str, str] | None = None
) -> BedrockProvider:
    """Amazon Bedrock, at `server`."""
    keys = {"AWS_ACCESS_KEY_ID": "AKIATESTTESTTEST", "AWS_SECRET_ACCESS_KEY": API_KEY, "AWS_REGION": "eu-test-1"}
    base = {"AWS_ENDPOINT_URL_BEDROCK_RUNTIME": server.url} if server is not None else {}
    return create_bedrock("amazon-bedrock", {**keys, **base, **(env or {})}, setting or {})


def tool(name: str, kind: ToolKind = "mcp") -> ToolSpec:
    """A tool without parameters."""
    return ToolSpec(name=name, skill_name="skill", kind=kind, description=f"Does {name}.", input_schema={})


def instruction(text: str = "You are an expert.") -> InstructionMessage:
    return InstructionMessage(contents=(TextPart(text=text),), cache=True)


def user(*parts: UserPart | str) -> UserMessage:
    return UserMessage(contents=tuple(TextPart(text=part) if isinstance(part, str) else part for part in parts))


def said(*parts: ExpertPart | str) -> ExpertMessage:
    return ExpertMessage(contents=tuple(TextPart(text=part) if isinstance(part, str) else part for part in parts))


def call(call_id: str, name: str = "look", **args: Any) -> ToolCallPart:
    return ToolCallPart(tool_call_id=call_id, tool_name=name, args=args)


def results(*parts: ToolResultPart) -> ToolMessage:
    return ToolMessage(contents=parts)


def result(call_id: str, *contents: ResultPart | str, is_error: bool | None = None) -> ToolResultPart:
    parts = tuple(TextPart(text=part) if isinstance(part, str) else part for part in contents)
    return ToolResultPart(tool_call_id=call_id, tool_name="look", contents=parts, is_error=is_error)


def steps(count: int) -> list[Message]:
    """A conversation of `count` finished steps, each a call and its result."""
    messages: list[Message] = [instruction(), user("Go.")]
    for number in range(count):
        messages += [said(call(f"c{number}", path=f"file{number}")), results(result(f"c{number}", "content"))]
    return messages


def request(
    messages: Sequence[Message] | None = None,
    *,
    tools: tuple[ToolSpec, ...] = (),
    model: str = MODEL,
    reasoning: ReasoningBudget = "low",
    max_output_tokens: int | None = None,
    timeout_seconds: float = 20,
    path: tuple[str, ...] = (),
    ordinal: int = 1,
    cache: WireCache | None = None,
    on_usage: Callable[[Usage], None] | None = None,
    expert_key: str = "team",
    provider: str = "anthropic",
    provider_tools: tuple[ProviderTool, ...] = (),
    provider_skills: tuple[ProviderSkill, ...] = (),
) -> ModelRequest:
    """A request with everything a test does not care about filled in."""
    choice = ModelChoice(
        provider=provider, model=model, max_output_tokens=max_output_tokens, reasoning_budget=reasoning
    )
    return ModelRequest(
        expert=Expert(
            key=expert_key,
            name=expert_key,
            instruction="You are an expert.",
            provider_tools=provider_tools,
            provider_skills=provider_skills,
            model=choice,
        ),
        messages=[instruction(), user("Go.")] if messages is None else messages,
        tools=tools,
        timeout_seconds=timeout_seconds,
        path=path,
        ordinal=ordinal,
        cache=cache or WireCache(),
        on_usage=on_usage,
    )
