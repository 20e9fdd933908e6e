"""`perstack run`: resolve the definition, start the job, work on it and follow it."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError

from ...core.cassette import Cassette
from ...core.failures import UsageError, WorkspaceError
from ...core.ids import cuid_from, is_job_id
from ...core.messages import UserPart
from ...core.run import RUNTIME_LEVEL
from ...core.tools import ToolSpec
from ...definitions.environment import read_env
from ...definitions.hosts import allowed_endpoints
from ...definitions.load import load_config
from ...definitions.lockfile import lock_for
from ...definitions.resolve import Overrides, ResolvedJob, parse_provider, parse_reasoning_budget, resolve_job
from ..diagnostics import ExitCode, warn
from ..lifecycle import run_command
from ..output import parse_filter


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What was typed, nothing interpreted."""

    expert_key: str
    query: str | None = None
    is_latest: bool = False
    continue_job: str | None = None
    resume_from: str | None = None
    is_branch: bool = False
    is_answer: bool = False
    config: str | None = None
    provider: str | None = None
    model: str | None = None
    reasoning_budget: str | None = None
    max_steps: int | None = None
    max_retries: int | None = None
    timeout_ms: int | None = None
    job_id: str | None = None
    env_paths: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    filter_types: str | None = None
    task_queue: str | None = None
    address: str | None = None
    replay: str | None = None
    is_replay_strict: bool = False
    is_frozen: bool = False
    is_detached: bool = False
    is_verbose: bool = False


@dataclass(frozen=True, kw_only=True)
class Past:
    """Which job to go on with, and from where."""

    job_id: str | None
    """Without one, the workspace's newest."""
    checkpoint_id: str | None
    """Without one, as the job stands."""
    is_branch: bool
    """A new job from there instead of the next execution of the old one."""
    is_answer: bool
    """The text answers what the job asks a person."""
    is_any_expert: bool = False
    """Whether the checkpoint may be of any run; otherwise it is one of the expert's that was named."""


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A run that is checked as far as this machine can check it without Temporal."""

    options: RunOptions
    past: Past | None
    job: ResolvedJob
    job_id: str
    workspace: Path
    types: frozenset[str] | None
    cassette: bytes | None
    files: tuple[UserPart, ...]
    locked_tools: dict[str, tuple[ToolSpec, ...]]


def prepare(options: RunOptions) -> PreparedRun:
    """Everything that can be refused before anything starts.

    Raises:
        PerstackError: a sentence for the caller or the author of the definition.
    """
    types = parse_filter(options.filter_types)
    if options.job_id is not None and not is_job_id(options.job_id):
        raise UsageError(f"Invalid job id: {options.job_id}", hint="Up to 128 letters, digits, `_` and `-`.")
    past = _past(options)
    workspace = _workspace()
    _require_texts({"The query": options.query, "--model": options.model, "--task-queue": options.task_queue})
    overrides = Overrides(
        provider=parse_provider(options.provider) if options.provider else None,
        model=options.model,
        reasoning_budget=parse_reasoning_budget(options.reasoning_budget) if options.reasoning_budget else None,
        max_steps=options.max_steps,
        max_retries=options.max_retries,
        timeout_ms=options.timeout_ms,
        env_paths=options.env_paths,
    )
    loaded = load_config(
        options.config, cwd=workspace, expert_key=options.expert_key, allowed=allowed_endpoints(os.environ)
    )
    cassette = _read_cassette(options.replay) if options.replay else None
    files = _file_parts(options.files, workspace)
    job = resolve_job(
        loaded,
        options.expert_key,
        overrides,
        host_env=os.environ,
        cwd=workspace,
        runtime_version=RUNTIME_LEVEL,
    )
    own = {key: expert for key, expert in job.experts.items() if key in loaded.own_experts}
    locked = lock_for(loaded.directory, own, is_frozen=options.is_frozen)
    for warning in (*job.warnings, *locked.warnings, *_env_advice(options.env_paths, job.env_paths)):
        warn(warning)
    if cassette is None and options.task_queue is None:
        # The workers of a pool have credentials of their own.
        _require_credentials(job)
    _require_writable(workspace)
    job_id = options.job_id or cuid_from(uuid.uuid4().hex)
    return PreparedRun(
        options=options,
        past=past,
        job=job,
        job_id=job_id,
        workspace=workspace,
        types=types,
        cassette=cassette,
        files=files,
        locked_tools=locked.tools,
    )


def run(options: RunOptions) -> NoReturn:
    """Run an expert and leave with the job's exit code."""

    async def command() -> ExitCode:
        prepared = prepare(options)
        if prepared.past is not None:
            from ..continuing import continue_job

            return await continue_job(prepared, prepared.past)
        from ..job import run_job

        return await run_job(prepared)

    run_command(command, is_verbose=options.is_verbose)


