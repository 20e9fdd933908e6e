"""What holds for every job, however its model, tools, delegates, people and workers behave."""

from collections import Counter
from dataclasses import replace
from typing import Any, cast

from hypothesis import given
from perstack.activities.redaction import Redactor
from perstack.activities.session import RunSession
from perstack.activities.skills.manager import SkillManager
from perstack.core.conversation import Appendix
from perstack.core.effects import CallTools, Generate
from perstack.core.events import Event, ResumeFromStop, RunBase, StartRun
from perstack.core.fold import Fold
from perstack.core.messages import ExpertMessage, Message, ToolMessage
from perstack.core.state import RunState, State
from perstack.core.tools import Toolset
from perstack.core.triggers import (
    CancelRequested,
    DelegateFinished,
    Generated,
    GenerationFailed,
    GenerationLost,
    SessionOpened,
    ToolFinished,
    ToolLost,
    Trigger,
)
from perstack.core.turn import Transition
from perstack.core.usage import NO_USAGE, Usage
from support.plans import JobPlan, PlannedPlay, jobs, play
from support.play import PlayedRun

SEGMENT_ENDS = {"stopRunByDelegate", "stopRunByInteractiveTool"}
RUN_ENDS = {
    "completeRun",
    "stopRunByExceededMaxSteps",
    "stopRunByError",
    "stopRunByCancellation",
}


def outcome_of(played: PlannedPlay) -> dict[tuple[str, ...], tuple[str, list[Generate], list[str]]]:
    """Final state, model calls and events of each run, times aside."""
    return {
        run.start.path: (
            run.state.model_dump_json(),
            run.asked,
            [event.model_copy(update=without_times(event)).wire_json() for event in run.events],
        )
        for run in played.runs
    }


def without_times(event: Event) -> dict[str, Any]:
    step = getattr(event, "step", None)
    changes: dict[str, Any] = {"timestamp": 0}
    if step is not None:
        changes["step"] = step.model_copy(update={"started_at": 0, "finished_at": 0})
    return changes


def assert_answered(messages: tuple[Message, ...]) -> None:
    """Each call of an expert message is answered by the next message, once and in order; the last may be open."""
    for at, message in enumerate(messages):
        calls = [part.tool_call_id for part in message.calls] if isinstance(message, ExpertMessage) else []
        following = messages[at + 1] if at + 1 < len(messages) else None
        answers = [part.tool_call_id for part in following.contents] if isinstance(following, ToolMessage) else []
        assert answers == calls or (calls and following is None)


@given(jobs())
def test_every_call_is_answered_once(job: JobPlan) -> None:
    def observe(run: PlayedRun, _trigger: Trigger, transition: Transition) -> None:
        state = transition.state
        assert_answered(state.checkpoint.messages)
        assert not set(state.running) & set(state.results)
        assert set(state.running) | set(state.results) <= set(range(len(state.calls)))
        open_calls = getattr(state.checkpoint.messages[-1:], "calls", None)
        assert open_calls is None or run.state.calls

    played = play(job, observer=observe)
    for run in played.runs:
        checkpoint = run.state.checkpoint
        last = checkpoint.messages[-1] if checkpoint.messages else None
        if isinstance(last, ExpertMessage) and last.calls:
            answered = [result.id for result in checkpoint.partial_tool_results or ()]
            pending = [one.id for one in checkpoint.pending_tool_calls or ()]
            delegated = [one.tool_call_id for one in checkpoint.delegate_to or ()]
            # What a later resume needs: no call that is neither answered, nor asked, nor delegated.
            assert Counter(part.tool_call_id for part in last.calls) <= Counter([*answered, *pending, *delegated])
            assert checkpoint.status != "completed"


@given(jobs())
def test_usage_only_grows_and_is_the_sum_of_what_was_reported(job: JobPlan) -> None:
    reported: dict[tuple[str, ...], Usage] = {}

    def observe(run: PlayedRun, trigger: Trigger, transition: Transition) -> None:
        before = reported.get(run.start.path, NO_USAGE)
        after = before
        match trigger:
            case Generated(generation):
                after = sum((one.usage for one in generation.attempts), before) + generation.usage
            case GenerationFailed(attempts=attempts, usage=usage):
                after = sum((one.usage for one in attempts), before) + usage
            case DelegateFinished(result=result):
                after = before + result.usage
            case _:
                pass
        reported[run.start.path] = after
        assert transition.state.checkpoint.usage == after

    play(job, observer=observe)


@given(jobs())
def test_a_run_goes_on_from_the_json_of_its_state_as_if_nothing_had_happened(job: JobPlan) -> None:
    assert outcome_of(play(job)) == outcome_of(play(job, is_kept_as_json=True))


@given(jobs())
def test_a_state_is_its_json(job: JobPlan) -> None:
    def observe(_run: PlayedRun, _trigger: Trigger, transition: Transition) -> None:
        text = transition.state.model_dump_json(by_alias=True, exclude_none=True)
        assert RunState.model_validate_json(text) == transition.state

    play(job, observer=observe)


@given(jobs())
def test_a_cancelled_run_asks_for_nothing_more_and_ends_as_cancelled(job: JobPlan) -> None:
    def observe(run: PlayedRun, _trigger: Trigger, transition: Transition) -> None:
        if run.has_cancel:
            assert not transition.effects or transition.state.state == State.STOPPED

    for run in play(job, observer=observe).runs:
        if run.has_cancel and run.state.result is not None:
            ended_before = not any(isinstance(trigger, CancelRequested) for trigger, _ in run.told)
            assert ended_before or run.state.result.status == "stoppedByCancellation"


