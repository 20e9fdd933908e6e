"""What goes into a run, what its activities answer, and what comes out of it."""

from typing import Any, Literal

from .checkpoint import CheckpointStatus, DelegatedBy
from .expert import Expert, ProviderName, ReasoningBudget, Tier
from .failures import Attempt, Failure, PerstackError
from .messages import ExpertPart, UserPart
from .seed import Carried, Seed
from .skills import SkillStart
from .tools import ToolSpec
from .usage import NO_USAGE, Usage
from .wire import Wire

RUNTIME_LEVEL = "1.0.0"
"""What `minRuntimeVersion` is measured against: the level of the product that this runtime implements.

Definitions in use ask for `v1.0`, whatever the number of the package that runs them.
"""

MACHINE_VERSION = 1
"""Recorded in every input; a run started by a newer version is refused by name."""

FinishReason = Literal["stop", "toolCalls", "length", "refusal", "cancelled", "other"]


class Limits(Wire):
    """Bounds of every run of a job."""

    max_steps: int = 100
    """Own generations of one run over all its segments."""
    max_retries: int = 5
    timeout_ms: int = 300_000
    """Of one generation."""


class BlobRef(Wire):
    """Content in the payload storage, named by its hash."""

    sha256: str
    size: int


class ModelRules(Wire):
    """How an expert that is defined while the job runs gets its model; the others carry theirs."""

    provider: ProviderName = "anthropic"
    model_override: str | None = None
    """What the caller asked for; beats an expert's tier."""
    model: str | None = None
    """The definition's default; gives way to an expert's tier."""
    default_tier: Tier | None = None
    reasoning_budget: ReasoningBudget = "low"


class JobSettings(Wire):
    """What all runs of a job share; made by the client, inherited by every delegate."""

    runtime_version: str
    machine_version: int = MACHINE_VERSION
    limits: Limits = Limits()
    models: ModelRules = ModelRules()
    workspace: str
    """Absolute path of the folder the experts work in."""
    workspace_id: str | None = None
    """The marker the workspace must bear; found by the root's session."""
    env_paths: tuple[str, ...] = ()
    """Absolute paths of the env files; never their values."""
    provider_setting: dict[str, Any] = {}
    """The `[provider.setting]` table; holds no credential."""
    allowed_env: tuple[str, ...] = ()
    """Variables a definition made while the job runs may require."""
    storage_id: str = ""
    search_attributes: tuple[str, ...] = ()
    """The search attributes the server knows; only these may be set."""
    is_archiving: bool = False
    """Whether every execution writes its history into the storage before it ends: the server will forget it soon."""
    cassette: BlobRef | None = None
    is_replay_strict: bool = False


def require_known_machine(settings: JobSettings) -> None:
    """Refuse a run that this release cannot understand; every older one it can.

    Raises:
        PerstackError: a newer release started it.
    """
    if settings.machine_version > MACHINE_VERSION:
        raise PerstackError(
            f"This run was started by a newer Perstack ({settings.runtime_version}, machine "
            f"{settings.machine_version}); this one knows machine {MACHINE_VERSION}.",
            code="machine.newer",
            hint="Upgrade Perstack here.",
        )


class RunInput(Wire):
    """Everything one run starts from."""

    job_id: str
    run_id: str
    """Id of the first segment; names the workflow of a delegate."""
    path: tuple[str, ...] = ()
    """Calls from the root down to this run, each `<generation>.<call index>`."""
    expert_key: str
    experts: dict[str, Expert]
    """The expert and all it can reach."""
    query: str | None = None
    files: tuple[UserPart, ...] = ()
    locked_tools: dict[str, tuple[ToolSpec, ...]] = {}
    """By expert, what its MCP skills offer according to `perstack.lock`; those skills start at their first call."""
    first_step: int = 1
    seed: Seed | None = None
    """What the run goes on from; without it the run begins with its instruction and its task."""
    carried: Carried | None = None
    """The run itself, handed on by the execution before this one."""
    previous: str | None = None
    """Temporal's run id of the execution of the same workflow before this one."""
    delegated_by: DelegatedBy | None = None
    settings: JobSettings

    @property
    def begins_with_query(self) -> bool:
        """Whether the expert is given a task; a run that is only resumed has its task already."""
        return self.seed is None or self.seed.message is not None

    @property
    def expert(self) -> Expert:
        """The definition this run executes."""
        return self.experts[self.expert_key]


class SessionReport(Wire):
    """What `open_session` found: recorded, so that a later release cannot change a running job."""

    queue: str
    """Where this run's `generate` and `call_tool` go: a queue of one worker's own, or empty for that of the run."""
    workspace_id: str
    """The marker of the workspace the session works in."""
    instruction: str | None = None
    """The rendered instruction; absent when a session is opened again."""
    skill_tools: tuple[ToolSpec, ...] = ()
    skills: tuple[SkillStart, ...] = ()


class Generation(Wire):
    """The result of one model call."""

    contents: tuple[ExpertPart, ...] = ()
    """Thinking, then tools of the provider, then text, then calls in the order of `sorted_calls`."""
    usage: Usage = NO_USAGE
    finish_reason: FinishReason
    model: str | None = None
    """As the provider reported it."""
    attempts: tuple[Attempt, ...] = ()
    """Failed attempts before this answer."""
    is_draining: bool = False


class RunResult(Wire):
    """How a run ended; also what a parent gets of its delegate."""

    status: CheckpointStatus
    text: str = ""
    expert_key: str
    run_id: str
    """Of the last segment."""
    checkpoint_id: str
    last_step: int
    usage: Usage = NO_USAGE
    failure: Failure | None = None
