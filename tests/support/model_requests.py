"""Model requests for tests of providers: a small conversation, an expert, a pair of ears."""

from collections.abc import Callable, Sequence
from typing import Any

from perstack.activities.providers.anthropic import AnthropicProvider, create_provider
from perstack.activities.providers.base import ModelRequest, WireCache
from perstack.core.expert import Expert, ModelChoice, ReasoningBudget
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
) -> ModelRequest:
    """A request with everything a test does not care about filled in."""
    choice = ModelChoice(
        provider="anthropic", model=model, max_output_tokens=max_output_tokens, reasoning_budget=reasoning
    )
    return ModelRequest(
        expert=Expert(key=expert_key, name=expert_key, instruction="You are an expert.", model=choice),
        messages=[instruction(), user("Go.")] if messages is None else messages,
        tools=tools,
        timeout_seconds=timeout_seconds,
        path=path,
        ordinal=ordinal,
        cache=cache or WireCache(),
        on_usage=on_usage,
    )