def _past(options: RunOptions) -> Past | None:
    """What the options for going on with a job say; `None` for a new job."""
    if options.resume_from is not None and options.continue_job is None:
        raise UsageError("--resume-from requires --continue-job")
    if options.is_latest and options.continue_job is not None:
        raise UsageError("--continue and --continue-job both name a job.", hint="Give one of them.")
    if not options.is_latest and options.continue_job is None:
        _require_new(options)
        return None
    if options.continue_job is not None and not is_job_id(options.continue_job):
        raise UsageError(f"Invalid job id: {options.continue_job}", hint="Up to 128 letters, digits, `_` and `-`.")
    if options.is_answer and options.query is None:
        raise UsageError("-i needs the answer in place of the query.")
    if options.is_detached and options.is_answer:
        raise UsageError("--detach cannot be combined with -i.", hint="`perstack respond` answers and works.")
    if options.replay:
        raise UsageError("--replay starts a new job.", hint="A cassette brings its own past along.")
    if options.job_id is not None and not options.is_branch:
        raise UsageError("--job-id names a new job.", hint="With --continue-job it needs --branch.")
    if options.files and (options.is_answer or options.query is None):
        raise UsageError("--file goes with a new query.")
    return Past(
        job_id=options.continue_job,
        checkpoint_id=options.resume_from,
        is_branch=options.is_branch,
        is_answer=options.is_answer,
    )


def _require_new(options: RunOptions) -> None:
    for name, is_given in (("--branch", options.is_branch), ("-i", options.is_answer)):
        if is_given:
            raise UsageError(f"{name} requires --continue or --continue-job.")
    if options.query is None:
        raise UsageError(
            "There is no query.",
            hint=f'`perstack run {options.expert_key} "the task"`; only a job that goes on has one already.',
        )


def _workspace() -> Path:
    try:
        workspace = Path.cwd()
    except FileNotFoundError as error:
        raise WorkspaceError("The current folder does not exist any more.", hint="Change to another one.") from error
    _require_texts({"The path of the workspace": str(workspace)})
    return workspace


def _require_texts(texts: dict[str, str | None]) -> None:
    """Refuse what no message can carry: nothing at all, or bytes that are no text."""
    for what, text in texts.items():
        if text is None:
            continue
        if not text.strip():
            raise UsageError(f"{what} is empty.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{what} is not UTF-8 text: {text!a}.") from error


def _env_advice(given: tuple[str, ...], paths: tuple[str, ...]) -> Iterator[str]:
    if given:
        for path in paths:
            if not os.path.exists(path):
                yield f"--env-path {path}: there is no such file"


def _file_parts(names: tuple[str, ...], workspace: Path) -> tuple[UserPart, ...]:
    if not names:
        return ()
    from ..attachments import file_part

    return tuple(file_part(name, workspace) for name in names)


def _read_cassette(path: str) -> bytes:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"Cannot read the cassette {path}: {error.strerror}.") from error
    try:
        Cassette.model_validate_json(content)
    except ValidationError as error:
        raise UsageError(
            f"{path} is not a cassette: {error.errors()[0]['msg']}.",
            hint="`perstack log --job JOB --cassette` writes one from a finished job.",
        ) from error
    return content


def _require_credentials(job: ResolvedJob) -> None:
    from ...activities.providers.registry import require_credentials

    env = read_env(job.env_paths, os.environ)
    require_credentials(job.provider, env, job.provider_setting)


def _require_writable(workspace: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=workspace):
            return
    except OSError as error:
        raise WorkspaceError(
            f"The workspace {workspace} cannot be written: {error.strerror}.",
            hint="Run the command in a folder you may write.",
        ) from error
