"""The graph of a job: lanes, marks, where runs go on, at every width.

`pytest tests/unit/test_graph.py --update-goldens` writes `tests/golden/graphs` anew; look at the pictures.
"""

from pathlib import Path
from typing import Any

import pytest
from perstack.core.events import Event, InitializeRuntime
from perstack.core.graph import Row, graph, graph_lines, origin_text, shortened
from perstack.core.lineage import Words
from perstack.core.view_state import ViewState
from support.lineages import checkpoints_of, lineage_of, next_input, user
from support.play import Play
from support.scenarios import call, expert, run_input, say
from support.stories import STORIES, TEAM, WITH_PEOPLE, command
from support.views import view_of

GOLDEN = Path(__file__).parent.parent / "golden" / "graphs"
WIDTHS = (200, 80, 40, 16)
WIDE = run_input(
    expert("many", delegates=tuple(f"@many/{number}" for number in range(30))),
    *(expert(f"@many/{number}") for number in range(30)),
)


def drawn(events: list[Event], width: int = 80) -> list[str]:
    return graph_lines(graph(view_of(events)), width)


def of(name: str) -> list[str]:
    return drawn(STORIES[name]().events)


@pytest.mark.requirement("interface.log")
@pytest.mark.parametrize("name", STORIES)
def test_a_job_is_drawn_as_ever(name: str, is_updating_goldens: bool) -> None:
    events = STORIES[name]().events
    pictures = [[f"{width} columns", *drawn(events, width), ""] for width in WIDTHS]
    text = "\n".join(line for picture in pictures for line in picture)
    file = GOLDEN / f"{name}.txt"
    if is_updating_goldens:
        GOLDEN.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def test_there_is_a_golden_for_every_story_and_no_other() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(STORIES)


def test_parallel_delegates_lie_side_by_side_between_the_segments_of_their_caller() -> None:
    assert of("parallel") == [
        "⎇     team            hello",
        "| \\ \\",
        "| ✓ | @team/a         1",
        "| | ✓ @team/b         2",
        "| / /",
        "✓     team (resumed)  hello",
    ]


def test_delegates_of_delegates_lie_right_of_their_caller_and_left_of_its_siblings() -> None:
    lines = of("deepest")
    assert lines[1:7] == [
        "| \\ \\       \\ \\ \\",
        "| ✓ |       | | | @ship/plan                Write down what has to happen for r…",
        "| | ⎇       | | | @ship/build               Build the packages of release 2.1 a…",
        "| | | \\   \\ | | |",
        "| | | |   | ✓ | | @ship/docs                Bring the manual up to date with th…",
        "| | | |   | | ✗ | @ship/test                cancelled · Run all tests and say i…",
    ]


def test_each_way_to_go_on_says_so() -> None:
    rows = [row for row in graph(view_of(STORIES["deepest"]().events)) if row.run is not None]
    heads = [row.head for row in rows if row.is_resumed or row.flag or row.origin]
    forked = next(step for step in STORIES["deepest"]().events if step.type == "continueToNextStep")
    assert forked
    assert [head for head in heads if not head.startswith("from step 5 (@ship/test), checkpoint ")] == [
        "@ship/compile (resumed)",
        "@ship/build (resumed)",
        "ship (resumed)",
        "@ship/test (resumed)",
        "ship (resumed)",
        "ship (from step 2)",
        "@ship/test (from step 5)",
        "ship (resumed)",
    ]
    assert len(heads) == 9
    assert {row.head for row in rows if row.is_resumed} == {head for head in heads if head.endswith("(resumed)")}


def test_a_new_query_continues_and_going_back_tells_from_where() -> None:
    story = STORIES["completion-with-neighbours"]()
    story.answers = {}
    story.run(next_input(lineage_of(story).latest(Words(message=user("and in\nFrench?"))), "second"))
    chosen = next(checkpoints_of(story))
    story.run(next_input(lineage_of(story).at(chosen.id, Words(message=user("or in Dutch?"))), "third"))
    assert drawn(story.events) == [
        "✓ solo                hello",
        "✓ solo (continued)    and in French?",
        f"⎇ from step 1, checkpoint {chosen.id}",
        "✓ solo (from step 1)  or in Dutch?",
    ]


