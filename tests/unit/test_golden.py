"""Golden transcripts: every event of every kind of job, as it goes over the wire.

`pytest tests/unit/test_golden.py --update-goldens` writes them anew; read the difference before you commit it.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from perstack.core.events import EVENT_TYPES, STREAMING_EVENT_TYPES, event_adapter
from support.stories import STORIES

GOLDEN = Path(__file__).parent.parent / "golden"
LIVE_ONLY = {
    "startStreamingReasoning",
    "streamReasoning",
    "startStreamingRunResult",
    "streamRunResult",
    "skillStderr",
}
CONTROL = {"startRun", "resumeFromStop", "callDelegate", "stopRunByDelegate", "completeRun"}


def golden(name: str) -> list[str]:
    return (GOLDEN / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()


def flow(name: str, wanted: set[str] = CONTROL) -> list[str]:
    """Types of chosen events, and the short name of who they are of."""
    events: list[dict[str, Any]] = [json.loads(line) for line in golden(name)]
    return [f"{event['type']} {event['expertKey'].rpartition('/')[2]}" for event in events if event["type"] in wanted]


@pytest.mark.parametrize("name", STORIES)
def test_a_job_is_told_as_ever(name: str, is_updating_goldens: bool) -> None:
    lines = [event.wire_json() for event in STORIES[name]().events]
    if is_updating_goldens:
        GOLDEN.mkdir(exist_ok=True)
        (GOLDEN / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    expected = golden(name)
    assert outline(lines) == outline(expected)
    for line, known in zip(lines, expected, strict=True):
        assert json.loads(line) == json.loads(known)
        assert line == known, "the order of the fields is part of the wire"


def outline(lines: list[str]) -> list[tuple[str, str, int]]:
    """What is compared first, because it is what a reader of a failure needs first."""
    events: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [(event["type"], event.get("expertKey", ""), event.get("stepNumber", 0)) for event in events]


@pytest.mark.parametrize("name", STORIES)
def test_a_story_is_the_same_each_time_it_is_played(name: str) -> None:
    first, second = STORIES[name](), STORIES[name]()
    assert first.events == second.events


@pytest.mark.parametrize("name", STORIES)
def test_a_golden_line_is_an_event_and_reads_back_as_itself(name: str) -> None:
    for line in golden(name):
        assert event_adapter.validate_json(line).wire_json() == line


def test_there_is_a_golden_for_every_story_and_no_other() -> None:
    assert {path.stem for path in GOLDEN.glob("*.jsonl")} == set(STORIES)


def test_the_goldens_show_every_event_that_history_keeps() -> None:
    shown = {json.loads(line)["type"] for name in STORIES for line in golden(name)}
    assert shown == set(EVENT_TYPES) - LIVE_ONLY - {"skillStarting"}
    assert set(STREAMING_EVENT_TYPES) & LIVE_ONLY


def test_the_chain_of_three_goes_on_by_resuming() -> None:
    assert flow("chain") == [
        "startRun top",
        "callDelegate top",
        "stopRunByDelegate top",
        "startRun mid",
        "callDelegate mid",
        "stopRunByDelegate mid",
        "startRun low",
        "completeRun low",
        "resumeFromStop mid",
        "completeRun mid",
        "resumeFromStop top",
        "completeRun top",
    ]


def test_the_mixed_step_stops_for_delegates_first_and_for_each_question_after() -> None:
    stops = {"stopRunByDelegate", "stopRunByInteractiveTool", "resumeFromStop", "completeRun"}
    assert flow("mixed", stops) == [
        "stopRunByDelegate team",
        "completeRun a",
        "resumeFromStop team",
        "stopRunByInteractiveTool team",
        "resumeFromStop team",
        "stopRunByInteractiveTool team",
        "resumeFromStop team",
        "completeRun team",
    ]
    stopped = next(json.loads(line) for line in golden("mixed") if '"type":"stopRunByInteractiveTool"' in line)
    checkpoint = stopped["checkpoint"]
    assert (len(checkpoint["partialToolResults"]), len(checkpoint["pendingToolCalls"])) == (2, 2)


def test_each_story_ends_as_it_should() -> None:
    assert {name: last_status(name) for name in STORIES} == {**dict.fromkeys(STORIES, "completed"), **UNUSUAL}


UNUSUAL = {
    "parked": "stoppedByInteractiveTool",
    "max-steps": "stoppedByExceededMaxSteps",
    "error": "stoppedByError",
    "error-after-retries": "stoppedByError",
    "error-at-opening": "stoppedByError",
    "cancelled-generating": "stoppedByCancellation",
    "cancelled-calling": "stoppedByCancellation",
    "cancelled-delegating": "stoppedByCancellation",
    "cancelled-asking": "stoppedByCancellation",
    "deepest": "stoppedByInteractiveTool",
}


def last_status(name: str) -> str:
    """The status in the last event that shows one."""
    events: list[dict[str, Any]] = [json.loads(line) for line in golden(name)]
    return [event["checkpoint"]["status"] for event in events if "checkpoint" in event][-1]
