"""Activities of a whole job, from the stream of its events."""

import pytest
from perstack.core.activity import Activity, ActivityParent
from perstack.core.activity_log import ActivityFold, group_by_run
from perstack.core.events import Event, RunBase
from perstack.core.ids import segment_run_id
from support.play import Play
from support.scenarios import base_tools, call, complete, expert, interactive_tool, run_input, say
from support.stories import STORIES

TEAM = run_input(expert("team", delegates=("@team/a", "@team/b")), expert("@team/a"), expert("@team/b"), query="go")


def told(events: list[Event]) -> list[Activity]:
    fold = ActivityFold()
    for event in events:
        fold.feed(event)
    return fold.activities


def of(name: str) -> list[Activity]:
    return told(STORIES[name]().events)


def types(activities: list[Activity]) -> list[str]:
    return [activity.type for activity in activities]


def fields(activity: Activity, *names: str) -> list[object]:
    return [getattr(activity, name) for name in names]


@pytest.mark.requirement("interface.activities")
def test_a_chain_of_delegations_is_told_run_by_run() -> None:
    activities = of("chain")
    assert [(activity.type, activity.expert_key) for activity in activities] == [
        ("query", "top"),
        ("delegate", "top"),
        ("query", "@top/mid"),
        ("delegate", "@top/mid"),
        ("query", "@top/low"),
        ("complete", "@top/low"),
        ("delegationComplete", "@top/mid"),
        ("complete", "@top/mid"),
        ("delegationComplete", "top"),
        ("complete", "top"),
    ]
    top, mid = activities[0], activities[2]
    assert fields(top, "id", "text", "delegated_by") == ["query-job-run", "hello", None]
    assert fields(mid, "text", "delegated_by") == ["plan it", ActivityParent(expert_key="top", run_id="job-run")]
    assert fields(activities[1], "id", "delegate_expert_key", "query") == ["delegate-tc-mid", "@top/mid", "plan it"]
    assert activities[5].reasoning == "easy"


def test_activities_are_chained_over_the_segments_of_a_run() -> None:
    activities = of("chain")
    top = [activity for activity in activities if activity.expert_key == "top"]
    assert [activity.previous_activity_id for activity in top] == [None, *(activity.id for activity in top[:-1])]
    assert [activity.run_id for activity in top] == ["job-run", "job-run", *[segment_run_id("job-run", 1)] * 2]


def test_delegates_that_are_back_are_counted_once_however_many_segments_it_took() -> None:
    done = [activity for activity in of("mixed") if activity.type == "delegationComplete"]
    assert [fields(activity, "count") for activity in done] == [[1]]
    done = [activity for activity in of("parallel") if activity.type == "delegationComplete"]
    assert [fields(activity, "count", "expert_key") for activity in done] == [[2, "team"]]


def test_a_delegate_that_goes_on_in_another_execution_is_told_as_called_by_that_one_and_counted_once() -> None:
    activities = of("deepest")
    parents = [one.delegated_by.run_id for one in activities if one.type == "exec" and one.delegated_by is not None]
    assert [parent for parent in parents if parent.startswith("deepest")] == ["deepest-second", "deepest-third"]
    counts = [fields(one, "count", "expert_key") for one in activities if one.type == "delegationComplete"]
    assert counts == [[1, "@ship/compile"], [2, "@ship/build"], [5, "ship"], [1, "ship"]]


def test_answers_to_people_alone_are_no_delegation() -> None:
    play = Play({"team": [say("", call("askUser"))]}, people=("yes",), specs=(*base_tools(), interactive_tool()))
    play.run(TEAM)
    assert types(told(play.events)) == ["query", "interactiveTool", "complete"]


def test_each_question_is_told_once() -> None:
    asked = [activity for activity in of("mixed") if activity.type == "interactiveTool"]
    assert [fields(activity, "id", "args") for activity in asked] == [
        ["interactive-q1", {"question": "ok?"}],
        ["interactive-q2", {"question": "sure?"}],
    ]


