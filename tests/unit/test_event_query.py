"""Which events of a job `perstack log` shows: conditions, expressions, pages (contract §6.5)."""

import json
from pathlib import Path

import pytest
from perstack.core.event_query import EventQuery, EventSummary, Expression, StepRange, parse_count
from perstack.core.events import Event, RunBase, event_adapter
from perstack.core.failures import UsageError
from support.stories import STORIES

GOLDEN = Path(__file__).parent.parent / "golden"


def told(name: str) -> list[Event]:
    """The events of a golden transcript."""
    return [event_adapter.validate_json(line) for line in (GOLDEN / f"{name}.jsonl").read_text().splitlines()]


def step_of(event: Event) -> int | None:
    return event.step_number if isinstance(event, RunBase) else None


def shown(query: EventQuery, events: list[Event]) -> list[int]:
    """The places of the events on the page."""
    return [events.index(event) for event in query.page(events, query.matching(events)).events]


ARGS = {"n": 3, "all": True, "ids": [1, 2]}
CALLED = event_adapter.validate_python(
    {
        "type": "callTools",
        "id": "e1",
        "expertKey": "team",
        "jobId": "j",
        "runId": "r",
        "stepNumber": 4,
        "newMessage": {"id": "m", "type": "expertMessage", "contents": []},
        "toolCalls": [
            {"id": "a", "skillName": "@perstack/base", "toolName": "exec", "args": ARGS},
            {"id": "b", "skillName": "wings", "toolName": "fly far", "args": {"n": 7, "text": 'say "hi"'}},
        ],
        "usage": {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15},
    }
)


@pytest.mark.parametrize(
    ("text", "is_match"),
    [
        ('.type == "callTools"', True),
        (".type == callTools", True),
        (".type=='callTools'", True),
        (".type != callTools", False),
        ('.toolCalls[].skillName == "@perstack/base"', True),
        (".toolCalls[].skillName == @perstack/base", True),
        (".toolCalls[].skillName == wings", True),
        (".toolCalls[].skillName == claws", False),
        # Any element: one of the two is another skill.
        (".toolCalls[].skillName != wings", True),
        ('.toolCalls[].toolName == "fly far"', True),
        (r'.toolCalls[].args.text == "say \"hi\""', True),
        (".toolCalls[].args.n > 6", True),
        (".toolCalls[].args.n > 7", False),
        (".toolCalls[].args.n >= 7", True),
        (".toolCalls[].args.n < 3", False),
        (".toolCalls[].args.n <= 3", True),
        (".toolCalls[].args.n == 3.0", True),
        (".toolCalls[].args.n > -1e3", True),
        # Equality is strict, ordering only for numbers.
        ('.toolCalls[].args.n == "3"', False),
        (".toolCalls[].args.all == true", True),
        (".toolCalls[].args.all == 1", False),
        ('.toolCalls[].args.all == "true"', False),
        (".toolCalls[].args.all > 0", False),
        (".type > a", False),
        # An array matches if any element does, with the wildcard or without.
        (".toolCalls[].args.ids == 2", True),
        (".toolCalls[].args.ids[] == 2", True),
        (".toolCalls[].args.ids > 2", False),
        (".stepNumber == 4", True),
        (".usage.inputTokens >= 10", True),
        # A field that is not there matches nothing, whatever is asked of it.
        (".nothing != 1", False),
        (".usage.nothing != 1", False),
        (".type.deeper != 1", False),
        (".toolCalls.skillName != 1", False),
        (".usage[].inputTokens != 1", False),
        # The wire spells in camelCase only.
        (".step_number == 4", False),
        (".tool_calls[].skillName == wings", False),
    ],
)
@pytest.mark.requirement("interface.log-queries")
def test_an_expression_compares_a_field_of_the_wire(text: str, is_match: bool) -> None:
    assert Expression.parse(text).matches(CALLED) is is_match


@pytest.mark.parametrize(
    "text",
    [
        "",
        "type == callTools",
        ".type",
        ".type = callTools",
        ".type === callTools",
        ". == 1",
        ".[] == 1",
        ".toolCalls[0].id == a",
        ".a..b == 1",
        '.type == "callTools',
        ".type == 'call'Tools'",
        '.type == "a" "b"',
        ".reason == two words",
        ".a == 1 and .b == 2",
    ],
)
def test_what_is_no_expression_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Expression.parse(text)
    assert caught.value.message == f"Invalid filter expression: {text}"


@pytest.mark.parametrize("text", [".type ==", ".type !=  ", ".stepNumber >="])
def test_an_expression_without_a_value_says_so(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Expression.parse(text)
    assert caught.value.message == f"Missing value in filter expression: {text}"


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("5", {5}),
        (">5", {6, 7, 8, 9}),
        (">=5", {5, 6, 7, 8, 9}),
        ("<3", {1, 2}),
        ("<= 3", {1, 2, 3}),
        ("2-4", {2, 3, 4}),
        (" 2 - 2 ", {2}),
        ("<1", set[int]()),
    ],
)
def test_a_step_filter_names_steps(text: str, steps: set[int]) -> None:
    wanted = StepRange.parse(text)
    assert {step for step in range(1, 10) if wanted.holds(step)} == steps


@pytest.mark.parametrize("text", ["", "five", "-5", "=5", "==5", "1-", "1-2-3", "1.5", "5>", "1 2", "9" * 10])
def test_what_is_no_step_filter_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        StepRange.parse(text)
    assert caught.value.message == f"Invalid step filter: {text}"


