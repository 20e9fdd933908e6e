"""The wire: event types by name, fields by name and order, and lines of the contract read and written back."""

import json
from typing import Any

import pytest
from perstack.core.events import (
    EVENT_TYPES,
    RUN_EVENT_TYPES,
    RUNTIME_EVENT_TYPES,
    STREAMING_EVENT_TYPES,
    InitializeRuntime,
    InteractiveAnswer,
    RunBase,
    event_adapter,
)
from pydantic import ValidationError

RUN_BASE = ["type", "id", "expertKey", "timestamp", "jobId", "runId", "stepNumber"]
RUNTIME_BASE = ["type", "id", "timestamp", "jobId", "runId"]
USAGE = {"inputTokens": 10, "outputTokens": 5, "reasoningTokens": 0, "totalTokens": 15, "cachedInputTokens": 2}
TEXT = {"id": "p1", "type": "textPart", "text": "hello"}
CALL = {"id": "tc1", "skillName": "@perstack/base", "toolName": "readTextFile", "args": {"path": "a.txt"}}
RESULT = {"id": "tc1", "skillName": "@perstack/base", "toolName": "readTextFile", "result": [TEXT]}
USER = {"id": "m1", "type": "userMessage", "contents": [TEXT]}
EXPERT = {
    "id": "m2",
    "type": "expertMessage",
    "contents": [
        {"id": "p2", "type": "thinkingPart", "thinking": "hm", "signature": "s"},
        {"id": "p3", "type": "toolCallPart", "toolCallId": "tc1", "toolName": "readTextFile", "args": {"path": "a"}},
    ],
}
TOOL = {
    "id": "m3",
    "type": "toolMessage",
    "contents": [
        {"id": "p4", "type": "toolResultPart", "toolCallId": "tc1", "toolName": "readTextFile", "contents": [TEXT]}
    ],
}
REF = {"key": "team", "name": "team", "version": "1.0.0"}
CHECKPOINT = {
    "id": "cp1",
    "jobId": "j1",
    "runId": "r1",
    "status": "proceeding",
    "stepNumber": 1,
    "messages": [USER],
    "expert": REF,
    "usage": USAGE,
}
STOPPED = {
    **CHECKPOINT,
    "delegateTo": [{"expert": REF, "toolCallId": "tc2", "toolName": "plan", "query": "make a plan"}],
    "delegatedBy": {"expert": REF, "toolCallId": "tc0", "toolName": "team", "checkpointId": "cp0", "runId": "r0"},
    "contextWindow": 200000,
    "contextWindowUsage": 7.5e-05,
    "pendingToolCalls": [CALL],
    "partialToolResults": [],
    "metadata": {"runtime": "local"},
    "error": {"name": "n", "message": "m", "isRetryable": False},
    "retryCount": 1,
}
STEP = {"stepNumber": 1, "newMessages": [EXPERT], "usage": USAGE, "startedAt": 1, "finishedAt": 2}
STOP: dict[str, Any] = {"checkpoint": CHECKPOINT, "step": STEP}
PAYLOADS: dict[str, dict[str, Any]] = {
    "startRun": {"initialCheckpoint": CHECKPOINT, "inputMessages": [USER]},
    "resumeFromStop": {"checkpoint": CHECKPOINT},
    "startGeneration": {"messages": [USER, EXPERT, TOOL]},
    "retry": {
        "reason": '{"error":"x","message":"y"}',
        "newMessages": [USER],
        "toolCalls": [CALL],
        "toolResults": [RESULT],
        "usage": USAGE,
    },
    "callTools": {"newMessage": EXPERT, "toolCalls": [CALL], "usage": USAGE},
    "finishMcpTools": {"toolResults": [RESULT], "pendingToolCalls": [CALL]},
    "callDelegate": {"newMessage": EXPERT, "toolCalls": [CALL], "usage": USAGE},
    "skipDelegates": {"pendingToolCalls": [CALL]},
    "callInteractiveTool": {"newMessage": EXPERT, "toolCall": CALL, "usage": USAGE},
    "proceedToInteractiveTools": {"pendingToolCalls": [CALL], "partialToolResults": [RESULT]},
    "resolveToolResults": {"toolResults": [{**RESULT, "isError": True}]},
    "finishToolCall": {"newMessages": [TOOL]},
    "resumeToolCalls": {"pendingToolCalls": [CALL], "partialToolResults": [RESULT]},
    "finishAllToolCalls": {"newMessages": [TOOL]},
    "continueToNextStep": {**STOP, "nextCheckpoint": CHECKPOINT},
    "completeRun": {**STOP, "text": "done", "usage": USAGE},
    "stopRunByInteractiveTool": STOP,
    "stopRunByDelegate": STOP,
    "stopRunByExceededMaxSteps": STOP,
    "stopRunByError": {**STOP, "error": {"name": "n", "message": "m", "statusCode": 401, "isRetryable": False}},
    "stopRunByCancellation": STOP,
    "startStreamingReasoning": {},
    "streamReasoning": {"delta": "Let me"},
    "completeStreamingReasoning": {"text": "Let me think"},
    "startStreamingRunResult": {},
    "streamRunResult": {"delta": "do"},
    "completeStreamingRunResult": {"text": "done"},
    "initializeRuntime": {
        "runtimeVersion": "0.1.0",
        "expertName": "team",
        "experts": ["team", "@team/plan"],
        "model": "m",
        "maxSteps": 100,
        "maxRetries": 5,
        "timeout": 300000,
        "query": "hello",
    },
    "skillStarting": {"skillName": "web", "command": "npx", "args": ["-y", "server"]},
    "skillConnected": {
        "skillName": "web",
        "serverInfo": {"name": "web", "version": "1"},
        "spawnDurationMs": 0.0,
        "handshakeDurationMs": 3.0,
        "toolDiscoveryDurationMs": 2.0,
        "connectDurationMs": 3.0,
        "totalDurationMs": 5.0,
    },
    "skillStderr": {"skillName": "web", "message": "listening"},
    "skillDisconnected": {"skillName": "web"},
}


