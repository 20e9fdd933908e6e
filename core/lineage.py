"""Any checkpoint of a job → the seed of what goes on from there (decisions, "Identity and numbering")."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .checkpoint import Checkpoint, DelegatedBy
from .delegation import delegate_outcome
from .events import Event, StopRunByDelegate
from .expert import Expert
from .failures import UsageError
from .machine import advance
from .messages import InstructionMessage, UserMessage
from .run import RunInput
from .seed import Origin, Seed, SeedAnswer, has_open_calls
from .state import RunState, State
from .tools import ToolCall
from .triggers import DelegateFinished, Trigger

_FINAL = ("completed", "stoppedByError", "stoppedByExceededMaxSteps")
"""How a delegate ends that has something to report; a cancelled one goes on instead."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One trigger of a run and what became of the run by it."""

    trigger: Trigger
    state: RunState
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class ToldRun:
    """A run as its history tells it."""

    state: RunState
    """As it is now."""
    moments: Sequence[Moment] = ()

    @property
    def start(self) -> RunInput:
        """What the run was given."""
        return self.state.start


@dataclass(frozen=True, slots=True)
class Words:
    """What somebody says to the expert that goes on; nothing where it is just to go on."""

    message: UserMessage | None = None
    answer: str | None = None
    call_id: str | None = None
    """Which question the answer is for; without it the first open one."""


@dataclass(frozen=True, slots=True)
class Going:
    """Where a job goes on: the recorded input of its root, and the seed for the next one."""

    start: RunInput
    seed: Seed | None
    """Absent where the run never got as far as its instruction: it begins anew."""
    chosen: Checkpoint
    """The checkpoint that was asked for; a delegate's, where `seed` is that of the root above it."""


@dataclass(frozen=True)
class Lineage:
    """All runs of one job, the executions of its root in order; pure, wherever the runs were read."""

    job_id: str
    runs: Sequence[ToldRun] = field(default_factory=tuple[ToldRun, ...])

    @property
    def is_completed(self) -> bool:
        """Whether the job has answered its last query."""
        return self._root.state.checkpoint.status == "completed"

    @property
    def _root(self) -> ToldRun:
        return next(run for run in reversed(self.runs) if run.start.delegated_by is None)

    def latest(self, words: Words) -> Going:
        """Go on with the job as it stands; delegates that were cut off go on from where they were.

        Raises:
            UsageError: `words` do not fit what the job waits for.
        """
        root = self._root
        if not _has_begun(root.state.checkpoint):
            return Going(root.start, None, root.state.checkpoint)
        seed = self._from_latest(root)
        return Going(root.start, _told(seed, words), root.state.checkpoint)

    def at(self, checkpoint_id: str, words: Words) -> Going:
        """Go on from any checkpoint of any run; results of a chosen delegate's siblings are kept.

        Raises:
            UsageError: the job has no such checkpoint, or `words` do not fit it.
        """
        run, moment, chosen = self._find(checkpoint_id)
        seed = _told(_seed(run, moment.state, chosen), words) if _has_begun(chosen) else None
        while run.start.delegated_by is not None:
            parent, state = self._stop_above(run, run.start.delegated_by)
            others = self._cut_off(state)
            if seed is not None:
                others[_call_index(run.start)] = seed
            run, seed = parent, _seed(parent, state, state.checkpoint).replaced(delegates=others)
        return Going(run.start, seed, chosen)

    def _find(self, checkpoint_id: str) -> tuple[ToldRun, Moment, Checkpoint]:
        for run in self.runs:
            for moment in reversed(run.moments):
                # A segment that begins and ends a step at once tells its checkpoint twice; what it has become counts.
                for event in reversed(moment.events):
                    checkpoint = getattr(event, "checkpoint", None)
                    if isinstance(checkpoint, Checkpoint) and checkpoint.id == checkpoint_id:
                        return run, moment, checkpoint
        raise UsageError(
            f"Checkpoint {checkpoint_id} not found in job {self.job_id}",
            code="usage.unknown_checkpoint",
            hint=f"`perstack log --job {self.job_id}` shows the checkpoints of the job.",
        )

    def _from_latest(self, run: ToldRun) -> Seed:
        state = run.state
        seed = _seed(run, state, state.checkpoint)
        for index, delegate in self._delegates_of(state):
            result = delegate.state.result
            if result is not None and result.status in _FINAL:
                # Its parent was ended from outside before it could hear of it.
                outcome = delegate_outcome(seed.calls[index], result)
                usage = seed.checkpoint.usage + result.usage
                seed = seed.replaced(
                    results=dict(sorted({**seed.results, index: outcome}.items())),
                    checkpoint=seed.checkpoint.replaced(usage=usage),
                )
        return seed.replaced(delegates=self._cut_off(state))

    def _cut_off(self, state: RunState) -> dict[int, Seed]:
        """What the unfinished delegates of a stopped run go on from."""
        return {
            index: self._from_latest(delegate)
            for index, delegate in self._delegates_of(state)
            if _has_begun(delegate.state.checkpoint)
            and (delegate.state.result is None or delegate.state.result.status not in _FINAL)
        }

    def _delegates_of(self, state: RunState) -> list[tuple[int, ToldRun]]:
        """The delegates whose results a run still lacks, by call index; those that were ever started."""
        if not has_open_calls(state.checkpoint):
            return []
        found: dict[int, ToldRun] = {}
        for run in self.runs:
            by = run.start.delegated_by
            if by is None or by.run_id != state.checkpoint.run_id:
                continue
            generation, index = run.start.path[-1].split(".")
            if int(generation) == state.generations and int(index) not in state.results:
                found[int(index)] = run
        return sorted(found.items())

    def _stop_above(self, child: ToldRun, by: DelegatedBy) -> tuple[ToldRun, RunState]:
        """The run that waited for `child`, as it stood when all its other finished delegates had reported."""
        for run in self.runs:
            for at, moment in enumerate(run.moments):
                stop = next((event for event in moment.events if isinstance(event, StopRunByDelegate)), None)
                if stop is None or stop.checkpoint.id != by.checkpoint_id:
                    continue
                state = moment.state
                for later in run.moments[at + 1 :]:
                    if not isinstance(later.trigger, DelegateFinished) or state.state != State.CALLING_DELEGATES:
                        break
                    if later.trigger.index != _call_index(child.start) and later.trigger.result.status in _FINAL:
                        state = advance(state, later.trigger).state
                return run, state
        raise UsageError(
            f"The run that called {child.start.expert_key} is not in the history of job {self.job_id}.",
            code="usage.unknown_checkpoint",
        )


