"""The command tree only: options and help; each command's module is imported when it is called."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .completion import JobKind

app = typer.Typer(
    name="perstack",
    help="Run teams of micro-agents as durable Temporal workflows.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

EXIT_CODES = """
Exit codes: 0 completed, 1 the run failed, 2 usage or definition error, 3 Temporal unreachable or no worker,
4 provider credentials, 5 step limit, 6 waiting for a person, 7 cancelled, 130 interrupted (the run is parked).
"""

READER_CODES = """
Exit codes: 0 done, 1 it failed, 2 usage error, 3 Temporal unreachable, 130 interrupted.
"""
CANCEL_CODES = """
Exit codes: 0 the job has ended, 2 usage error, 3 Temporal unreachable or no worker, 130 interrupted.
"""
FILE_CODES = """
Exit codes: 0 done, 1 it failed, 2 usage error, or a file or the storage cannot be used, 130 interrupted.
"""

Address = Annotated[
    str | None, typer.Option("--address", help="Temporal server; default: TEMPORAL_ADDRESS, else an embedded one.")
]


def _experts(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    from .completion import expert_keys

    return expert_keys(ctx, incomplete)


def _jobs(kind: "JobKind") -> Callable[[typer.Context, str], list[tuple[str, str]]]:
    def offer(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
        from .completion import job_ids

        return job_ids(ctx, incomplete, kind)

    return offer


def _quiet(is_wanted: bool) -> None:
    if is_wanted:
        from .diagnostics import be_quiet

        be_quiet()


Quiet = Annotated[bool, typer.Option("-q", "--quiet", callback=_quiet, help="No talk on stderr but errors.")]

# What several commands take in the same words.
Config = Annotated[str | None, typer.Option(help="perstack.toml, a path or https URL.")]
Provider = Annotated[str | None, typer.Option(help="Model provider; default: perstack.toml, else anthropic.")]
Model = Annotated[str | None, typer.Option(help="Model; default: the expert's tier.")]
ReasoningBudget = Annotated[str | None, typer.Option(help="none, minimal, low, medium, high or a number of tokens.")]
MaxSteps = Annotated[int | None, typer.Option(help="Generations of one run; default 100.")]
MaxRetries = Annotated[int | None, typer.Option(help="Retries of one generation; default 5.")]
Timeout = Annotated[int | None, typer.Option(help="Milliseconds of one generation; default 300000.")]
EnvPaths = Annotated[list[str] | None, typer.Option(help="Env file, repeatable; default .env and .env.local.")]
Files = Annotated[list[str] | None, typer.Option(help="Image or PDF for the first message, repeatable.")]
EventTypes = Annotated[str | None, typer.Option("--filter", help="Print only these event types, comma-separated.")]
TaskQueue = Annotated[
    str | None, typer.Option(help="Queue of a worker pool that does the work instead of this process.")
]
Replay = Annotated[str | None, typer.Option(help="Answer from this cassette instead of a provider.")]
Frozen = Annotated[bool, typer.Option("--frozen", help="Refuse to run when the definition differs from perstack.lock.")]
ReplayStrict = Annotated[bool, typer.Option("--replay-strict", help="With --replay: compare texts, too.")]
Latest = Annotated[bool, typer.Option("--continue", help="Go on with the job started last in this folder.")]
ContinuedJob = Annotated[
    str | None, typer.Option(metavar="JOB", help="Go on with this job.", autocompletion=_jobs("any"))
]
ResumeFrom = Annotated[
    str | None, typer.Option(metavar="CHECKPOINT", help="With --continue-job: from this checkpoint of any run.")
]
Branch = Annotated[bool, typer.Option("--branch", help="Go on in a new job; the old one stays as it is, open or not.")]


def _version(is_wanted: bool) -> None:
    if is_wanted:
        from .. import __version__

        typer.echo(f"perstack {__version__}")
        raise typer.Exit


@app.callback()
def perstack(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Run teams of micro-agents as durable Temporal workflows."""