def line(event_type: str, payload: dict[str, Any] | None = None) -> str:
    """One event as it goes over the wire."""
    base = {"type": event_type, "id": "e1", "expertKey": "team", "timestamp": 1, "jobId": "j1", "runId": "r1"}
    base["stepNumber"] = 1
    fields = RUNTIME_BASE if event_type in RUNTIME_EVENT_TYPES else RUN_BASE
    return compact({key: base[key] for key in fields} | (PAYLOADS[event_type] if payload is None else payload))


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@pytest.mark.requirement("runtime.events.run")
def test_there_are_twenty_one_run_events() -> None:
    assert set(RUN_EVENT_TYPES) == {
        "startRun",
        "resumeFromStop",
        "startGeneration",
        "retry",
        "callTools",
        "finishMcpTools",
        "callDelegate",
        "skipDelegates",
        "callInteractiveTool",
        "proceedToInteractiveTools",
        "resolveToolResults",
        "finishToolCall",
        "resumeToolCalls",
        "finishAllToolCalls",
        "continueToNextStep",
        "completeRun",
        "stopRunByInteractiveTool",
        "stopRunByDelegate",
        "stopRunByExceededMaxSteps",
        "stopRunByError",
        "stopRunByCancellation",
    }
    assert len(RUN_EVENT_TYPES) == 21


def test_there_are_six_streaming_events_and_five_runtime_events() -> None:
    assert set(STREAMING_EVENT_TYPES) == {
        "startStreamingReasoning",
        "streamReasoning",
        "completeStreamingReasoning",
        "startStreamingRunResult",
        "streamRunResult",
        "completeStreamingRunResult",
    }
    assert set(RUNTIME_EVENT_TYPES) == {
        "initializeRuntime",
        "skillStarting",
        "skillConnected",
        "skillStderr",
        "skillDisconnected",
    }
    assert (len(STREAMING_EVENT_TYPES), len(RUNTIME_EVENT_TYPES), len(EVENT_TYPES)) == (6, 5, 32)


