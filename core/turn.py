"""One transition under construction: state to change, events and effects to collect, ids to hand out."""

from dataclasses import dataclass
from typing import Any, TypeVar

from .checkpoint import Checkpoint, DelegatedBy, DelegationTarget, Step
from .conversation import Appendix, KnownResult
from .effects import Effect
from .events import (
    ContinueToNextStep,
    Event,
    InitializeRuntime,
    InteractiveAnswer,
    RunBase,
    RuntimeBase,
    SkillConnected,
    SkillDisconnected,
    SkillStarting,
    StopRunByExceededMaxSteps,
)
from .ids import cuid_from, segment_run_id
from .messages import ExpertMessage, InstructionMessage, ToolMessage, UserMessage
from .run import RunResult
from .skills import SkillStart
from .state import Ordinals, RunState
from .tools import ToolResult
from .usage import Usage, context_ratio

AnyMessage = InstructionMessage | UserMessage | ExpertMessage | ToolMessage
RunEventT = TypeVar("RunEventT", bound=RunBase)
MessageT = TypeVar("MessageT", bound=AnyMessage)


@dataclass(frozen=True, slots=True)
class Transition:
    """What one trigger did."""

    state: RunState
    events: tuple[Event, ...]
    effects: tuple[Effect, ...]


class Turn:
    """The builder `machine.advance` works with; it never outlives one call of it."""

    def __init__(self, state: RunState) -> None:
        self.state = state
        self._ordinals: dict[str, int] = dict(state.ordinals)
        self._events: list[Event] = []
        self._effects: list[Effect] = []

    def transition(self) -> Transition:
        """What has been built."""
        state = self.state.replaced(ordinals=Ordinals.trusted(**self._ordinals))
        return Transition(state, tuple(self._events), tuple(self._effects))

    def set(self, **changes: Any) -> None:
        """Replace fields of the state."""
        self.state = self.state.replaced(**changes)

    def set_checkpoint(self, **changes: Any) -> None:
        """Replace fields of the current checkpoint."""
        self.set(checkpoint=self.state.checkpoint.replaced(**changes))

    def set_step(self, **changes: Any) -> None:
        """Replace fields of the current step."""
        self.set(step=self.state.step.replaced(**changes))

    def ask(self, effect: Effect) -> None:
        """Ask the interpreter for something."""
        self._effects.append(effect)

    def next_id(self, kind: str) -> str:
        """The next derived id of `kind` (a field of `Ordinals`)."""
        number = self._ordinals[kind]
        self._ordinals[kind] = number + 1
        return cuid_from(self.state.checkpoint.run_id, kind, number)

    def emit(self, event_type: type[RunEventT], **payload: Any) -> None:
        """Emit a run or streaming event of the current run and step."""
        checkpoint = self.state.checkpoint
        self._events.append(
            event_type.trusted(
                id=self.next_id("event"),
                expert_key=checkpoint.expert.key,
                job_id=checkpoint.job_id,
                run_id=checkpoint.run_id,
                step_number=checkpoint.step_number,
                **payload,
            )  # pyright: ignore[reportArgumentType] -- a constructor of a generic bound has no known payload
        )

    def emit_runtime(self, event_type: type[RuntimeBase], **payload: Any) -> None:
        """Emit a runtime event of the current run."""
        checkpoint = self.state.checkpoint
        event = event_type.trusted(
            id=self.next_id("event"), job_id=checkpoint.job_id, run_id=checkpoint.run_id, **payload
        )
        self._events.append(event)  # pyright: ignore[reportArgumentType] -- see emit

    def skill_started(self, skill: SkillStart) -> None:
        """Tell that a skill came up; it ends with the run."""
        if skill.command is not None:
            self.emit_runtime(SkillStarting, skill_name=skill.name, command=skill.command, args=skill.args)
        connect = (skill.spawn_ms or 0.0) + (skill.handshake_ms or 0.0)
        self.emit_runtime(
            SkillConnected,
            skill_name=skill.name,
            server_info=(
                {"name": skill.server_name, "version": skill.server_version or ""} if skill.server_name else None
            ),
            spawn_duration_ms=skill.spawn_ms,
            handshake_duration_ms=skill.handshake_ms,
            tool_discovery_duration_ms=skill.discovery_ms,
            connect_duration_ms=connect,
            total_duration_ms=connect + (skill.discovery_ms or 0.0),
            renamed_tools=skill.renamed_tools,
        )
        if skill.name not in self.state.skill_names:
            self.set(skill_names=(*self.state.skill_names, skill.name))

    def skill_ended(self, name: str) -> None:
        """Tell that a skill was taken away while the run goes on."""
        if name in self.state.skill_names:
            self.emit_runtime(SkillDisconnected, skill_name=name)
            self.set(skill_names=tuple(other for other in self.state.skill_names if other != name))

    def initialize_runtime(self, *, answered: InteractiveAnswer | None = None) -> None:
        """Emit the event that opens every segment."""
        start = self.state.start
        self.emit_runtime(
            InitializeRuntime,
            runtime_version=start.settings.runtime_version,
            expert_name=start.expert.name,
            experts=tuple(start.experts),
            model=start.expert.model.model,
            max_steps=start.settings.limits.max_steps,
            max_retries=start.settings.limits.max_retries,
            timeout=start.settings.limits.timeout_ms,
            query=start.query if self.state.segment == 0 and start.begins_with_query else None,
            interactive_tool_call=answered,
        )

    def with_ids(self, message: MessageT) -> MessageT:
        """`message` with derived ids for itself, its parts and the parts of tool results."""
        parts: list[Any] = []
        for part in message.contents:
            changes: dict[str, Any] = {"id": self.next_id("part")}
            if part.type == "toolResultPart":
                changes["contents"] = self.parts_with_ids(part.contents)
            parts.append(part.replaced(**changes))
        return message.replaced(id=self.next_id("message"), contents=tuple(parts))

    def parts_with_ids(self, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        """Parts that have no id yet get one."""
        return tuple(part if part.id else part.replaced(id=self.next_id("part")) for part in parts)

    def append(self, message: AnyMessage, *, is_new: bool = True) -> None:
        """Add `message` (ids given) to the conversation and, if `is_new`, to the step."""
        self.set_checkpoint(messages=(*self.state.checkpoint.messages, message))
        self.set(position=self.state.position.after(message))
        if is_new:
            self.set_step(new_messages=(*self.state.step.new_messages, message))

    def tell_session(self, *, result: KnownResult | None = None, message: AnyMessage | None = None) -> None:
        """Note something for the next generation that the worker cannot know."""
        appendix: Appendix = self.state.appendix
        if result is not None:
            known = sorted((*appendix.results, result), key=lambda one: one.index)
            appendix = appendix.replaced(results=tuple(known))
        if message is not None:
            appendix = appendix.replaced(messages=(*appendix.messages, message))
        self.set(appendix=appendix)

    def count(self, usage: Usage) -> None:
        """Add `usage` to the step and to the run."""
        self.set_checkpoint(usage=self.state.checkpoint.usage + usage)
        self.set_step(usage=self.state.step.usage + usage)

    def measure_context(self, last_call: Usage) -> None:
        """Note how full the context window is after `last_call`."""
        self.set_checkpoint(context_window_usage=context_ratio(last_call, self.state.checkpoint.context_window))

    def result_of(self, index: int) -> ToolResult:
        """The wire form of the answer to call `index`."""
        call = self.state.calls[index]
        outcome = self.state.results[index]
        skill = call.skill_name if self.kind_of(index) != "delegate" else f"delegate/{call.skill_name}"
        return ToolResult(
            id=call.id,
            skill_name=skill,
            tool_name=call.tool_name,
            result=outcome.result,
            is_error=outcome.is_error,
        )

    def kind_of(self, index: int) -> str:
        """The class of call `index`; an unknown tool counts as MCP."""
        name = self.state.calls[index].tool_name
        return next((spec.kind for spec in self.state.toolset.specs if spec.name == name), "mcp")

    def next_checkpoint(self) -> Checkpoint:
        """The checkpoint the next step starts with."""
        checkpoint = self.state.checkpoint
        return checkpoint.model_copy(
            update={"id": self.next_id("checkpoint"), "step_number": checkpoint.step_number + 1}
        )

    def finish_step(self) -> bool:
        """Leave FinishingStep; returns whether the run goes on."""
        limit = self.state.start.settings.limits.max_steps
        if self.state.generations - self.state.earlier_generations >= limit:
            self.set_checkpoint(status="stoppedByExceededMaxSteps")
            self.emit(StopRunByExceededMaxSteps, checkpoint=self.state.checkpoint, step=self.state.step)
            return False
        following = self.next_checkpoint()
        self.emit(
            ContinueToNextStep,
            checkpoint=self.state.checkpoint,
            step=self.state.step,
            next_checkpoint=following,
        )
        self.set(checkpoint=following, step=Step(step_number=following.step_number), calls=(), results={})
        return True

    def new_segment(self, *, step_number: int, answered: InteractiveAnswer | None = None) -> None:
        """Open the next segment of the run: a new run id, a new checkpoint, the same conversation."""
        segment = self.state.segment + 1
        run_id = segment_run_id(self.state.start.run_id, segment)
        self.set(segment=segment)
        self.set_checkpoint(run_id=run_id, step_number=step_number)
        self.set_checkpoint(id=self.next_id("checkpoint"))
        self.set(step=Step(step_number=step_number))
        self.initialize_runtime(answered=answered)

    def delegated_by(self, index: int) -> DelegatedBy:
        """What a delegate's checkpoints say of this run."""
        call = self.state.calls[index]
        return DelegatedBy(
            expert=self.state.checkpoint.expert,
            tool_call_id=call.id,
            tool_name=call.tool_name,
            checkpoint_id=self.state.checkpoint.id,
            run_id=self.state.checkpoint.run_id,
        )

    def target(self, index: int) -> DelegationTarget:
        """The delegation of call `index` as checkpoints show it."""
        call = self.state.calls[index]
        return DelegationTarget(
            expert=self.state.toolset.experts[call.skill_name].ref,
            tool_call_id=call.id,
            tool_name=call.tool_name,
            query=str(call.args["query"]),
        )

    def run_result(self, *, text: str = "") -> RunResult:
        """How the run ended, from its checkpoint."""
        checkpoint = self.state.checkpoint
        return RunResult(
            status=checkpoint.status,
            text=text,
            expert_key=checkpoint.expert.key,
            run_id=checkpoint.run_id,
            checkpoint_id=checkpoint.id,
            last_step=checkpoint.step_number,
            usage=checkpoint.usage,
            failure=checkpoint.error,
        )
