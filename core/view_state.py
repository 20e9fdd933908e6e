"""What a job looks like, while it works and afterwards: one reducer from its events, for every screen and log."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from .activity_log import ActivityFold
from .ancestry import Ancestry, Past
from .checkpoint import Checkpoint, Step
from .events import (
    CallDelegate,
    CallTools,
    CompleteRun,
    CompleteStreamingReasoning,
    CompleteStreamingRunResult,
    ContinueToNextStep,
    Event,
    InitializeRuntime,
    ResumeFromStop,
    Retry,
    RunBase,
    StartGeneration,
    StartRun,
    StartStreamingReasoning,
    StartStreamingRunResult,
    StopRunByCancellation,
    StopRunByDelegate,
    StopRunByError,
    StopRunByExceededMaxSteps,
    StopRunByInteractiveTool,
    StreamReasoning,
    StreamRunResult,
)
from .ids import segment_run_id
from .messages import InputMessage, TextPart, UserMessage
from .run_view import WAITING, WORKING, Entry, LiveText, Phase, RunView, Segment, StepView
from .seed import Origin
from .tools import ToolCall
from .usage import NO_USAGE, Usage, context_ratio

__all__ = [
    "WAITING",
    "WORKING",
    "Change",
    "Entry",
    "LiveText",
    "Phase",
    "RunView",
    "Segment",
    "StepView",
    "ViewState",
]

_STOPS: dict[str, Phase] = {
    "completeRun": "completed",
    "stopRunByError": "failed",
    "stopRunByExceededMaxSteps": "stepLimit",
    "stopRunByCancellation": "cancelled",
    "stopRunByDelegate": "waitingForDelegates",
    "stopRunByInteractiveTool": "waitingForPerson",
}
_Stop = (
    CompleteRun
    | StopRunByError
    | StopRunByExceededMaxSteps
    | StopRunByCancellation
    | StopRunByDelegate
    | StopRunByInteractiveTool
)

_Live = StartStreamingReasoning | StreamReasoning | StartStreamingRunResult | StreamRunResult
_LIVE = (StartStreamingReasoning, StreamReasoning, StartStreamingRunResult, StreamRunResult)


@dataclass(frozen=True)
class Change:
    """What one event changed."""

    run: RunView | None = None
    """The run it is about."""
    entries: tuple[Entry, ...] = ()
    """What it added to the log."""
    is_new_run: bool = False
    """It began the run, or told its place in the tree."""
    is_live: bool = False
    """Nothing but live text changed."""


_NOTHING = Change()


@dataclass
class ViewState:
    """Folds the events of a job, of all its runs and executions in the order of a follower, into what screens show."""

    roots: list[RunView] = field(default_factory=list[RunView])
    """One for each execution of the job; the last is the one that counts."""
    runs: list[RunView] = field(default_factory=list[RunView])
    """In the order in which they began."""
    log: list[Entry] = field(default_factory=list[Entry])
    """Of all runs."""
    events: int = 0
    job_id: str = ""
    started_at: int = 0
    last_at: int = 0
    _by_segment: dict[str, RunView] = field(default_factory=dict[str, RunView])
    _next_segments: dict[str, RunView] = field(default_factory=dict[str, RunView])
    """By the id that a run's next segment will have."""
    _ancestry: Ancestry = field(default_factory=Ancestry)
    _origins: dict[str, Origin] = field(default_factory=dict[str, Origin])
    """Of runs that go on from another job."""
    _activities: ActivityFold = field(default_factory=ActivityFold)
    _seen: set[str] = field(default_factory=set[str])
    """The ids of all events but the live ones."""

    @property
    def root(self) -> RunView | None:
        """The root run of the newest execution."""
        return self.roots[-1] if self.roots else None

    @property
    def usage(self) -> Usage:
        """Of all runs of all executions, what nobody went on from included."""
        return sum((run.usage for run in self.runs), NO_USAGE)

    @property
    def questions(self) -> tuple[ToolCall, ...]:
        """What the job asks a person now."""
        return self.root.questions if self.root else ()

    def run_of(self, run_id: str) -> RunView | None:
        """The run with that id, or with a segment of that id."""
        return self._by_segment.get(run_id)

    def tree(self, root: RunView) -> Iterator[tuple[RunView, int]]:
        """A run and all below it with their depths, parents first."""
        stack = [(root, 0)]
        while stack:
            run, depth = stack.pop()
            yield run, depth
            stack.extend((child, depth + 1) for child in reversed(run.children))

    def end_from_outside(self, run_id: str, closed: str, at: int) -> Change:
        """A run was ended by somebody else, which no event tells; `closed` in Temporal's terms."""
        run = self._by_segment.get(run_id)
        if run is None or run.has_ended:
            return _NOTHING
        run.closed, run.questions, run.live = closed, (), LiveText()
        run.stand("ended", at)
        self.last_at = max(self.last_at, at)
        return Change(run)

    def tell_origin(self, run_id: str, origin: Origin) -> None:
        """A run goes on from another job, which no event tells; it may be told before the run is."""
        self._origins[run_id] = origin
        run = self._by_segment.get(run_id)
        if run is not None and run.has_past and run.past is None:
            run.past = Past.of(origin)

    def feed(self, event: Event) -> Change:
        """Take the next event; the same one twice changes nothing."""
        if isinstance(event, _LIVE):
            return self._said(event)
        if event.id in self._seen:
            return _NOTHING
        self._seen.add(event.id)
        self._count(event)
        if isinstance(event, InitializeRuntime):
            return self._initialized(event)
        run = self._by_segment.get(event.run_id)
        if run is None or not isinstance(event, RunBase):
            return _NOTHING
        is_placed = self._take(run, event)
        added = tuple(Entry(activity, event.timestamp, run) for activity in self._activities.feed(event))
        self.log.extend(added)
        run.log.extend(added)
        return Change(run, added, is_new_run=is_placed)

    def _count(self, event: Event) -> None:
        self.events += 1
        self.last_at = max(self.last_at, event.timestamp)

    def _said(self, event: "_Live") -> Change:
        run = self._by_segment.get(event.run_id)
        if run is None or not run.is_news(event):
            return _NOTHING
        self._count(event)
        live = run.live
        match event:
            case StartStreamingReasoning():
                live.reasoning, live.is_reasoning_active = "", True
            case StreamReasoning(delta=delta):
                live.reasoning += delta
                live.is_reasoning_active = True
            case StartStreamingRunResult():
                live.reasoning, live.is_reasoning_active = "", False
                live.run_result, live.is_run_result_active = "", True
            case StreamRunResult(delta=delta):
                live.run_result += delta
                live.is_run_result_active = True
        run.stand("answering" if live.is_run_result_active else "reasoning", event.timestamp)
        return Change(run, is_live=True)

    def _initialized(self, event: InitializeRuntime) -> Change:
        run = self._next_segments.pop(event.run_id, None)
        if run is None:
            run = RunView(event.run_id, event.expert_name, event.model, event.timestamp, query=event.query or "")
            run.max_steps = event.max_steps
            self.runs.append(run)
            self.job_id = self.job_id or event.job_id
            self.started_at = self.started_at or event.timestamp
        run.segments.append(Segment(event.run_id, event.timestamp, place=len(self._by_segment)))
        self._by_segment[event.run_id] = run
        self._next_segments[segment_run_id(run.run_id, len(run.segments))] = run
        run.stand("starting", event.timestamp)
        return Change(run, is_new_run=len(run.segments) == 1)

    def _take(self, run: RunView, event: RunBase) -> bool:
        """Follow the run; whether it has found its place by this event."""
        run.step_number = event.step_number
        is_placed = False
        match event:
            case StartRun(initial_checkpoint=checkpoint, input_messages=messages):
                is_placed = self._placed(run, event.expert_key, checkpoint, messages)
            case ResumeFromStop(checkpoint=checkpoint):
                is_placed = self._placed(run, event.expert_key, checkpoint, ())
                self._ancestry.close(run.run_id, checkpoint)
            case StartGeneration():
                run.generate()
                run.stand("generating", event.timestamp)
            case CompleteStreamingReasoning():
                run.live.is_reasoning_active = False
            case CompleteStreamingRunResult():
                run.live.is_run_result_active = False
            case Retry(usage=usage):
                run.count(usage)
                run.live = LiveText()
                run.stand("generating", event.timestamp)
            case CallTools(usage=usage, new_message=message, tool_calls=calls):
                run.count(usage)
                run.live, run.calls = LiveText(), calls
                if usage != NO_USAGE:
                    run.context_window_usage = context_ratio(usage, run.context_window)
                self._ancestry.say(run.run_id, event.step_number, (message,))
                run.stand("callingTools", event.timestamp)
            case CallDelegate(tool_calls=calls):
                run.segments[-1].delegations = calls
            case ContinueToNextStep(checkpoint=checkpoint, step=step, next_checkpoint=following):
                self._stepped(run, event.run_id, step, checkpoint)
                _measure(run, following)
            case _ if isinstance(event, _Stop):
                self._stopped(run, event)
            case _:
                pass
        self._ancestry.say(run.run_id, event.step_number, ())
        return is_placed

    def _placed(
        self, run: RunView, expert_key: str, checkpoint: Checkpoint, messages: tuple[InputMessage, ...]
    ) -> bool:
        """A segment has begun: where the run belongs, what it was asked, what it goes on from."""
        _measure(run, checkpoint)
        if len(run.segments) > 1:
            return False
        run.expert_key = expert_key
        run.first_step, run.has_past = checkpoint.step_number, bool(checkpoint.messages)
        run.past = self._ancestry.begin(run.run_id, checkpoint, messages)
        run.continues = self._by_segment.get(run.past.run_id) if run.past else None
        if run.has_past and run.past is None and run.run_id in self._origins:
            run.past = Past.of(self._origins[run.run_id])
        run.has_query = bool(messages)
        run.query = _text(messages) or run.query or (run.continues.query if run.continues else "")
        above = checkpoint.delegated_by
        if above is None:
            self.roots.append(run)
            return True
        run.caller, run.call_id = above.run_id, above.tool_call_id
        run.parent = self._by_segment.get(above.run_id)
        if run.parent is not None:
            run.parent.children.append(run)
            run.parent.children.sort(key=_call_place)
        return True

    def _stepped(self, run: RunView, run_id: str, step: Step, checkpoint: Checkpoint) -> None:
        run.settle(StepView(run_id, step, checkpoint))
        self._ancestry.say(run.run_id, step.step_number, step.new_messages)
        self._ancestry.close(run.run_id, checkpoint)

    def _stopped(self, run: RunView, event: _Stop) -> None:
        self._stepped(run, event.run_id, event.step, event.checkpoint)
        _measure(run, event.checkpoint)
        run.live = LiveText()
        run.failure = event.error if isinstance(event, StopRunByError) else None
        is_asking = isinstance(event, StopRunByInteractiveTool)
        run.questions = tuple(event.checkpoint.pending_tool_calls or ()) if is_asking else ()
        run.stand(_STOPS[event.type], event.timestamp)


def _measure(run: RunView, checkpoint: Checkpoint) -> None:
    run.context_window = checkpoint.context_window
    run.context_window_usage = checkpoint.context_window_usage


def _call_place(run: RunView) -> tuple[int, int]:
    """Where the call of a delegate stands among all calls of delegates that its parent made."""
    assert run.parent is not None, "only a delegate has a place below another run"
    for place, segment in enumerate(run.parent.segments):
        if segment.run_id == run.caller:
            calls = [call.id for call in segment.delegations]
            return place, calls.index(run.call_id) if run.call_id in calls else len(calls)
    return len(run.parent.segments), 0


def _text(messages: tuple[InputMessage, ...]) -> str:
    for message in messages:
        if isinstance(message, UserMessage):
            return next((part.text for part in message.contents if isinstance(part, TextPart)), "")
    return ""
