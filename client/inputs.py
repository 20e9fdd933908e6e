"""What a job starts from, made of a resolved definition; the command line and programs of others ask here."""

from dataclasses import dataclass, field
from pathlib import Path

from .. import __version__
from ..core.expert import Expert
from ..core.messages import UserPart
from ..core.run import BlobRef, JobSettings, ModelRules, RunInput
from ..core.tools import ToolSpec
from ..definitions.resolve import ResolvedJob


@dataclass(frozen=True, kw_only=True)
class JobTask:
    """What the definition does not say: the task and where it is worked on."""

    job_id: str
    query: str
    workspace: Path
    storage_id: str
    """Of the storage that holds the job's large payloads."""
    search_attributes: tuple[str, ...] = ()
    """Those of ours that the server knows."""
    is_archiving: bool = False
    """Whether the server will forget the job soon, as `forgets_soon` says."""
    files: tuple[UserPart, ...] = ()
    locked_tools: dict[str, tuple[ToolSpec, ...]] = field(default_factory=dict[str, tuple[ToolSpec, ...]])
    cassette: BlobRef | None = None
    is_replay_strict: bool = False


def job_input(job: ResolvedJob, task: JobTask, *, experts: dict[str, Expert] | None = None) -> RunInput:
    """The input of a job's first run; `experts` stand in for those of the definition where more is known of them."""
    settings = JobSettings(
        runtime_version=__version__,
        limits=job.limits,
        models=ModelRules(
            provider=job.provider,
            model_override=job.model_settings.model_override,
            model=job.model_settings.model,
            default_tier=job.model_settings.default_tier,
            reasoning_budget=job.model_settings.reasoning_budget,
        ),
        workspace=str(task.workspace),
        env_paths=job.env_paths,
        provider_setting=job.provider_setting,
        allowed_env=job.allowed_env,
        storage_id=task.storage_id,
        search_attributes=task.search_attributes,
        is_archiving=task.is_archiving,
        cassette=task.cassette,
        is_replay_strict=task.is_replay_strict,
    )
    return RunInput(
        job_id=task.job_id,
        run_id=task.job_id,
        expert_key=job.expert_key,
        experts=job.experts if experts is None else experts,
        query=task.query,
        files=task.files,
        locked_tools=task.locked_tools,
        settings=settings,
    )