@given(jobs(without="cancel"))
def test_the_order_in_which_parallel_results_arrive_changes_nothing(job: JobPlan) -> None:
    assert outcome_of(play(job)) == outcome_of(play(replace(job, arrivals=())))


@given(jobs())
def test_ids_are_unique(job: JobPlan) -> None:
    played = play(job)
    assert max(Counter(event.id for event in played.events).values()) == 1
    for run in played.runs:
        messages = run.state.checkpoint.messages
        assert len({message.id for message in messages} - {""}) == len(messages)
        parts = [part.id for message in messages for part in message.contents]
        parts += [
            content.id
            for message in messages
            if isinstance(message, ToolMessage)
            for part in message.contents
            for content in part.contents
        ]
        assert len(set(parts) - {""}) == len(parts)


@given(jobs())
def test_steps_never_fall_inside_a_run_and_follow_those_of_its_delegates(job: JobPlan) -> None:
    played = play(job)
    for run in played.runs:
        steps = [event.step_number for event in run.events if isinstance(event, RunBase)]
        assert steps == sorted(steps)
        assert steps[0] == run.start.first_step
        for child in (child for child in played.runs if child.parent is run):
            after = [event.step_number for event in run.events if isinstance(event, ResumeFromStop)]
            own = [event.step_number for event in child.events if isinstance(event, RunBase)]
            assert own[0] > run.start.first_step
            assert all(step > own[-1] for step in after if step > own[0])


@given(jobs())
def test_segments_open_and_close_once_and_a_run_ends_once(job: JobPlan) -> None:
    for run in play(job).runs:
        marks: list[str] = []
        for event in run.events:
            if isinstance(event, (StartRun, ResumeFromStop)):
                marks.append("open")
            elif event.type in SEGMENT_ENDS:
                marks.append("close")
            elif event.type in RUN_ENDS:
                marks.append("end")
        segments = {event.run_id for event in run.events}
        assert len(segments) == marks.count("open")
        assert "".join(mark[0] for mark in marks).replace("oc", "") in ("", "oe", "e")
        assert (run.state.state == State.STOPPED) == (marks[-1] == "end") == (run.state.result is not None)
        assert run.state.state != State.STOPPED or not run.state.is_waiting


@given(jobs())
def test_a_fold_of_what_a_run_was_told_is_the_run(job: JobPlan) -> None:
    for run in play(job).runs:
        fold = Fold(run.start)
        events = [event for trigger, at in run.told for event in fold.feed(trigger, at)]
        assert fold.state == run.fold.state == run.state
        assert events == run.events


@given(jobs())
def test_a_worker_reaches_the_position_of_every_call_from_what_it_sees(job: JobPlan) -> None:
    sessions: dict[tuple[str, ...], RunSession] = {}

    def observe(run: PlayedRun, trigger: Trigger, transition: Transition) -> None:
        session = sessions.setdefault(run.start.path, new_session(run))
        match trigger:
            case SessionOpened(report):
                session.toolset = session.toolset.model_copy(update={"skill_tools": report.skill_tools})
                session.open_conversation(report.instruction or "")
            case Generated(generation):
                message = ExpertMessage(contents=generation.contents)
                if generation.finish_reason in ("stop", "toolCalls") and message.calls:
                    session.append(message)
                    session.outcomes = {}
            case ToolFinished(index, outcome):
                session.outcomes[index] = outcome
            case GenerationLost() | ToolLost():
                session = sessions[run.start.path] = new_session(run)
                session.restore(transition.state)
            case _:
                pass
        for effect in transition.effects:
            if isinstance(effect, Generate):
                assert session.reach(effect.position, effect.appendix)
                assert session.toolset == transition.state.toolset
            elif isinstance(effect, CallTools):
                assert session.reach(effect.position, Appendix())
                for one in effect.calls:
                    assert session.calls[one.index].args == one.call.args

    play(job, observer=observe)


def new_session(run: PlayedRun) -> RunSession:
    start = run.start
    nothing = cast("Any", None)
    toolset = Toolset(delegates=start.expert.delegates, experts=start.experts)
    skills = SkillManager(nothing, nothing)
    skills.detach_soon = lambda name: None
    return RunSession(
        start=start,
        provider=nothing,
        skills=skills,
        redactor=Redactor(()),
        toolset=toolset,
    )


def test_the_random_jobs_have_all_a_job_can_have() -> None:
    seen: set[str] = set()
    statuses: set[str] = set()

    @given(jobs())
    def look(job: JobPlan) -> None:
        played = play(job)
        seen.update(event.type for event in played.events)
        seen.update(type(trigger).__name__ for run in played.runs for trigger, _ in run.told)
        seen.update(f"depth {len(run.start.path)}" for run in played.runs)
        statuses.update(run.state.checkpoint.status for run in played.runs)

    look()
    assert statuses >= {"completed", "stoppedByInteractiveTool", "stoppedByError", "stoppedByCancellation"}
    assert seen >= {"depth 2", "stopRunByExceededMaxSteps", "retry", "ToolLost", "ToolFailed", "SessionFailed"}
