"""The 21 run events, 6 streaming events and 5 runtime events (contract §3, decisions)."""

# The models are frozen, so narrowing `type` in a subclass is sound; the base field keeps it first on the wire.
# pyright: reportIncompatibleVariableOverride=false

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, TypeAdapter

from .checkpoint import Checkpoint, Step
from .failures import Failure
from .messages import ExpertMessage, InputMessage, Message, ToolMessage, UserMessage
from .tools import ToolCall, ToolResult
from .usage import Usage
from .wire import Wire


class RuntimeBase(Wire):
    """Base fields of runtime events; `timestamp` is put on by the fold."""

    type: str
    id: str
    timestamp: int = 0
    job_id: str
    run_id: str


class RunBase(Wire):
    """Base fields of run and streaming events; a consumer tells the classes apart by `expertKey`."""

    type: str
    id: str
    expert_key: str
    timestamp: int = 0
    job_id: str
    run_id: str
    step_number: int


class StartRun(RunBase):
    type: Literal["startRun"] = "startRun"
    initial_checkpoint: Checkpoint
    input_messages: tuple[InputMessage, ...]


class ResumeFromStop(RunBase):
    type: Literal["resumeFromStop"] = "resumeFromStop"
    checkpoint: Checkpoint


class StartGeneration(RunBase):
    type: Literal["startGeneration"] = "startGeneration"
    messages: tuple[Message, ...]


class Retry(RunBase):
    type: Literal["retry"] = "retry"
    reason: str
    new_messages: tuple[Message, ...]
    tool_calls: tuple[ToolCall, ...] | None = None
    tool_results: tuple[ToolResult, ...] | None = None
    usage: Usage


class CallTools(RunBase):
    type: Literal["callTools"] = "callTools"
    new_message: ExpertMessage
    tool_calls: tuple[ToolCall, ...]
    usage: Usage


class FinishMcpTools(RunBase):
    type: Literal["finishMcpTools"] = "finishMcpTools"
    tool_results: tuple[ToolResult, ...]
    pending_tool_calls: tuple[ToolCall, ...]


class CallDelegate(RunBase):
    type: Literal["callDelegate"] = "callDelegate"
    new_message: ExpertMessage
    tool_calls: tuple[ToolCall, ...]
    usage: Usage


class SkipDelegates(RunBase):
    type: Literal["skipDelegates"] = "skipDelegates"
    pending_tool_calls: tuple[ToolCall, ...]


class CallInteractiveTool(RunBase):
    type: Literal["callInteractiveTool"] = "callInteractiveTool"
    new_message: ExpertMessage
    tool_call: ToolCall
    usage: Usage


class ProceedToInteractiveTools(RunBase):
    type: Literal["proceedToInteractiveTools"] = "proceedToInteractiveTools"
    pending_tool_calls: tuple[ToolCall, ...]
    partial_tool_results: tuple[ToolResult, ...]


class ResolveToolResults(RunBase):
    type: Literal["resolveToolResults"] = "resolveToolResults"
    tool_results: tuple[ToolResult, ...]


class FinishToolCall(RunBase):
    type: Literal["finishToolCall"] = "finishToolCall"
    new_messages: tuple[UserMessage | ToolMessage, ...]


class ResumeToolCalls(RunBase):
    type: Literal["resumeToolCalls"] = "resumeToolCalls"
    pending_tool_calls: tuple[ToolCall, ...]
    partial_tool_results: tuple[ToolResult, ...]


class FinishAllToolCalls(RunBase):
    type: Literal["finishAllToolCalls"] = "finishAllToolCalls"
    new_messages: tuple[UserMessage | ToolMessage, ...]


class ContinueToNextStep(RunBase):
    type: Literal["continueToNextStep"] = "continueToNextStep"
    checkpoint: Checkpoint
    step: Step
    next_checkpoint: Checkpoint


class _Stop(RunBase):
    checkpoint: Checkpoint
    step: Step


class CompleteRun(_Stop):
    type: Literal["completeRun"] = "completeRun"
    text: str
    usage: Usage


class StopRunByInteractiveTool(_Stop):
    type: Literal["stopRunByInteractiveTool"] = "stopRunByInteractiveTool"


class StopRunByDelegate(_Stop):
    type: Literal["stopRunByDelegate"] = "stopRunByDelegate"