def test_a_range_of_steps_that_holds_none_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        StepRange.parse("7-3")
    assert caught.value.message == "Invalid step range: 7-3 (min 7 > max 3)"


@pytest.mark.parametrize("text", ["-1", "many", "1.5", "", "0x10", "9" * 10, "٣"])
def test_a_count_is_a_number_from_nought_on(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_count("--take", text)
    assert caught.value.message == f"Invalid value for --take: {text}"
    assert parse_count("--take", "007") == 7


@pytest.mark.parametrize(
    ("query", "types"),
    [
        (EventQuery(is_errors=True), {"retry", "stopRunByError"}),
        (EventQuery(is_tools=True), {"callTools", "resolveToolResults", "callInteractiveTool"}),
        (EventQuery(is_delegations=True), {"callDelegate", "stopRunByDelegate"}),
        (EventQuery(type="completeRun"), {"completeRun"}),
        (EventQuery(type="initializeRuntime"), {"initializeRuntime"}),
    ],
)
def test_a_condition_keeps_its_types_of_events_and_all_of_them(query: EventQuery, types: set[str]) -> None:
    events = [event for name in STORIES for event in told(name)]
    kept = [event for event in events if query.matches(event)]
    assert {event.type for event in kept} == types
    assert len(kept) == sum(event.type in types for event in events)


def test_all_conditions_have_to_hold() -> None:
    events = told("parallel")
    query = EventQuery(
        steps=StepRange.parse(">=2"), is_tools=True, expression=Expression.parse(".expertKey == @team/a"), take=0
    )
    kept = [events[place] for place in query.matching(events)]
    assert kept == [
        event
        for event in events
        if isinstance(event, RunBase)
        and event.step_number >= 2
        and event.type in ("callTools", "resolveToolResults", "callInteractiveTool")
        and event.expert_key == "@team/a"
    ]
    assert 0 < len(kept) < len(EventQuery(is_tools=True).matching(events))
    assert EventQuery(is_errors=True, is_tools=True).matching(events) == []


def test_an_event_of_no_step_is_in_no_range_of_steps() -> None:
    events = told("parallel")
    without = {event.type for event in events if step_of(event) is None}
    assert without
    assert not without & {events[place].type for place in EventQuery(steps=StepRange()).matching(events)}


def test_a_type_that_no_event_has_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        EventQuery(type="completeRuns")
    assert "completeRuns" in caught.value.message
    assert "completeRun, " in (caught.value.hint or "")


@pytest.mark.requirement("interface.log-queries")
def test_a_page_is_cut_from_the_matches_and_then_gets_its_neighbours() -> None:
    events = told("parallel")
    matching = EventQuery(type="startGeneration").matching(events)
    assert len(matching) >= 4
    assert shown(EventQuery(type="startGeneration"), events) == matching
    assert shown(EventQuery(type="startGeneration", take=2), events) == matching[:2]
    assert shown(EventQuery(type="startGeneration", take=2, offset=1), events) == matching[1:3]
    assert shown(EventQuery(type="startGeneration", offset=1, take=0), events) == matching[1:]
    query = EventQuery(type="startGeneration", take=1, offset=2, context=2)
    page = query.page(events, query.matching(events))
    at = matching[2]
    assert list(page.events) == events[at - 2 : at + 3]
    assert (page.matched, page.shown, page.neighbours) == (len(matching), 1, 4)


def test_neighbours_that_meet_are_shown_once_and_end_where_the_job_does() -> None:
    events = told("parallel")
    everything = EventQuery(context=3, take=0)
    page = everything.page(events, everything.matching(events))
    assert (list(page.events), page.neighbours) == (events, 0)
    first_and_last = [0, len(events) - 1]
    page = EventQuery(context=1).page(events, first_and_last)
    assert list(page.events) == [*events[:2], *events[-2:]]
    assert (page.shown, page.neighbours) == (2, 2)


def test_a_hundred_are_taken_unless_another_number_is_given_and_nought_is_all() -> None:
    events = told("parallel") * 20
    assert EventQuery().page(events, EventQuery().matching(events)).shown == 100
    assert EventQuery(take=0).page(events, EventQuery().matching(events)).shown == len(events) > 100
    beyond = EventQuery(offset=len(events) + 5)
    page = beyond.page(events, beyond.matching(events))
    assert (page.events, page.shown, page.matched) == ((), 0, len(events))


@pytest.mark.parametrize("name", STORIES)
def test_the_summary_counts_what_the_lines_say(name: str) -> None:
    lines = [json.loads(line) for line in (GOLDEN / f"{name}.jsonl").read_text().splitlines()]
    steps = [line["stepNumber"] for line in lines if "stepNumber" in line]
    assert json.loads(EventSummary.of(told(name)).wire_json()) == {
        "totalEvents": len(lines),
        "errorCount": sum(line["type"] in ("stopRunByError", "retry") for line in lines),
        "toolCallCount": sum(len(line["toolCalls"]) for line in lines if line["type"] == "callTools"),
        "delegationCount": sum(len(line["toolCalls"]) for line in lines if line["type"] == "callDelegate"),
        "stepRange": {"min": min(steps), "max": max(steps)},
    }
    assert "stepRange" not in json.loads(EventSummary.of([]).wire_json())