def test_tools_of_a_mixed_step_are_told_before_its_delegates() -> None:
    assert types(of("mixed"))[:3] == ["query", "exec", "delegate"]


def test_retries_and_errors_are_told_with_what_went_wrong() -> None:
    retries = [activity for activity in of("retry") if activity.type == "retry"]
    assert [fields(activity, "message") for activity in retries] == [
        ["Overloaded."],
        ["Overloaded."],
        ["The answer held neither text nor a tool call."],
        *[["The answer was cut because it reached the model's output limit. Answer in smaller pieces."]] * 2,
    ]
    assert fields(retries[0], "error") == ['{"error": "provider.overloaded", "message": "Overloaded."}']
    error = of("error")[-1]
    assert fields(error, "type", "error", "error_name", "is_retryable") == [
        "error",
        "invalid x-api-key",
        "provider.credentials",
        False,
    ]


def test_what_was_thought_belongs_to_what_was_done_next() -> None:
    play = Play({"team": [say("", call("exec"), call("todo"), thinking="one"), say("x", thinking="two")]})
    play.run(TEAM)
    assert [activity.reasoning for activity in told(play.events)] == [None, "one", None, "two"]


def test_events_fed_again_add_nothing() -> None:
    events = STORIES["mixed"]().events
    assert told([*events, *events]) == told([event for event in events for _ in range(2)]) == told(events)


def test_ids_are_unique_although_providers_number_their_calls_anew() -> None:
    play = Play({"team": [say("", call("exec", "c0"), call("exec", "c0")), say("", call("exec", "c0"))]})
    play.run(TEAM)
    activities = told(play.events)
    assert len({activity.id for activity in activities}) == len(activities) == 5
    assert activities[1].id == "action-c0"


def test_calls_of_parallel_runs_are_not_mixed_up() -> None:
    answers = {
        "team": [say("", call("a", query="1"), call("b", query="2")), say("T")],
        "@team/a": [say("", call("readTextFile", "c0", path="of-a")), say("A")],
        "@team/b": [say("", call("readTextFile", "c0", path="of-b")), say("B")],
    }
    play = Play(answers, choose=lambda pending: 0)
    play.run(TEAM)
    read = [activity for activity in told(play.events) if activity.type == "readTextFile"]
    assert [fields(activity, "expert_key", "path") for activity in read] == [["@team/a", "of-a"], ["@team/b", "of-b"]]


def test_a_run_whose_beginning_was_not_seen_is_told_from_where_it_was() -> None:
    events = STORIES["chain"]().events
    late = next(at for at, event in enumerate(events) if isinstance(event, RunBase) and event.step_number == 4)
    assert types(told(events[late:])) == ["complete", "complete"]


def test_groups_are_the_segments_in_order_of_appearance() -> None:
    groups = group_by_run(of("chain"))
    assert [(group.expert_key, [activity.type for activity in group.activities]) for group in groups] == [
        ("top", ["query", "delegate"]),
        ("@top/mid", ["query", "delegate"]),
        ("@top/low", ["query", "complete"]),
        ("@top/mid", ["delegationComplete", "complete"]),
        ("top", ["delegationComplete", "complete"]),
    ]
    assert groups[0].delegated_by is None
    assert groups[3].delegated_by == groups[1].delegated_by == ActivityParent(expert_key="top", run_id="job-run")
    assert groups[2].run_id == groups[2].activities[0].run_id


def test_a_completion_is_told_once_and_open_todos_before_it() -> None:
    assert types(of("completion-with-open-todos")) == ["query", "attemptCompletion", "complete"]
    assert types(of("completion-with-result")) == ["query", "complete"]
    play = Play({"team": [say("", call("exec"), complete("r"))]})
    play.run(TEAM)
    assert types(told(play.events)) == ["query", "generalTool", "attemptCompletion", "complete"]