class StopRunByExceededMaxSteps(_Stop):
    type: Literal["stopRunByExceededMaxSteps"] = "stopRunByExceededMaxSteps"


class StopRunByError(_Stop):
    type: Literal["stopRunByError"] = "stopRunByError"
    error: Failure


class StopRunByCancellation(_Stop):
    type: Literal["stopRunByCancellation"] = "stopRunByCancellation"


class StartStreamingReasoning(RunBase):
    type: Literal["startStreamingReasoning"] = "startStreamingReasoning"


class StreamReasoning(RunBase):
    type: Literal["streamReasoning"] = "streamReasoning"
    delta: str


class CompleteStreamingReasoning(RunBase):
    type: Literal["completeStreamingReasoning"] = "completeStreamingReasoning"
    text: str


class StartStreamingRunResult(RunBase):
    type: Literal["startStreamingRunResult"] = "startStreamingRunResult"


class StreamRunResult(RunBase):
    type: Literal["streamRunResult"] = "streamRunResult"
    delta: str


class CompleteStreamingRunResult(RunBase):
    type: Literal["completeStreamingRunResult"] = "completeStreamingRunResult"
    text: str


class InteractiveAnswer(Wire):
    """The interactive call whose answer opens a segment."""

    tool_call_id: str
    tool_name: str
    skill_name: str
    text: str


class InitializeRuntime(RuntimeBase):
    type: Literal["initializeRuntime"] = "initializeRuntime"
    runtime_version: str
    expert_name: str
    experts: tuple[str, ...]
    model: str
    max_steps: int | None = None
    max_retries: int
    timeout: int
    """Per generation, in milliseconds."""
    query: str | None = None
    interactive_tool_call: InteractiveAnswer | None = None


class SkillStarting(RuntimeBase):
    type: Literal["skillStarting"] = "skillStarting"
    skill_name: str
    command: str
    args: tuple[str, ...]


class SkillConnected(RuntimeBase):
    type: Literal["skillConnected"] = "skillConnected"
    skill_name: str
    server_info: dict[str, str] | None = None
    spawn_duration_ms: float | None = None
    handshake_duration_ms: float | None = None
    tool_discovery_duration_ms: float | None = None
    connect_duration_ms: float | None = None
    total_duration_ms: float | None = None
    renamed_tools: dict[str, str] | None = None
    """The skill's name for a tool → what it is offered as."""


class SkillStderr(RuntimeBase):
    type: Literal["skillStderr"] = "skillStderr"
    skill_name: str
    message: str


class SkillDisconnected(RuntimeBase):
    type: Literal["skillDisconnected"] = "skillDisconnected"
    skill_name: str


RunEvent = Annotated[
    StartRun
    | ResumeFromStop
    | StartGeneration
    | Retry
    | CallTools
    | FinishMcpTools
    | CallDelegate
    | SkipDelegates
    | CallInteractiveTool
    | ProceedToInteractiveTools
    | ResolveToolResults
    | FinishToolCall
    | ResumeToolCalls
    | FinishAllToolCalls
    | ContinueToNextStep
    | CompleteRun
    | StopRunByInteractiveTool
    | StopRunByDelegate
    | StopRunByExceededMaxSteps
    | StopRunByError
    | StopRunByCancellation,
    Field(discriminator="type"),
]
StreamingEvent = Annotated[
    StartStreamingReasoning
    | StreamReasoning
    | CompleteStreamingReasoning
    | StartStreamingRunResult
    | StreamRunResult
    | CompleteStreamingRunResult,
    Field(discriminator="type"),
]
RuntimeEvent = Annotated[
    InitializeRuntime | SkillStarting | SkillConnected | SkillStderr | SkillDisconnected,
    Field(discriminator="type"),
]
Event = RunEvent | StreamingEvent | RuntimeEvent
event_adapter: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])


def _names(union: Any) -> tuple[str, ...]:
    return tuple(member.model_fields["type"].default for member in get_args(get_args(union)[0]))


RUN_EVENT_TYPES = _names(RunEvent)
STREAMING_EVENT_TYPES = _names(StreamingEvent)
RUNTIME_EVENT_TYPES = _names(RuntimeEvent)
EVENT_TYPES = (*RUN_EVENT_TYPES, *STREAMING_EVENT_TYPES, *RUNTIME_EVENT_TYPES)
