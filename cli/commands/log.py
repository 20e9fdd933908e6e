"""`perstack log`: a job from its history alone, as text, JSON, cassette or export."""

from typing import NoReturn

from ...core.failures import UsageError
from ..diagnostics import ExitCode
from ..lifecycle import run_command
from ..log_options import LogOptions, wants_screens


def log(options: LogOptions) -> NoReturn:
    """Read a job, on the server, in the archive or in a file, and print what was asked for."""

    async def command() -> ExitCode:
        _require_one_job(options)
        if wants_screens(options):
            from ..log_screens import log_on_screens

            return await log_on_screens(options)
        _require_sense(options)
        if options.is_following:
            from ..log_following import follow_log

            return await follow_log(options)
        from ..log_printing import print_log

        await print_log(options)
        return ExitCode.COMPLETED

    run_command(command)


def _require_one_job(options: LogOptions) -> None:
    if options.job_id is not None and options.file is not None:
        raise UsageError("--job and --file both name a job.", hint="Give one of them.")


def _require_sense(options: LogOptions) -> None:
    """Refuse, before anything is read, what does not go together."""
    options.query()
    if options.has_messages and options.checkpoint_id is None:
        raise UsageError("--messages requires --checkpoint")
    wholes = [name for name, is_given in _wholes(options) if is_given]
    page = {"--take": options.take, "--offset": options.offset, "--context": options.context}
    given = [option for option, text in page.items() if text is not None]
    if wholes:
        conditions = (options.run_id, options.checkpoint_id, options.step, options.type, options.expression)
        if given or any(conditions) or options.is_errors or options.is_tools or options.is_delegations:
            raise UsageError(f"{wholes[0]} tells a whole job: it cannot be combined with a selection of events.")
        if options.is_json or len(wholes) > 1:
            raise UsageError(
                f"{wholes[0]} is another JSON than {wholes[1] if len(wholes) > 1 else '--json'}.",
                hint="Give one of them.",
            )
    if options.is_text and (options.is_json or wholes):
        raise UsageError("--text is no JSON.", hint="Give --text, --json, --cassette or --export.")
    if not options.is_following:
        return
    others = {
        "--file": options.file is not None,
        "--checkpoint": options.checkpoint_id is not None,
        "--summary": options.is_summary,
        "--pretty": options.is_pretty,
        **dict(_wholes(options)),
    }
    given += [option for option, is_given in others.items() if is_given]
    if given:
        raise UsageError(f"--follow cannot be combined with {', '.join(given)}.")


def _wholes(options: LogOptions) -> tuple[tuple[str, bool], ...]:
    """The forms that tell all of a job, and which of them are asked for."""
    return ("--cassette", options.is_cassette), ("--export", options.is_export)