def test_every_type_has_an_example_here() -> None:
    assert set(PAYLOADS) == set(EVENT_TYPES)


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_a_line_of_the_contract_is_read_and_written_back_as_it_was(event_type: str) -> None:
    text = line(event_type)
    event = event_adapter.validate_json(text)
    assert event.type == event_type
    assert isinstance(event, RunBase) == (event_type not in RUNTIME_EVENT_TYPES)
    assert event.wire_json() == text


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_the_base_fields_come_first_and_the_payload_behind_them(event_type: str) -> None:
    event = event_adapter.validate_json(line(event_type))
    written: list[str] = list(json.loads(event.wire_json()))
    base = RUNTIME_BASE if event_type in RUNTIME_EVENT_TYPES else RUN_BASE
    assert written == [*base, *PAYLOADS[event_type]]


@pytest.mark.parametrize("event_type", [name for name, payload in PAYLOADS.items() if payload])
def test_an_event_without_what_it_must_say_is_refused(event_type: str) -> None:
    for field in PAYLOADS[event_type]:
        rest = {key: value for key, value in PAYLOADS[event_type].items() if key != field}
        if field in OPTIONAL.get(event_type, ()):
            assert field not in json.loads(event_adapter.validate_json(line(event_type, rest)).wire_json())
        else:
            with pytest.raises(ValidationError, match=field):
                event_adapter.validate_json(line(event_type, rest))


OPTIONAL = {
    "retry": {"toolCalls", "toolResults"},
    "initializeRuntime": {"maxSteps", "query"},
    "skillConnected": {key for key in PAYLOADS["skillConnected"] if key != "skillName"},
}


def test_a_checkpoint_keeps_every_field_it_can_have() -> None:
    text = line("stopRunByDelegate", {"checkpoint": STOPPED, "step": STEP})
    read = json.loads(event_adapter.validate_json(text).wire_json())
    assert read["checkpoint"] == STOPPED


def test_a_step_keeps_every_field_it_can_have() -> None:
    step = {
        "stepNumber": 1,
        "inputMessages": [USER],
        "newMessages": [EXPERT, TOOL],
        "toolCalls": [CALL],
        "toolResults": [RESULT],
        "pendingToolCalls": [CALL],
        "partialToolResults": [RESULT],
        "usage": USAGE,
        "startedAt": 1,
        "finishedAt": 2,
    }
    text = line("completeRun", {"checkpoint": CHECKPOINT, "step": step, "text": "", "usage": USAGE})
    assert event_adapter.validate_json(text).wire_json() == text


def test_the_answer_that_opens_a_segment_is_in_its_first_event() -> None:
    answered = InteractiveAnswer(tool_call_id="tc1", tool_name="askUser", skill_name="user-input", text="yes")
    event = InitializeRuntime(
        id="e1",
        job_id="j1",
        run_id="r1",
        runtime_version="1",
        expert_name="team",
        experts=("team",),
        model="m",
        max_retries=1,
        timeout=1,
        interactive_tool_call=answered,
    )
    assert json.loads(event.wire_json())["interactiveToolCall"] == {
        "toolCallId": "tc1",
        "toolName": "askUser",
        "skillName": "user-input",
        "text": "yes",
    }


def test_fields_of_newer_writers_are_ignored() -> None:
    text = line("skillStderr", {**PAYLOADS["skillStderr"], "someday": 1})
    assert event_adapter.validate_json(text).wire_json() == line("skillStderr")


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(ValidationError):
        event_adapter.validate_json(line("skillStderr").replace("skillStderr", "attemptCompletion"))


def test_absent_values_inside_arguments_are_kept() -> None:
    call = {**CALL, "args": {"path": None, "deep": {"x": None}}}
    text = line("skipDelegates", {"pendingToolCalls": [call]})
    assert event_adapter.validate_json(text).wire_json() == text
