"""What screens and logs show of a job, event by event.

`pytest tests/unit/test_view_state.py --update-goldens` writes `tests/golden/views` anew; read the difference.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from perstack.core.checkpoint import Checkpoint
from perstack.core.events import (
    CallTools,
    CompleteStreamingReasoning,
    CompleteStreamingRunResult,
    Event,
    InitializeRuntime,
    RunBase,
    StartGeneration,
    StartStreamingReasoning,
    StartStreamingRunResult,
    StreamReasoning,
    StreamRunResult,
    event_adapter,
)
from perstack.core.lineage import Lineage, ToldRun, Words
from perstack.core.run import RunInput
from perstack.core.seed import Origin
from perstack.core.view_state import WAITING, WORKING, LiveText, RunView, ViewState
from support.lineages import checkpoints_of, lineage_of, next_input, user
from support.play import Play
from support.scenarios import call, complete, say, words_of
from support.stories import STORIES, TEAM, WITH_PEOPLE, command
from support.views import Replay, shown, view_of

GOLDEN = Path(__file__).parent.parent / "golden" / "views"
PAIRS = [(name, at) for name, story in STORIES.items() for at in range(len(list(checkpoints_of(story()))))]


def walk(events: list[Event]) -> list[str]:
    """What each run did, in its order, each thing once in a row."""
    view = ViewState()
    seen: dict[str, list[str]] = {}
    for event in events:
        run = view.feed(event).run
        if run is not None and seen.setdefault(run.run_id, [])[-1:] != [run.phase]:
            seen[run.run_id].append(run.phase)
    return [f"{view.runs.index(run)} {run.expert_key}: {' '.join(seen[run.run_id])}" for run in view.runs]


@pytest.mark.parametrize("name", STORIES)
def test_a_job_is_shown_as_ever(name: str, is_updating_goldens: bool) -> None:
    events = STORIES[name]().events
    text = "\n".join((*shown(view_of(events)), "", *walk(events), ""))
    file = GOLDEN / f"{name}.txt"
    if is_updating_goldens:
        GOLDEN.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def test_there_is_a_golden_for_every_story_and_no_other() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(STORIES)


@pytest.mark.parametrize("name", STORIES)
def test_after_every_trigger_a_run_is_shown_as_the_machine_has_it(name: str) -> None:
    replay, view, told = Replay(STORIES[name]()), ViewState(), list[Event]()
    for events in replay.turns():
        told += events
        for event in events:
            view.feed(event)
        for run_id, expected in replay.expected.items():
            run = view.run_of(run_id)
            assert run is not None
            assert expected.differences(run) == [], (run.expert_key, told[-1])
    assert told == replay.play.events


@pytest.mark.parametrize("name", STORIES)
def test_every_beginning_of_a_job_makes_sense(name: str) -> None:
    view, longest = ViewState(), 0
    for event in STORIES[name]().events:
        change = view.feed(event)
        assert change.is_live is False
        assert change.run is not None or not isinstance(event, RunBase)
        placed = [run for root in view.roots for run, _ in view.tree(root)]
        assert len(placed) == len(set(map(id, placed)))
        assert {id(run) for run in view.runs} - set(map(id, placed)) == {
            id(run) for run in view.runs if run.phase == "starting" and not run.first_step
        }
        assert len(view.log) >= longest
        longest = len(view.log)
        assert sorted(map(id, view.log)) == sorted(id(entry) for run in view.runs for entry in run.log)
        for run in view.runs:
            check(run, view)


def check(run: RunView, view: ViewState) -> None:
    """What holds of every run at every moment."""
    last = run.segments[-1]
    assert run.phase == last.phase
    assert (run.is_working, run.is_waiting, run.has_ended).count(True) == 1
    assert (last.ended_at is None) == run.is_working
    assert all(segment.phase in WAITING and segment.ended_at for segment in run.segments[:-1])
    assert [segment.place for segment in run.segments] == sorted(segment.place for segment in run.segments)
    assert (run.ended_at is not None) == run.has_ended
    assert bool(run.questions) == (run.phase == "waitingForPerson")
    assert run.live == LiveText()
    assert all(child.parent is run and child.started_at >= run.started_at for child in run.children)
    assert all(view.run_of(segment.run_id) is run for segment in run.segments)
    if any(not child.has_ended for child in run.children):
        assert run.phase == "waitingForDelegates"


@pytest.mark.parametrize("name", STORIES)
def test_events_told_again_change_nothing(name: str) -> None:
    events = STORIES[name]().events
    once = view_of(events)
    ways = {
        "each twice": [event for event in events for _ in range(2)],
        "all twice": [*events, *events],
        "half, then from the beginning": [*events[: len(events) // 2], *events],
    }
    for way, told in ways.items():
        view = view_of(told)
        assert shown(view) == shown(once), way
        assert view.events == len(events)
        assert [entry.activity for entry in view.log] == [entry.activity for entry in once.log]


def test_what_is_known_of_a_job_is_its_id_and_its_times() -> None:
    events = STORIES["parallel"]().events
    view = view_of(events)
    assert (view.job_id, view.events, view.started_at) == ("job", len(events), events[0].timestamp)
    assert view.last_at == max(event.timestamp for event in events)


def test_nothing_is_known_before_anything_was_told() -> None:
    view = ViewState()
    assert (view.root, view.questions, view.runs, view.usage.total_tokens) == (None, (), [], 0)
    assert view.run_of("nobody") is None


def test_events_of_a_run_whose_beginning_is_not_known_are_left_out() -> None:
    events = STORIES["chain"]().events
    view = view_of(event for event in events if not isinstance(event, InitializeRuntime))
    assert (view.runs, view.log) == ([], [])
    assert view.events == sum(not isinstance(event, InitializeRuntime) for event in events)


def test_an_id_of_any_segment_leads_to_the_run() -> None:
    view = view_of(STORIES["mixed"]().events)
    root = view.root
    assert root is not None
    assert len(root.segments) == 4
    assert {view.run_of(segment.run_id) for segment in root.segments} == {root}


def test_delegates_stand_in_the_order_of_their_calls_whoever_began_first() -> None:
    answers = {
        "team": [
            say("", call("b", "1", query="1"), call("a", "2", query="2"), call("b", "3", query="3")),
            say("", call("a", "1", query="4")),
        ]
    }
    play = Play(answers, choose=lambda pending: len(pending) - 1)
    play.run(TEAM)
    view = view_of(play.events)
    assert view.root is not None
    assert [run.query for run in view.root.children] == ["1", "2", "3", "4"]
    assert [run.query for run in view.runs] == ["hello", "3", "2", "1", "4"]
    assert [(run.caller, run.call_id) for run in view.root.children] == [
        (view.root.segments[place].run_id, call_id) for place, call_id in ((0, "1"), (0, "2"), (0, "3"), (1, "1"))
    ]


def test_a_change_says_which_run_it_is_about_and_what_it_added() -> None:
    view = ViewState()
    changes = [(event.type, view.feed(event)) for event in STORIES["chain"]().events]
    began = [(kind, change.run) for kind, change in changes if change.is_new_run]
    assert [(kind, run.expert_key) for kind, run in began if run] == [
        (kind, key) for key in ("top", "@top/mid", "@top/low") for kind in ("initializeRuntime", "startRun")
    ]
    added = [entry for _, change in changes for entry in change.entries]
    assert added == view.log
    assert all(entry.run.expert_key == entry.activity.expert_key for entry in added)
    assert [entry.at for entry in added] == sorted(entry.at for entry in added)


def test_before_its_first_event_a_run_goes_by_the_name_of_its_expert() -> None:
    view = ViewState()
    opening = STORIES["chain"]().events[0]
    assert isinstance(opening, InitializeRuntime)
    change = view.feed(opening.replaced(expert_name="The Top"))
    assert change.run is not None
    assert (change.run.expert_key, change.run.query, view.roots) == ("The Top", "hello", [])
    for event in STORIES["chain"]().events[1:4]:
        view.feed(event)
    assert (change.run.expert_key, view.roots) == ("top", [change.run])


# Live text (contract 2 §6.2)


def generating() -> tuple[ViewState, StartGeneration]:
    """A job that waits for its model."""
    view = ViewState()
    for event in STORIES["completion-with-text-before"]().events:
        view.feed(event)
        if isinstance(event, StartGeneration):
            return view, event
    raise AssertionError


def live(kind: type[RunBase], generation: StartGeneration, name: str, text: str = "") -> Event:
    """An event of a generation, told right after it began; `text` is what it says."""
    fields = generation.model_dump(include={"expert_key", "job_id", "run_id", "step_number"})
    told = {"type": kind.model_fields["type"].default, "id": name, "timestamp": generation.timestamp + 1}
    return event_adapter.validate_python({**fields, **told, "delta": text, "text": text})


def test_reasoning_and_text_are_shown_while_they_are_said() -> None:
    view, generation = generating()
    run = view.runs[0]
    steps: list[tuple[Event, str, LiveText]] = [
        (live(StartStreamingReasoning, generation, "1"), "reasoning", LiveText("", True)),
        (live(StreamReasoning, generation, "2", "let "), "reasoning", LiveText("let ", True)),
        (live(StreamReasoning, generation, "3", "me"), "reasoning", LiveText("let me", True)),
        (live(StartStreamingRunResult, generation, "4"), "answering", LiveText("", False, "", True)),
        (live(StreamRunResult, generation, "5", "so "), "answering", LiveText("", False, "so ", True)),
        (live(StreamRunResult, generation, "6", "be it"), "answering", LiveText("", False, "so be it", True)),
    ]
    for event, phase, text in steps:
        change = view.feed(event)
        assert (change.run, change.is_live, change.entries) == (run, True, ())
        assert (run.phase, run.live) == (phase, text)
        again = view.feed(event)
        assert (again.run, run.live) == (None, text)
    assert (view.events, view.last_at) == (4 + len(steps), generation.timestamp + 1)


def test_the_first_piece_shows_although_its_beginning_was_missed() -> None:
    view, generation = generating()
    view.feed(live(StreamReasoning, generation, "1", "hm"))
    assert (view.runs[0].phase, view.runs[0].live) == ("reasoning", LiveText("hm", True))
    view.feed(live(StreamRunResult, generation, "2", "ah"))
    assert (view.runs[0].phase, view.runs[0].live) == ("answering", LiveText("hm", True, "ah", True))


def test_what_was_said_stays_until_the_calls_are_known() -> None:
    view, generation = generating()
    run = view.runs[0]
    view.feed(live(StreamReasoning, generation, "1", "hm"))
    view.feed(live(StreamRunResult, generation, "2", "ah"))
    later = STORIES["completion-with-text-before"]().events
    change = view.feed(live(CompleteStreamingReasoning, generation, "4", "hm"))
    assert (change.is_live, run.live) == (False, LiveText("hm", False, "ah", True))
    change = view.feed(live(CompleteStreamingRunResult, generation, "5", "ah"))
    assert (change.run, run.live) == (run, LiveText("hm", False, "ah", False))
    for event in later:
        view.feed(event)
        if isinstance(event, CallTools):
            break
    assert (run.phase, run.live) == ("callingTools", LiveText())


def test_the_calls_under_way_are_those_of_the_last_message() -> None:
    read, look, ask = call("readTextFile", "1", path="a"), call("exec", "2", command="ls"), call("b", "3", query="go")
    answers = {"team": [say("", read, look), say("", ask), say("", complete())], "@team/b": [say("", complete("B"))]}
    story = Play(answers)
    story.run(TEAM)
    view, seen = ViewState(), list[list[str]]()
    for event in story.events:
        view.feed(event)
        root = view.runs[0]
        if root.phase == "callingTools":
            called = [one.tool_name for one in root.calls]
            if not seen or seen[-1] != called:
                seen.append(called)
    assert seen == [["readTextFile", "exec"], ["b"], ["attemptCompletion"]]
    assert [one.tool_name for one in view.runs[1].calls] == ["attemptCompletion"]


def test_a_run_that_called_nothing_yet_has_no_calls() -> None:
    assert generating()[0].runs[0].calls == ()


@pytest.mark.parametrize("name", ["completion-with-text-before", "retry", "error", "cancelled-generating", "max-steps"])
def test_pieces_that_come_late_are_not_shown(name: str) -> None:
    """A generation that has ended says nothing any more, also where all is told again from the beginning."""
    events = STORIES[name]().events
    view, pieces = ViewState(), list[Event]()
    for event in events:
        view.feed(event)
        for piece in pieces:
            view.feed(piece)
        if isinstance(event, StartGeneration):
            piece = live(StreamRunResult, event, f"piece-{len(pieces)}", "x")
            view.feed(piece)
            pieces.append(piece)
        for run in view.runs:
            assert run.live.run_result in ("", "x")
            assert bool(run.live.run_result) <= (run.phase == "answering")
    told = shown(view)
    for event in (*events, *pieces):
        view.feed(event)
    assert shown(view) == told
    assert view.runs[0].live == LiveText()


def test_a_new_attempt_begins_with_nothing_said_and_old_pieces_do_not_come_back() -> None:
    view, generation = generating()
    run, piece = view.runs[0], live(StreamRunResult, generation, "1", "half an an")
    view.feed(piece)
    (first, *_) = [event for event in STORIES["retry"]().events if event.type == "retry"]
    view.feed(first)
    assert (run.phase, run.live) == ("generating", LiveText())
    view.feed(piece)
    assert run.live == LiveText()
    view.feed(live(StreamRunResult, generation, "2", "an answer"))
    assert run.live.run_result == "an answer"


def test_parallel_runs_each_say_their_own() -> None:
    story = STORIES["deepest"]()
    view, first = ViewState(), dict[str, StartGeneration]()
    for event in story.events:
        view.feed(event)
        if isinstance(event, StartGeneration) and event.expert_key in ("@ship/plan", "@ship/docs"):
            first.setdefault(event.expert_key, event)
            if len(first) == 2:
                break
    for key, generation in first.items():
        view.feed(live(StreamReasoning, generation, f"of {key}", key))
    assert {run.expert_key: run.live.reasoning for run in view.runs if run.phase == "reasoning"} == {
        "@ship/plan": "@ship/plan",
        "@ship/docs": "@ship/docs",
    }


# What no event tells


def until(name: str, is_enough: Callable[[Event], bool]) -> ViewState:
    """A story up to an event."""
    view = ViewState()
    for event in STORIES[name]().events:
        view.feed(event)
        if is_enough(event):
            return view
    raise AssertionError(f"{name} has no such event")


@pytest.mark.parametrize("kind", ["startRun", "startGeneration", "callTools", "stopRunByDelegate"])
def test_a_run_that_is_ended_from_outside_has_ended_and_its_delegates_go_on(kind: str) -> None:
    view = until("parallel", lambda event: event.type == kind)
    run = view.runs[0]
    used = run.usage
    change = view.end_from_outside(run.segments[-1].run_id, "terminated", 99_999)
    assert change.run is run
    assert (run.phase, run.closed, run.ended_at, run.usage) == ("ended", "terminated", 99_999, used)
    assert (run.segments[-1].phase, run.segments[-1].ended_at, view.last_at) == ("ended", 99_999, 99_999)
    assert all(child.is_working for child in run.children)
    assert view.end_from_outside(run.run_id, "timedOut", 100_000).run is None
    assert (run.closed, view.last_at) == ("terminated", 99_999)


def test_a_job_that_is_ended_while_it_waits_for_a_person_asks_no_more() -> None:
    view = view_of(STORIES["parked"]().events)
    assert [question.args for question in view.questions] == [{"question": "ok?"}]
    view.end_from_outside(view.runs[0].run_id, "terminated", 5000)
    assert (view.questions, view.runs[0].live) == ((), LiveText())


def test_what_has_ended_by_itself_is_not_ended_from_outside() -> None:
    view = view_of(STORIES["error"]().events)
    assert view.end_from_outside(view.runs[0].run_id, "failed", 99_999).run is None
    assert (view.runs[0].phase, view.runs[0].closed) == ("failed", None)
    assert view.end_from_outside("nobody", "terminated", 99_999).run is None


def test_a_run_that_was_cut_off_counts_what_its_open_step_used() -> None:
    view = until("retry", lambda event: event.type == "callTools" or event.type == "continueToNextStep")
    assert view.runs[0].usage.total_tokens == 2 * 1 + 15
    view = until("parallel", lambda event: event.type == "callTools")
    assert view.runs[0].usage.total_tokens == 15
    assert view.runs[0].steps == []


# Where a run goes on from


def place(checkpoint: Checkpoint) -> tuple[int, str]:
    """What tells a checkpoint from others of its run: its step and its last message."""
    return checkpoint.step_number, checkpoint.messages[-1].id


def went_on(story: Play, start: RunInput) -> ViewState:
    """The job with one more execution, in which everybody says `done`; all it goes on from is known."""
    before, points = len(story.runs), list(checkpoints_of(story))
    story.answers, story.people, story.cancel_when = {}, ("yes",) * 9, lambda _: False
    story.run(start)
    view = view_of(story.events)
    for played in story.runs[before:]:
        run = view.run_of(played.start.run_id)
        assert run is not None
        seed = played.start.seed
        assert run.has_past == (seed is not None), run.expert_key
        if seed is None:
            assert (run.past, run.continues) == (None, None)
            continue
        assert run.past is not None
        assert run.continues is view.run_of(seed.origin.run_id)
        assert run.continues is not None
        assert (run.past.step_number, run.past.job_id) == (seed.origin.step_number, None)
        told = [one for one in points if view.run_of(one.run_id) is run.continues]
        same = [one for one in told if place(one) == place(seed.checkpoint)]
        assert seed.origin.checkpoint_id in {one.id for one in same}
        assert run.past.checkpoint_id == same[-1].id
        of_conversation = [one.id for one in points if one.messages[0].id == seed.checkpoint.messages[0].id]
        assert run.past.is_end == (same[-1].id == of_conversation[-1])
        assert run.query == (words_of([seed.message])[0] if seed.message else run.continues.query)
    return view


@pytest.mark.parametrize(("name", "at"), PAIRS)
def test_wherever_a_job_goes_on_from_is_known(name: str, at: int) -> None:
    story = STORIES[name]()
    chosen = list(checkpoints_of(story))[at]
    words = Words(message=user("more")) if chosen.status == "completed" else Words()
    roots = len(view_of(story.events).roots)
    view = went_on(story, next_input(lineage_of(story).at(chosen.id, words)))
    assert len(view.roots) == roots + 1


@pytest.mark.parametrize("name", STORIES)
def test_a_job_that_goes_on_from_its_end_is_known_to_do_so(name: str) -> None:
    story = STORIES[name]()
    lineage = lineage_of(story)
    view = went_on(story, next_input(lineage.latest(Words(message=user("more")) if lineage.is_completed else Words())))
    again = next_input(lineage_of(story).latest(Words(message=user("and more"))), "third")
    if view.roots[-1].phase == "completed":
        view = went_on(story, again)
    for root in view.roots[1:]:
        assert root.past is None or root.past.is_end or name == "deepest"


@pytest.mark.parametrize(("kind", "count", "step"), [("callTools", 2, 2), ("startGeneration", 2, 2)])
def test_what_a_run_was_cut_off_in_is_its_end_and_a_step_before_is_not(kind: str, count: int, step: int) -> None:
    story = Play({"team": [say("", command("ls")), say("", command("pwd")), say("done")]})
    story.run(TEAM)
    cut = [at for at, event in enumerate(story.events) if event.type == kind][count - 1]
    (run,) = lineage_of(story).runs
    last = next(at for at, one in enumerate(run.moments) if story.events[cut].id in {event.id for event in one.events})
    cut_off = Lineage("job", (ToldRun(run.moments[last].state, run.moments[: last + 1]),))
    for going, is_end, at in (
        (cut_off.latest(Words()), True, step),
        (cut_off.at(next(checkpoints_of(story)).id, Words()), False, 1),
    ):
        following = Play()
        following.run(next_input(going))
        view = view_of((*story.events[: cut + 1], *following.events))
        past = view.roots[1].past
        assert past is not None
        assert (past.is_end, past.step_number, past.checkpoint_id is None) == (is_end, at, is_end)


def test_a_fork_of_a_fork_is_known_from_a_fork_of_the_first() -> None:
    story = STORIES["max-steps"]()
    first = next(checkpoints_of(story))
    for name in ("second", "third", "fourth"):
        story.run(next_input(lineage_of(story).at(first.id, Words(message=user(name))), name))
    third = next(one for one in checkpoints_of(story) if one.run_id == "third")
    story.run(next_input(lineage_of(story).at(third.id, Words(message=user("fifth"))), "fifth"))
    view = view_of(story.events)
    assert [view.runs.index(run.continues) if run.continues else None for run in view.roots] == [None, 0, 0, 0, 2]
    assert [run.past.step_number if run.past else 0 for run in view.roots] == [0, 1, 1, 1, 2]


def test_a_branch_knows_its_origin_from_who_read_its_input() -> None:
    story = STORIES["max-steps"]()
    going = lineage_of(story).at(next(checkpoints_of(story)).id, Words())
    branch = Play()
    branch.run(next_input(going).replaced(job_id="other"))
    view = view_of(branch.events)
    root = view.roots[0]
    assert (root.has_past, root.past, root.continues, root.first_step, root.query) == (True, None, None, 2, "")
    assert going.seed is not None
    view.tell_origin(root.run_id, going.seed.origin)
    assert root.past is not None
    assert (root.past.job_id, root.past.step_number, root.past.checkpoint_id, root.past.is_end) == (
        "job",
        1,
        going.seed.origin.checkpoint_id,
        False,
    )
    told = root.past
    before = ViewState()
    before.tell_origin(root.run_id, going.seed.origin)
    for event in branch.events:
        before.feed(event)
    assert before.roots[0].past == told
    view.tell_origin(root.run_id, Origin(job_id="no", run_id="no", checkpoint_id="no", step_number=9))
    view.tell_origin("nobody", going.seed.origin)
    assert root.past == told


def test_a_question_that_is_answered_goes_and_the_others_stay() -> None:
    calls = (call("askUser", "q1", question="a?"), call("askUser", "q2", question="b?"))
    play = Play({"team": [say("", *calls), say("", complete("T"))]}, people=("yes",), specs=WITH_PEOPLE)
    play.run(TEAM)
    asked: list[tuple[str, ...]] = []
    view = ViewState()
    for event in play.events:
        view.feed(event)
        open_now = tuple(question.id for question in view.questions)
        if asked[-1:] != [open_now]:
            asked.append(open_now)
    assert asked == [(), ("q1", "q2"), (), ("q2",)]


def test_working_and_waiting_are_not_the_same() -> None:
    assert not WORKING & WAITING