def test_a_branch_tells_the_job_it_comes_from_as_far_as_that_is_known() -> None:
    story = STORIES["max-steps"]()
    going = lineage_of(story).at(next(checkpoints_of(story)).id, Words())
    branch = Play()
    branch.run(next_input(going).replaced(job_id="other"))
    view = view_of(branch.events)
    assert graph_lines(graph(view), 80) == ["⎇ from another job", "✓ solo"]
    assert going.seed is not None
    view.tell_origin("next-run", going.seed.origin)
    assert origin_text(view.roots[0]) == f"from step 1 of job job, checkpoint {going.seed.origin.checkpoint_id}"
    assert graph_lines(graph(view), 80)[1] == "✓ solo (from step 1)"


def test_a_job_that_was_cancelled_while_delegates_worked_ends_below_them() -> None:
    assert of("cancelled-delegating") == [
        "⎇     team     hello",
        "| \\ \\",
        "| ✓ | @team/a  1",
        "| | ✗ @team/b  cancelled · 2",
        "| / /",
        "✗     team     cancelled",
    ]


def test_a_job_that_was_terminated_ends_below_what_its_delegates_still_did() -> None:
    events = STORIES["chain"]().events
    at = next(place for place, event in enumerate(events) if event.type == "completeRun")
    view = view_of(events[:at])
    view.end_from_outside("job-run", "terminated", events[at].timestamp)
    assert graph_lines(graph(view), 80)[-3:] == [
        "| | ◦ @top/low  do it",
        "| / |",
        "✗   | top       terminated from outside",
    ]
    for event in events[at:]:
        if event.run_id in {segment.run_id for segment in view.runs[2].segments}:
            view.feed(event)
    assert graph_lines(graph(view), 80)[-3:] == [
        "| | ✓ @top/low  do it",
        "| / |",
        "✗   | top       terminated from outside",
    ]


def test_what_still_works_and_what_waits_is_seen_at_the_end() -> None:
    story = Play({"team": [say("", call("a", query="1"), call("b", query="2"))]}, choose=lambda pending: 0)
    story.run(TEAM)
    at = next(place for place, event in enumerate(story.events) if event.type == "completeRun")
    assert drawn(story.events[:at]) == [
        "⏸     team     waits for delegates · hello",
        "| \\ \\",
        "| ◦ | @team/a  1",
        "| | ◦ @team/b  2",
    ]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"question": "ok?\n now"}, "waits for a person: ok? now · hello"),
        ({"count": 3, "reason": " ", "text": "why"}, "waits for a person: why · hello"),
        ({}, "waits for a person: askUser · hello"),
    ],
)
def test_the_question_is_in_the_row(args: dict[str, Any], said: str) -> None:
    play = Play({"team": [say("", call("askUser", **args))]}, specs=WITH_PEOPLE)
    play.run(TEAM)
    assert drawn(play.events) == [f"⏸ team  {said}"]


def test_an_answered_question_was_asked() -> None:
    assert of("mixed")[-3:] == [
        "⏸   team (resumed)  asked a person",
        "⏸   team (resumed)  asked a person",
        "✓   team (resumed)  hello",
    ]


def test_lanes_of_delegates_that_are_back_are_used_again() -> None:
    answers = {
        "team": [say("", call("a", query="1")), say("", call("b", query="2"), call("a", "again", query="3"))],
    }
    play = Play(answers)
    play.run(TEAM)
    assert [line[:10].rstrip() for line in drawn(play.events)] == [
        "⎇     team",
        "| \\",
        "| ✓   @tea",
        "| /",
        "⎇     team",
        "| \\ \\",
        "| ✓ | @tea",
        "| | ✓ @tea",
        "| / /",
        "✓     team",
    ]


