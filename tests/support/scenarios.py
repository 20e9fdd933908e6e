"""The machine in plain Python: a second interpreter of its effects, with scripted answers instead of a world."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from perstack.core.conversation import Appendix, Position
from perstack.core.effects import AskPerson, CallTools, Delegate, Effect, Finish, Generate, OpenSession
from perstack.core.events import Event
from perstack.core.expert import Expert, InteractiveSkill, McpStdioSkill, ModelChoice
from perstack.core.fold import Fold
from perstack.core.messages import ExpertPart, TextPart, ThinkingPart, ToolCallPart
from perstack.core.run import FinishReason, Generation, JobSettings, Limits, RunInput, RunResult, SessionReport
from perstack.core.state import State
from perstack.core.tools import ToolOutcome, ToolSpec, sorted_calls, text_outcome
from perstack.core.triggers import (
    Answered,
    DelegateFinished,
    Generated,
    SessionOpened,
    Started,
    ToolFinished,
    Trigger,
)
from perstack.core.usage import Usage

BASE = "@perstack/base"
OBJECT: dict[str, Any] = {"type": "object"}
USAGE = Usage(input_tokens=10, output_tokens=5, total_tokens=15)


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
    """Base tools by name; readTextFile and the in-order ones may be repeated."""
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


def say(
    text: str = "",
    *calls: ToolCallPart,
    thinking: str = "",
    finish: FinishReason | None = None,
    usage: Usage = USAGE,
) -> Generation:
    """One answer of the model."""
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
    )


ToolScript = Callable[[str, dict[str, Any]], ToolOutcome]


def default_tools(name: str, _args: dict[str, Any]) -> ToolOutcome:
    """Every tool answers `{}`."""
    return text_outcome("{}" if name == "attemptCompletion" else f'{{"tool":"{name}"}}')


@dataclass
class Play:
    """Runs one job in memory: each expert's answers are scripted by its key, in its own order."""

    answers: dict[str, list[Generation]]
    tools: ToolScript = default_tools
    people: list[str] = field(default_factory=list[str])
    specs: tuple[ToolSpec, ...] = ()
    events: list[Event] = field(default_factory=list[Event])
    folds: list[Fold] = field(default_factory=list[Fold])
    clock: int = 1000

    def run(self, start: RunInput) -> RunResult:
        """Play a run to its end or to a question nobody answers, and return its result."""
        fold = Fold(start)
        self.folds.append(fold)
        script = list(self.answers[start.expert_key])
        waiting: list[Trigger] = [Started()]
        while waiting:
            trigger = waiting.pop(0)
            self.clock += 1
            self.events.extend(fold.feed(trigger, self.clock))
            for effect in fold.effects:
                waiting.extend(self._perform(effect, script, start))
        if fold.state.result is not None:
            return fold.state.result
        checkpoint = fold.state.checkpoint
        return RunResult(
            status=checkpoint.status,
            expert_key=checkpoint.expert.key,
            run_id=checkpoint.run_id,
            checkpoint_id=checkpoint.id,
            last_step=checkpoint.step_number,
        )

    def _perform(self, effect: Effect, script: list[Generation], start: RunInput) -> Iterable[Trigger]:
        match effect:
            case OpenSession():
                specs = self.specs or base_tools()
                yield SessionOpened(
                    SessionReport(queue="q", workspace_id="w", instruction="instruction", skill_tools=specs)
                )
            case Generate():
                answer = script.pop(0)
                specs = self.folds[-1].state.toolset.specs
                fixed = [p for p in answer.contents if not isinstance(p, ToolCallPart)]
                calls = tuple(p for p in answer.contents if isinstance(p, ToolCallPart))
                yield Generated(answer.model_copy(update={"contents": (*fixed, *sorted_calls(calls, specs))}))
            case CallTools(calls=planned):
                for one in reversed(planned):
                    yield ToolFinished(one.index, self.tools(one.call.tool_name, one.call.args))
            case Delegate(calls=delegated):
                for one in delegated:
                    child = one.child.model_copy(update={"run_id": f"{start.run_id}-{one.index}"})
                    inner = Play(self.answers, self.tools, specs=self.specs, clock=self.clock)
                    result = inner.run(child)
                    self.events.extend(inner.events)
                    self.clock = inner.clock
                    yield DelegateFinished(one.index, result)
            case AskPerson(calls=asked):
                if self.people:
                    yield Answered(asked[0].index, self.people.pop(0))
            case Finish():
                pass

    @property
    def types(self) -> list[str]:
        """Types of all events so far, without the runtime ones."""
        return [e.type for e in self.events if hasattr(e, "expert_key")]

    @property
    def final(self) -> State:
        """The state of the first run."""
        return self.folds[0].state.state


__all__ = ["Appendix", "Position"]
