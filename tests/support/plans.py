"""Random jobs: what every model call, tool, delegate and person of a job comes to, and in which order it arrives."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st
from perstack.core.effects import PlannedCall
from perstack.core.expert import McpStdioSkill
from perstack.core.failures import Failure
from perstack.core.messages import ToolCallPart
from perstack.core.run import Limits, RunInput
from perstack.core.state import RunState
from perstack.core.tools import AddDelegate, AddExperts, AddSkill, RemoveDelegate, RemoveSkill, StateChange, ToolSpec
from perstack.core.tools import text_outcome as outcome
from perstack.core.triggers import GenerationFailed, GenerationLost, Trigger
from perstack.core.turn import Transition
from perstack.core.usage import Usage

from .play import Loss, ModelAnswer, Pending, Play, PlayedRun, ToolAnswer
from .scenarios import BASE, OBJECT, OVERLOADED, base_tools, call, expert, interactive_tool, run_input, say

TEAM = (
    expert("team", delegates=("@team/a", "@team/b")),
    expert("@team/a", delegates=("@team/b",)),
    expert("@team/b"),
)
FLY = ToolSpec(name="fly", skill_name="wings", input_schema=OBJECT)
SPECS = (
    *base_tools("readTextFile", "exec", "todo", "clearTodo", "attemptCompletion"),
    ToolSpec(name="alter", skill_name=BASE, input_schema=OBJECT),
    interactive_tool(),
)
CHANGES: tuple[StateChange, ...] = (
    AddSkill(skill=McpStdioSkill(name="wings"), tools=(FLY,)),
    RemoveSkill(skill_name="wings"),
    RemoveSkill(skill_name="user-input"),
    AddDelegate(expert_key="@team/a"),
    RemoveDelegate(expert_key="@team/b"),
    AddExperts(experts=(expert("@team/b", version="2.0.0"),)),
)
BROKEN = Failure(name="broken", message="it broke")


@dataclass(frozen=True)
class CallPlan:
    """One tool call and what it comes to."""

    tool: str
    ending: str = "ok"
    losses: tuple[bool, ...] = ()
    """Workers lost before the answer, by whether the call had started."""
    has_query: bool = True
    change: int = 0
    child: "RunPlan | None" = None
    has_own_id: bool = True


@dataclass(frozen=True)
class SayPlan:
    """One answer of the model."""

    kind: str = "tools"
    text: str = ""
    is_thinking: bool = False
    calls: tuple[CallPlan, ...] = ()
    attempts: int = 0
    losses: int = 0
    tokens: int = 1


@dataclass(frozen=True)
class RunPlan:
    """The answers one run gets; after the last it says `done`."""

    sayings: tuple[SayPlan, ...] = ()


@dataclass(frozen=True)
class JobPlan:
    """A whole job."""

    root: RunPlan
    max_steps: int = 100
    max_retries: int = 5
    people: int = 0
    """How many questions somebody answers."""
    arrivals: tuple[int, ...] = ()
    """Which of the things that happened is told next; first come, first told after the last."""
    cancel_after: int | None = None
    """Triggers before the root is cancelled."""
    survivors: tuple[bool, ...] = ()
    """Which of the things in flight end by themselves although their run is cancelled."""

    @property
    def start(self) -> RunInput:
        """The input of the root run."""
        return run_input(*TEAM, limits=Limits(max_steps=self.max_steps, max_retries=self.max_retries))


@dataclass
class PlannedPlay(Play):
    """Plays a planned job."""

    job: JobPlan = field(default_factory=lambda: JobPlan(RunPlan()))
    is_kept_as_json: bool = False
    """Whether a run is no more between two triggers than the JSON of its state."""
    observer: Callable[[PlayedRun, Trigger, Transition], None] | None = None
    _plans: dict[tuple[str, ...], RunPlan] = field(default_factory=dict[tuple[str, ...], RunPlan])
    _losses: dict[tuple[object, ...], int] = field(default_factory=dict[tuple[object, ...], int])
    _chosen: int = 0
    _survived: int = 0

    def __post_init__(self) -> None:
        self.specs = SPECS
        self.people = ("yes",) * self.job.people
        self.choose = self._next
        self.cancel_when = self._is_time_to_cancel

    def kept(self, state: RunState) -> RunState:
        if not self.is_kept_as_json:
            return state
        return RunState.model_validate_json(state.model_dump_json(by_alias=True, exclude_none=True))

    def observe(self, run: PlayedRun, trigger: Trigger, transition: Transition) -> None:
        if self.observer is not None:
            self.observer(run, trigger, transition)

    def model_answer(self, run: PlayedRun) -> ModelAnswer:
        plan = self._saying(run, run.said)
        key = (run.start.path, run.said)
        if self._losses.get(key, 0) < plan.losses:
            self._losses[key] = self._losses.get(key, 0) + 1
            return GenerationLost()
        run.said += 1
        return _said(plan)

    def tool_answer(self, run: PlayedRun, planned: PlannedCall) -> ToolAnswer:
        saying = run.said - 1
        number = int(planned.call.args["n"])
        plan = self._saying(run, saying).calls[number]
        key = (run.start.path, saying, number)
        lost = self._losses.get(key, 0)
        if lost < len(plan.losses):
            self._losses[key] = lost + 1
            return Loss(plan.losses[lost])
        return _answered(plan)

    def survives(self, pending: Pending) -> bool:
        self._survived += 1
        return self._survived <= len(self.job.survivors) and self.job.survivors[self._survived - 1]

    def _next(self, pending: Sequence[Pending]) -> int:
        self._chosen += 1
        chosen = self.job.arrivals[self._chosen - 1] if self._chosen <= len(self.job.arrivals) else 0
        return chosen % len(pending)

    def _is_time_to_cancel(self, _play: Play) -> bool:
        return self.job.cancel_after is not None and self.clock - 1000 >= self.job.cancel_after

    def _saying(self, run: PlayedRun, number: int) -> SayPlan:
        sayings = self._plan(run).sayings
        return sayings[number] if number < len(sayings) else SayPlan(kind="text", text="done")

    def _plan(self, run: PlayedRun) -> RunPlan:
        path = run.start.path
        if path not in self._plans:
            self._plans[path] = self.job.root if run.parent is None else self._child_plan(run, run.parent)
        return self._plans[path]

    def _child_plan(self, run: PlayedRun, parent: PlayedRun) -> RunPlan:
        generation, index = map(int, run.start.path[-1].split("."))
        number = int(parent.state.calls[index].args["n"])
        child = self._saying(parent, generation - 1).calls[number].child
        return child or RunPlan()


def _said(plan: SayPlan) -> ModelAnswer:
    usage = Usage(input_tokens=plan.tokens, output_tokens=1, total_tokens=plan.tokens + 1)
    thinking = "hm" if plan.is_thinking else ""
    calls = [_called(number, one) for number, one in enumerate(plan.calls)]
    match plan.kind:
        case "tools":
            return say(plan.text, *calls, thinking=thinking, usage=usage, attempts=plan.attempts)
        case "text":
            return say(plan.text or "so", thinking=thinking, usage=usage, attempts=plan.attempts)
        case "length":
            return say(plan.text, *calls, thinking=thinking, usage=usage, attempts=plan.attempts, finish="length")
        case "refusal":
            return say("no", usage=usage, finish="refusal")
        case "failed":
            return GenerationFailed(OVERLOADED, usage=usage)
        case _:
            return BROKEN


def _called(number: int, plan: CallPlan) -> ToolCallPart:
    args: dict[str, object] = {"n": number}
    if plan.has_query:
        args["query"] = f"task {number}"
    return call(plan.tool, f"c{number}" if plan.has_own_id else "same", **args)


def _answered(plan: CallPlan) -> ToolAnswer:
    if plan.ending == "failed":
        return BROKEN
    if plan.ending == "error":
        return outcome('{"error":"no"}', is_error=True)
    if plan.tool == "attemptCompletion":
        return outcome('{"remainingTodos":[{}]}' if plan.ending == "open" else "{}")
    answer = outcome(f"{plan.tool} answered")
    return answer.model_copy(update={"change": CHANGES[plan.change]}) if plan.tool == "alter" else answer


FEATURES = ("attempts", "cancel", "dynamic", "endings", "limits", "losses", "mistakes", "people", "repeated ids")
TOOLS = (*("readTextFile", "exec") * 4, "todo", "clearTodo", "attemptCompletion", "fly")


class _Author:
    """Makes up a job from a seed; strategies for trees of plans draw small ones only, and slowly."""

    def __init__(self, seed: int, features: frozenset[str], breadth: int) -> None:
        self._random = random.Random(seed)
        self._features = features
        self._breadth = breadth

    def job(self) -> JobPlan:
        is_limited, is_cancelled = self._has("limits", 0.5), self._has("cancel", 0.6)
        return JobPlan(
            root=self._run(2),
            max_steps=self._random.randint(1, 4) if is_limited else 100,
            max_retries=self._random.randint(0, 4),
            people=self._random.randint(0, 12),
            arrivals=tuple(self._random.randint(0, 5) for _ in range(40)),
            cancel_after=1 + int(30 * self._random.random() ** 2) if is_cancelled else None,
            survivors=tuple(self._random.random() < 0.5 for _ in range(6)),
        )

    def _has(self, feature: str, chance: float) -> bool:
        return self._random.random() < chance and feature in self._features

    def _losses(self, chance: float) -> int:
        return self._random.choice((1, 1, 2, 2, 2, 3)) if self._has("losses", chance) else 0

    def _run(self, depth: int) -> RunPlan:
        return RunPlan(tuple(self._saying(depth) for _ in range(self._random.randint(1, 2 + self._breadth))))

    def _saying(self, depth: int) -> SayPlan:
        kind = "tools"
        if self._has("endings", 0.06):
            kind = self._random.choice(("text", "refusal", "failed", "session"))
        elif self._has("mistakes", 0.15):
            kind = self._random.choice(("length", "empty"))
        return SayPlan(
            kind=kind,
            text=self._random.choice(("", " ", "words")),
            is_thinking=self._random.random() < 0.2,
            calls=tuple(self._call(depth) for _ in range(self._random.randint(1, self._breadth))),
            attempts=self._random.randint(1, 2) if self._has("attempts", 0.2) else 0,
            losses=self._losses(0.15),
            tokens=self._random.randint(0, 50),
        )

    def _call(self, depth: int) -> CallPlan:
        has_own_id = not self._has("repeated ids", 0.5)
        if self._random.random() < 0.35:
            has_query = not self._has("mistakes", 0.2)
            child = self._run(depth - 1) if depth else None
            return CallPlan(self._random.choice("ab"), has_query=has_query, child=child, has_own_id=has_own_id)
        tool = self._random.choice(TOOLS)
        if self._has("people", 0.25):
            tool = "askUser"
        elif self._has("dynamic", 0.2):
            tool = "alter"
        return CallPlan(
            tool,
            ending=self._random.choice(("ok", "ok", "error", "failed", "open")),
            losses=tuple(self._random.random() < 0.5 for _ in range(self._losses(0.25))),
            change=self._random.randrange(len(CHANGES)),
            has_own_id=has_own_id,
        )


@st.composite
def jobs(draw: st.DrawFn, *, without: str = "") -> JobPlan:
    """Jobs of up to three levels."""
    missing = draw(st.frozensets(st.sampled_from(FEATURES), max_size=4)) | {without}
    features = frozenset(FEATURES) - missing
    return _Author(draw(st.integers(0, 2**32)), features, draw(st.sampled_from((3, 4, 2)))).job()


def play(job: JobPlan, **options: object) -> PlannedPlay:
    """`job`, played to its end."""
    played = PlannedPlay(job=job, **options)  # pyright: ignore[reportArgumentType] -- fields of the class
    played.run(job.start)
    return played