def test_who_began_first_stands_first_whoever_was_told_first() -> None:
    """A reader of a finished job reads one delegate after the other."""
    answers = {"team": [say("", call("a", query="1"), call("b", query="2"))], "@team/a": [say("", command("ls"))]}
    together = Play(answers, choose=lambda pending: 0)
    together.run(TEAM)
    one, other = (run.events for run in together.runs[1:])
    begun = [event for event in together.events if event not in (*one, *other)]
    back = next(at for at, event in enumerate(begun) if event.type == "stopRunByDelegate") + 1
    assert drawn([*begun[:back], *other, *one, *begun[back:]]) == drawn(together.events)
    assert "@team/a" in drawn(together.events)[2]


def test_clocks_that_do_not_agree_turn_nothing_upside_down() -> None:
    events = [
        event.replaced(timestamp=event.timestamp - 500)
        if isinstance(event, InitializeRuntime) and event.expert_name in ("top", "@top/low")
        else event
        for event in STORIES["chain"]().events
    ]
    assert drawn(events) == of("chain")


def test_delegates_called_at_once_stand_in_the_order_of_their_calls_whichever_a_server_begins_first() -> None:
    times = {"@team/a": 30, "@team/b": 29}
    events = [
        event.replaced(timestamp=1000 + times[event.expert_name])
        if isinstance(event, InitializeRuntime) and event.expert_name in times
        else event
        for event in STORIES["parallel"]().events
    ]
    assert drawn(events) == of("parallel")


def test_thirty_lanes_leave_room_for_words() -> None:
    answers = {"many": [say("", *(call(str(number), query=f"part {number}") for number in range(30)))]}
    play = Play(answers, choose=lambda pending: 0)
    play.run(WIDE)
    assert drawn(play.events, 80)[:3] == [
        "⎇                          many            hello",
        "|\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\",
        "|✓|||||||||||||||||||||||| @many/0         part 0",
    ]
    assert drawn(play.events, 80)[-3] == "|||||||||||||||||||||||||✓ @many/29        part 29"
    assert drawn(play.events, 200)[2].startswith("| ✓ | | |")


@pytest.mark.parametrize("name", STORIES)
def test_no_line_is_longer_than_there_is_room(name: str) -> None:
    rows = graph(view_of(STORIES[name]().events))
    for width in range(1, 130):
        assert all(len(line) <= width for line in graph_lines(rows, width)), width


@pytest.mark.parametrize("name", STORIES)
def test_every_beginning_of_a_job_is_drawn_in_one_piece(name: str) -> None:
    view = ViewState()
    for event in STORIES[name]().events:
        view.feed(event)
        if isinstance(event, InitializeRuntime) or event.type.startswith("stop"):
            check(view, graph(view))


def check(view: ViewState, rows: list[Row]) -> None:
    """What holds of every graph."""
    placed = [run for root in view.roots for run, _ in view.tree(root)]
    segments = [(row.run, row.segment) for row in rows if row.segment is not None]
    assert {id(segment) for _, segment in segments} == {id(segment) for run in placed for segment in run.segments}
    for run in placed:
        mine = [segment.place for owner, segment in segments if owner is run]
        assert mine == sorted(mine)
    above: tuple[str, ...] = ()
    for row in rows:
        signs = {sign for sign in row.lanes if sign not in " |"}
        assert signs == ({row.mark} if row.mark else signs & {"\\"} or {"/"}), row
        if row.lanes[0] != "|" or len(above) != len(row.lanes):
            above = row.lanes
            continue
        for over, under in zip(above, row.lanes, strict=True):
            assert under == "\\" or under == " " or over not in " /", (over, under)
            assert under != " " or over in " /", (over, under)
        above = row.lanes


def test_what_does_not_fit_is_cut_with_a_sign_and_never_wider_than_told() -> None:
    assert [shortened("Ship it now", width) for width in (0, 1, 5, 6, 10, 11, 12)] == [
        "",
        "…",
        "Ship…",
        "Ship…",
        "Ship it n…",
        "Ship it now",
        "Ship it now",
    ]
    assert [shortened("日本語", width) for width in (3, 4, 5, 6)] == ["日…", "日…", "日本…", "日本語"]
    assert shortened("a\u0301ba\u0301", 3) == "a\u0301ba\u0301"


def test_nothing_was_told_and_nothing_is_drawn() -> None:
    assert graph(ViewState()) == []
    assert graph_lines([], 80) == []
