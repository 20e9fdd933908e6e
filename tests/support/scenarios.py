"""Small experts, tools and answers, and one run driven by hand: what tests of the core are written with."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from perstack.core.effects import Delegate, DelegateCall, Effect
from perstack.core.events import ContinueToNextStep, Event, RunBase
from perstack.core.expert import Expert, McpStdioSkill, ModelChoice
from perstack.core.failures import Attempt, Failure
from perstack.core.machine import advance
from perstack.core.messages import (
    ExpertMessage,
    ExpertPart,
    InstructionMessage,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolMessage,
    UserMessage,
)
from perstack.core.run import (
    FinishReason,
    Generation,
    JobSettings,
    Limits,
    RunInput,
    RunResult,
    SessionReport,
    SkillStart,
)
from perstack.core.state import RunState, begin
from perstack.core.tools import ToolOutcome, ToolResult, ToolSpec, sorted_calls, text_outcome
from perstack.core.triggers import (
    Answered,
    CancelRequested,
    DelegateFinished,
    Generated,
    GenerationFailed,
    GenerationLost,
    SessionOpened,
    Started,
    ToolFinished,
    Trigger,
)
from perstack.core.usage import NO_USAGE, Usage

BASE = "@perstack/base"
OBJECT: dict[str, Any] = {"type": "object"}
USAGE = Usage(input_tokens=10, output_tokens=5, total_tokens=15)
OVERLOADED = Failure(name="provider.overloaded", message="Overloaded.", status_code=529, is_retryable=True)

EventT = TypeVar("EventT", bound=Event)
EffectT = TypeVar("EffectT", bound=Effect)


def expert(key: str, *, delegates: tuple[str, ...] = (), version: str = "1.0.0") -> Expert:
    """A small expert with the base skill."""
    return Expert(
        key=key,
        name=key,
        version=version,
        instruction=f"You are {key}.",
        skills=(McpStdioSkill(name=BASE),),
        delegates=delegates,
        model=ModelChoice(provider="anthropic", model="test-model", context_window=1000),
    )


def run_input(*experts: Expert, query: str = "hello", limits: Limits | None = None, job_id: str = "job") -> RunInput:
    """The input of a root run of the first expert."""
    return RunInput(
        job_id=job_id,
        run_id=f"{job_id}-run",
        expert_key=experts[0].key,
        experts={e.key: e for e in experts},
        query=query,
        settings=JobSettings(runtime_version="0.1.0", workspace="/w", limits=limits or Limits()),
    )


def base_tools(*names: str) -> tuple[ToolSpec, ...]:
    """Base tools by name; all but exec may be repeated."""
    chosen = names or ("readTextFile", "exec", "todo", "attemptCompletion")
    return tuple(
        ToolSpec(name=name, skill_name=BASE, input_schema=OBJECT, is_repeatable=name != "exec") for name in chosen
    )


def interactive_tool(name: str = "askUser") -> ToolSpec:
    """A tool that a person answers."""
    return ToolSpec(name=name, skill_name="user-input", kind="interactive", input_schema=OBJECT)


def call(name: str, call_id: str = "", **args: Any) -> ToolCallPart:
    """A tool call as the model makes it."""
    return ToolCallPart(tool_call_id=call_id or f"tc-{name}", tool_name=name, args=args)


def complete(result: str | None = None) -> ToolCallPart:
    """A call of attemptCompletion."""
    return call("attemptCompletion") if result is None else call("attemptCompletion", result=result)


def say(
    text: str = "",
    *calls: ToolCallPart,
    thinking: str = "",
    finish: FinishReason | None = None,
    usage: Usage = USAGE,
    attempts: int = 0,
) -> Generation:
    """One answer of the model, after `attempts` that failed."""
    parts: list[ExpertPart] = []
    if thinking:
        parts.append(ThinkingPart(thinking=thinking, signature="sig"))
    if text:
        parts.append(TextPart(text=text))
    parts.extend(calls)
    return Generation(
        contents=tuple(parts),
        usage=usage,
        finish_reason=finish or ("toolCalls" if calls else "stop"),
        model="test-model",
        attempts=tuple(
            Attempt(failure=OVERLOADED, usage=Usage(input_tokens=1, total_tokens=1), at=900 + number)
            for number in range(attempts)
        ),
    )


def in_call_order(generation: Generation, specs: tuple[ToolSpec, ...]) -> Generation:
    """What a provider makes of an answer: its calls in the order of their classes."""
    fixed = [part for part in generation.contents if not isinstance(part, ToolCallPart)]
    calls = tuple(part for part in generation.contents if isinstance(part, ToolCallPart))
    return generation.model_copy(update={"contents": (*fixed, *sorted_calls(calls, specs))})


def session_report(specs: tuple[ToolSpec, ...]) -> SessionReport:
    """What `open_session` answers; the base skill takes no time to come up."""
    skill = SkillStart(
        name=BASE, server_name=BASE, server_version="1", spawn_ms=0.0, handshake_ms=1.0, discovery_ms=2.0
    )
    return SessionReport(queue="q", workspace_id="w", instruction="instruction", skill_tools=specs, skills=(skill,))


def child_result(
    key: str = "@team/a", *, text: str = "child's text", last_step: int = 2, usage: Usage = USAGE
) -> RunResult:
    """A delegate that completed."""
    return RunResult(
        status="completed",
        text=text,
        expert_key=key,
        run_id="child",
        checkpoint_id="cp",
        last_step=last_step,
        usage=usage,
    )


@dataclass
class HandRun:
    """One run told trigger by trigger."""

    start: RunInput
    specs: tuple[ToolSpec, ...] = field(default_factory=base_tools)
    state: RunState = field(init=False)
    events: list[Event] = field(default_factory=list[Event])
    effects: tuple[Effect, ...] = ()
    """What the last trigger asked for."""

    def __post_init__(self) -> None:
        self.state = begin(self.start)

    def take(self, trigger: Trigger) -> list[str]:
        """The types of the run and streaming events that `trigger` makes."""
        transition = advance(self.state, trigger)
        self.state = transition.state
        self.effects = transition.effects
        self.events.extend(transition.events)
        return types_of(transition.events)

    def open(self) -> "HandRun":
        """Start, and open the session: the run now waits for its first answer."""
        self.take(Started())
        self.take(SessionOpened(session_report(self.specs)))
        return self

    def say(self, text: str = "", *calls: ToolCallPart, **options: Any) -> list[str]:
        """The model answers."""
        return self.answer(say(text, *calls, **options))

    def answer(self, generation: Generation) -> list[str]:
        """The model answers with `generation`."""
        return self.take(Generated(in_call_order(generation, self.state.toolset.specs)))

    def fail(self, failure: Failure, *, attempts: int = 0, usage: Usage = NO_USAGE) -> list[str]:
        """The model call fails for good, after `attempts` that failed before."""
        return self.take(GenerationFailed(failure, (Attempt(failure=OVERLOADED, usage=USAGE),) * attempts, usage))

    def lose(self) -> list[str]:
        """The worker of the model call is lost."""
        return self.take(GenerationLost())

    def finish(self, index: int, outcome: ToolOutcome | str = "ok") -> list[str]:
        """The tool call `index` answers."""
        return self.take(ToolFinished(index, text_outcome(outcome) if isinstance(outcome, str) else outcome))

    def back(self, index: int, result: RunResult | None = None) -> list[str]:
        """The delegate of call `index` ends."""
        return self.take(DelegateFinished(index, result or child_result()))

    def respond(self, index: int, text: str = "answer") -> list[str]:
        """A person answers call `index`."""
        return self.take(Answered(index, text))

    def cancel(self) -> list[str]:
        """Somebody cancels the run."""
        return self.take(CancelRequested())

    def last(self, event_type: type[EventT]) -> EventT:
        """The last event of a type."""
        return next(event for event in reversed(self.events) if isinstance(event, event_type))

    def all(self, event_type: type[EventT]) -> list[EventT]:
        """Every event of a type."""
        return [event for event in self.events if isinstance(event, event_type)]

    def effect(self, effect_type: type[EffectT]) -> EffectT:
        """The one effect of a type that the last trigger asked for."""
        (found,) = [effect for effect in self.effects if isinstance(effect, effect_type)]
        return found

    def delegated(self) -> tuple[DelegateCall, ...]:
        """The delegates that the last trigger asked for."""
        return self.effect(Delegate).calls

    def last_results(self) -> tuple[ToolResult, ...]:
        """The results of the last finished step that called tools."""
        steps = [event.step.tool_results for event in self.all(ContinueToNextStep)]
        return next(results for results in reversed(steps) if results)


def types_of(events: tuple[Event, ...] | list[Event]) -> list[str]:
    """Types of run and streaming events; the runtime ones are left out."""
    return [event.type for event in events if isinstance(event, RunBase)]


def opened(
    *experts: Expert, specs: tuple[ToolSpec, ...] = (), limits: Limits | None = None, query: str = "hello"
) -> HandRun:
    """A run of the first expert (`team` if none is given) that waits for its first answer."""
    start = run_input(*(experts or (expert("team"),)), limits=limits, query=query)
    return HandRun(start, specs or base_tools()).open()


def words_of(messages: Sequence[InstructionMessage | UserMessage | ExpertMessage | ToolMessage]) -> list[str]:
    """The first text of each message."""
    return [next(part.text for part in message.contents if isinstance(part, TextPart)) for message in messages]


def texts_of(outcomes: Any) -> list[str]:
    """The first text of each tool result, or result part."""
    return [next(part.text for part in getattr(one, "result", None) or one.contents) for one in outcomes]