def _has_begun(checkpoint: Checkpoint) -> bool:
    """Whether there is a conversation; a session that could not be opened gave no instruction."""
    return bool(checkpoint.messages) and isinstance(checkpoint.messages[0], InstructionMessage)


def with_definition(seed: Seed, old: Expert, new: Expert) -> Seed:
    """The seed for an expert that was defined anew; what changed while the run worked still holds."""
    now = seed.toolset.delegates
    added = (key for key in now if key not in old.delegates)
    kept = (key for key in new.delegates if key in now or key not in old.delegates)
    return seed.replaced(toolset=seed.toolset.replaced(delegates=tuple(dict.fromkeys((*kept, *added)))))


def open_questions(seed: Seed) -> tuple[ToolCall, ...]:
    """What a person was asked when the run stopped."""
    return tuple(seed.calls[index] for index in _questions(seed))


def _questions(seed: Seed) -> list[int]:
    kinds = {spec.name: spec.kind for spec in seed.toolset.specs}
    return [
        index
        for index, call in enumerate(seed.calls)
        if index not in seed.results and kinds.get(call.tool_name) == "interactive"
    ]


def _call_index(start: RunInput) -> int:
    return int(start.path[-1].rpartition(".")[2])


def _seed(run: ToldRun, state: RunState, checkpoint: Checkpoint) -> Seed:
    """The run at `checkpoint`; `state` is what it was right then."""
    known = run.start.experts
    is_open = has_open_calls(checkpoint)
    dynamic = {key: expert for key, expert in state.toolset.experts.items() if known.get(key) != expert}
    return Seed(
        origin=Origin(
            job_id=checkpoint.job_id,
            run_id=checkpoint.run_id,
            checkpoint_id=checkpoint.id,
            step_number=checkpoint.step_number,
        ),
        checkpoint=checkpoint,
        position=state.position,
        toolset=state.toolset.replaced(experts=dynamic),
        # One that has not answered will be asked for again.
        generations=state.generations - state.is_generating,
        calls=state.calls if is_open else (),
        results=state.results if is_open else {},
    )


def _told(seed: Seed, words: Words) -> Seed:
    questions = open_questions(seed)
    if words.answer is not None:
        return seed.replaced(answer=SeedAnswer(index=_question(seed, words.call_id), text=words.answer))
    if words.message is not None:
        if questions:
            asked = questions[0]
            raise UsageError(
                f"{seed.checkpoint.expert.key} waits for an answer to {asked.tool_name} (call {asked.id}).",
                code="usage.question_open",
                hint="Give the text as the answer with -i, or with `perstack respond`.",
            )
        return seed.replaced(message=words.message)
    if seed.checkpoint.status == "completed":
        raise UsageError(
            f"{seed.checkpoint.expert.key} is done at checkpoint {seed.checkpoint.id}: there is nothing to resume.",
            code="usage.completed",
            hint="Give it another query.",
        )
    return seed


def _question(seed: Seed, call_id: str | None) -> int:
    questions = _questions(seed)
    found = next((index for index in questions if call_id in (None, seed.calls[index].id)), None)
    if found is None:
        which = f"no open question with the id {call_id}" if call_id and questions else "no open question"
        raise UsageError(
            f"There is {which} at checkpoint {seed.checkpoint.id}.",
            code="usage.no_question",
            hint="Leave -i out to give a new query.",
        )
    return found