@app.command(epilog=EXIT_CODES)
def run(
    expert_key: Annotated[
        str,
        typer.Argument(metavar="EXPERT", help="Key of the expert, e.g. create-expert.", autocompletion=_experts),
    ],
    query: Annotated[
        str | None, typer.Argument(metavar="[QUERY]", help="The task; a job that goes on may do without.")
    ] = None,
    config: Config = None,
    provider: Provider = None,
    model: Model = None,
    reasoning_budget: ReasoningBudget = None,
    max_steps: MaxSteps = None,
    max_retries: MaxRetries = None,
    timeout: Timeout = None,
    job_id: Annotated[str | None, typer.Option(help="Id of the job; the same id again follows the same job.")] = None,
    env_path: EnvPaths = None,
    file: Files = None,
    filter_types: EventTypes = None,
    task_queue: TaskQueue = None,
    address: Address = None,
    replay: Replay = None,
    frozen: Frozen = False,
    replay_strict: ReplayStrict = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="More talk on stderr.")] = False,
    continue_: Latest = False,
    continue_job: ContinuedJob = None,
    resume_from: ResumeFrom = None,
    branch: Branch = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Print the job's id and leave; a background process works on it.")
    ] = False,
    interactive: Annotated[
        bool, typer.Option("-i", "--interactive-tool-call-result", help="QUERY answers what the job asks a person.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Run an expert; prints its events as JSON Lines on stdout.

    \b
    perstack run create-expert "An expert that reviews SQL migrations"
    perstack run team "Write the release notes" --filter completeRun,stopRunByError
    perstack run team "Same again" --replay job.cassette.json
    perstack run team "Take your time" --detach
    perstack run team "Now in French" --continue
    perstack run team --continue-job JOB --resume-from CHECKPOINT --branch
    """
    from .commands.run import RunOptions
    from .commands.run import run as run_command

    run_command(
        RunOptions(
            expert_key=expert_key,
            query=query,
            is_latest=continue_,
            continue_job=continue_job,
            resume_from=resume_from,
            is_branch=branch,
            is_answer=interactive,
            is_detached=detach,
            config=config,
            provider=provider,
            model=model,
            reasoning_budget=reasoning_budget,
            max_steps=max_steps,
            max_retries=max_retries,
            timeout_ms=timeout,
            job_id=job_id,
            env_paths=tuple(env_path or ()),
            files=tuple(file or ()),
            filter_types=filter_types,
            task_queue=task_queue,
            address=address,
            replay=replay,
            is_replay_strict=replay_strict,
            is_frozen=frozen,
            is_verbose=verbose,
        )
    )


@app.command(epilog=EXIT_CODES)
def start(
    expert_key: Annotated[
        str | None,
        typer.Argument(metavar="[EXPERT]", help="Key of the expert; without one, choose.", autocompletion=_experts),
    ] = None,
    query: Annotated[str | None, typer.Argument(metavar="[QUERY]", help="The task; without one, write it.")] = None,
    config: Config = None,
    provider: Provider = None,
    model: Model = None,
    reasoning_budget: ReasoningBudget = None,
    max_steps: MaxSteps = None,
    max_retries: MaxRetries = None,
    timeout: Timeout = None,
    job_id: Annotated[
        str | None, typer.Option(help="Id of the first job; the same id again follows the same job.")
    ] = None,
    env_path: EnvPaths = None,
    file: Files = None,
    task_queue: TaskQueue = None,
    address: Address = None,
    replay: Replay = None,
    frozen: Frozen = False,
    replay_strict: ReplayStrict = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="More talk on stderr, once the screens are gone.")] = False,
    continue_: Latest = False,
    continue_job: ContinuedJob = None,
    resume_from: ResumeFrom = None,
    branch: Branch = False,
    quiet: Quiet = False,
) -> None:
    """Work with experts on screen: choose, ask, watch, answer, go on.

    Leaving parks the job; what is said then tells how to go on with it.

    \b
    perstack start
    perstack start team "Write the release notes"
    perstack start team "Now in French" --continue
    """
    from .commands.run import RunOptions
    from .commands.start import start as start_command

    start_command(
        RunOptions(
            expert_key=expert_key or "",
            query=query,
            is_latest=continue_,
            continue_job=continue_job,
            resume_from=resume_from,
            is_branch=branch,
            config=config,
            provider=provider,
            model=model,
            reasoning_budget=reasoning_budget,
            max_steps=max_steps,
            max_retries=max_retries,
            timeout_ms=timeout,
            job_id=job_id,
            env_paths=tuple(env_path or ()),
            files=tuple(file or ()),
            task_queue=task_queue,
            address=address,
            replay=replay,
            is_replay_strict=replay_strict,
            is_frozen=frozen,
            is_verbose=verbose,
        )
    )


@app.command(epilog=EXIT_CODES)
def resume(
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.", autocompletion=_jobs("unfinished"))],
    filter_types: EventTypes = None,
    address: Address = None,
    quiet: Quiet = False,
) -> None:
    """Go on with a job that was parked or whose process died.

    Prints all its events.

    \b
    perstack resume JOB
    perstack resume JOB --filter completeRun,stopRunByError
    """
    from .commands.resume import resume as resume_command

    resume_command(job_id, filter_types=filter_types, address=address)


@app.command(epilog=CANCEL_CODES)
def cancel(
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.", autocompletion=_jobs("open"))],
    address: Address = None,
    quiet: Quiet = False,
) -> None:
    """End a job with all its delegates; returns when it has ended.

    \b
    perstack cancel JOB
    """
    from .commands.cancel import cancel as cancel_command

    cancel_command(job_id, address=address)


@app.command(epilog=READER_CODES)
def jobs(
    take: Annotated[int, typer.Option(help="How many at most.", min=1)] = 20,
    status: Annotated[
        str | None, typer.Option(help="Only these: running, waiting, completed, stoppedByError …")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    address: Address = None,
    quiet: Quiet = False,
) -> None:
    """List the server's jobs: open ones, then those that ended last.

    \b
    perstack jobs --status waiting
    perstack jobs --take 100 --json
    """
    from .commands.jobs import jobs as jobs_command

    jobs_command(take=take, status=status, is_json=json, address=address)


@app.command(epilog=EXIT_CODES)
def respond(
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.", autocompletion=_jobs("waiting"))],
    words: Annotated[
        list[str],
        typer.Argument(metavar="[CALL_ID] TEXT", help="Which question, if several are open; the answer, @file or -."),
    ],
    filter_types: EventTypes = None,
    address: Address = None,
    quiet: Quiet = False,
) -> None:
    """Answer what a job asks a person.

    Works on the job until it next stops, where nobody else does.

    \b
    perstack respond JOB "Yes, go on"
    perstack respond JOB toolu_01 @answer.md
    """
    from .commands.respond import respond as respond_command

    respond_command(job_id, words, filter_types=filter_types, address=address)


@app.command(epilog=READER_CODES)
def log(
    job: Annotated[
        str | None,
        typer.Option("--job", help="Id of the job; default: the latest one.", autocompletion=_jobs("any")),
    ] = None,
    file: Annotated[str | None, typer.Option("--file", help="An export instead; needs no server.")] = None,
    run_id: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="Only this run; with a later id of it, that segment.")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="CHECKPOINT", help="This checkpoint, and the events of its run.")
    ] = None,
    step: Annotated[str | None, typer.Option(metavar="STEPS", help="5, >5, >=5, <10, <=10 or 1-10.")] = None,
    type_: Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Only events of this type.")] = None,
    errors: Annotated[bool, typer.Option("--errors", help="Only stopRunByError and retry.")] = False,
    tools: Annotated[
        bool, typer.Option("--tools", help="Only callTools, resolveToolResults, callInteractiveTool.")
    ] = False,
    delegations: Annotated[
        bool, typer.Option("--delegations", help="Only callDelegate and stopRunByDelegate.")
    ] = False,
    expression: Annotated[
        str | None,
        typer.Option("--filter", metavar="EXPR", help="Only events where `.path OP value` holds; [] is any element."),
    ] = None,
    take: Annotated[str | None, typer.Option(metavar="N", help="At most so many; default 100, 0 is all.")] = None,
    offset: Annotated[str | None, typer.Option(metavar="N", help="Leave out so many at the beginning.")] = None,
    context: Annotated[str | None, typer.Option(metavar="N", help="So many neighbours of each.")] = None,
    messages: Annotated[bool, typer.Option("--messages", help="With --checkpoint: its messages.")] = False,
    summary: Annotated[bool, typer.Option("--summary", help="Count what matches.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="What tools and delegates are called with.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show events as they come, until the job ends or waits for a person.")
    ] = False,
    text: Annotated[
        bool, typer.Option("--text", help="Text, on a terminal, too; without it and without filters, a browser opens.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="The job and its events as one JSON object.")] = False,
    pretty: Annotated[bool, typer.Option("--pretty", help="The same, indented.")] = False,
    cassette: Annotated[bool, typer.Option("--cassette", help="The model's answers, for `run --replay`.")] = False,
    export: Annotated[bool, typer.Option("--export", help="All of it, as `perstack export` writes it.")] = False,
    address: Address = None,
    quiet: Quiet = False,
) -> None:
    """Show what happened in a job; needs no worker.

    \b
    perstack log
    perstack log --job JOB --tools --step 3-5 --verbose
    perstack log --job JOB --filter '.toolCalls[].toolName == "exec"' --context 1
    perstack log --job JOB --follow --json
    """
    from .commands.log import log as log_command
    from .log_options import LogOptions

    log_command(
        LogOptions(
            job_id=job,
            file=file,
            run_id=run_id,
            checkpoint_id=checkpoint,
            step=step,
            type=type_,
            is_errors=errors,
            is_tools=tools,
            is_delegations=delegations,
            expression=expression,
            take=take,
            offset=offset,
            context=context,
            has_messages=messages,
            is_summary=summary,
            is_verbose=verbose,
            is_following=follow,
            is_text=text,
            is_json=json or pretty,
            is_pretty=pretty,
            is_cassette=cassette,
            is_export=export,
            address=address,
        )
    )


@app.command(epilog=READER_CODES)
def export(
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.", autocompletion=_jobs("any"))],
    output: Annotated[str | None, typer.Option("-o", "--output", help="File to write; default stdout.")] = None,
    address: Address = None,
    quiet: Quiet = False,
) -> None:
    """Write a whole job into one file.

    Every execution is in it, every delegate, every large payload.

    \b
    perstack export JOB -o job.json
    perstack log --file job.json
    """
    from .commands.export import export as export_command

    export_command(job_id, output=output, address=address)


@app.command(name="import", epilog=FILE_CODES)
def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `perstack export` wrote; - for stdin.")],
    quiet: Quiet = False,
) -> None:
    """Put an exported job into the archive of the payload storage.

    The same job again changes nothing. Afterwards `log`, `resume` and `run --continue-job` know it here.

    \b
    perstack import job.json
    """
    from .commands.import_job import import_job as import_command

    import_command(file)


@app.command(epilog=FILE_CODES)
def install(
    config: Annotated[str | None, typer.Option(help="perstack.toml, a path.")] = None,
    env_path: EnvPaths = None,
    quiet: Quiet = False,
) -> None:
    """Start every skill once and write its tools to perstack.lock.

    The lock stands beside the definition. A run with a lock starts a skill at the first call of one of its tools.

    \b
    perstack install
    perstack install --config teams/perstack.toml --env-path .env.ci
    """
    from .commands.install import install as install_command

    install_command(config, env_paths=tuple(env_path or ()))


@app.command(epilog=EXIT_CODES)
def doctor(
    config: Config = None,
    env_path: EnvPaths = None,
    provider: Provider = None,
    address: Address = None,
    no_skills: Annotated[bool, typer.Option("--no-skills", help="Start no skill.")] = False,
) -> None:
    """Check all that a run needs, and say how to get what is missing.

    Looks at folders, Temporal, definition, lock, credentials and skills. Starts every skill once and ends it; starts
    no job and no server, and calls no model. Leaves with 0, or with the exit code a run would have for the first check
    that failed.

    \b
    perstack doctor
    perstack doctor --provider openai --no-skills
    """
    from .commands.doctor import doctor as doctor_command

    doctor_command(
        config, env_paths=tuple(env_path or ()), provider=provider, address=address, is_starting_skills=not no_skills
    )


@app.command(epilog=READER_CODES)
def worker(
    task_queue: Annotated[str, typer.Option(help="The queue to serve.")],
    address: Address = None,
    provider: Annotated[
        list[str] | None,
        typer.Option(
            help="Provider whose SDK is loaded at the start, repeatable; default anthropic. Any may be called."
        ),
    ] = None,
    grace: Annotated[int, typer.Option(help="Seconds that calls in flight may go on when the worker leaves.")] = 330,
    deployment: Annotated[
        str | None, typer.Option(help="Worker deployment this worker belongs to; runs stay with their version.")
    ] = None,
    build_id: Annotated[str | None, typer.Option(help="Its version in that deployment.")] = None,
    current: Annotated[
        bool, typer.Option("--current", help="Make this version the one on which new runs begin.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Serve a task queue until SIGTERM or Ctrl-C: one worker of a pool.

    \b
    perstack worker --task-queue team --address temporal.internal:7233
    perstack worker --task-queue team --provider openai
    perstack worker --task-queue team --deployment perstack --build-id 1.4.0 --current
    """
    from .commands.worker import worker as worker_command

    worker_command(
        task_queue,
        address=address,
        providers=tuple(provider or ()),
        grace_seconds=grace,
        deployment=deployment,
        build_id=build_id,
        is_current=current,
    )


@app.command(epilog=READER_CODES)
def dev(
    stop: Annotated[bool, typer.Option("--stop", help="End the embedded server.")] = False,
) -> None:
    """Keep the embedded Temporal server up; says where its Web UI is.

    \b
    perstack dev
    perstack dev --stop
    """
    from .commands.dev import dev as dev_command

    dev_command(is_stop=stop)


def main() -> None:
    """The entry point of the `perstack` command."""
    if "_PERSTACK_COMPLETE" in os.environ:
        from .completion import complete

        complete(app)
    app()
