"""Writes what the reference takes from the code: help texts, the table of events, the table of error codes.

`python docs/generate.py` writes the files; with `--check` it only names those that are out of date.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from perstack.activities.providers.failures import ProviderErrorKind  # noqa: TID251
from perstack.cli.app import app  # noqa: TID251
from perstack.core import events  # noqa: TID251
from perstack.core.models import TIER_ORDER  # noqa: TID251
from perstack.core.profiles.providers import CHECKED_ON, PROVIDERS  # noqa: TID251

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PROGRAM = Path(sys.executable).with_name("perstack")
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"
PACKAGES = ("activities", "cli", "client", "core", "definitions", "workflows")

EVENTS: Mapping[str, str] = {
    "startRun": "A run begins: its session is open, its first messages stand.",
    "resumeFromStop": "A stopped run goes on in a new segment: its delegates have ended, or a person has answered.",
    "startGeneration": "The model is about to be called with these messages.",
    "retry": "A model call failed and is repeated (`newMessages` is empty), or the model's answer was empty or cut and "
    "the model is told so, which takes a step.",
    "callTools": "The model answered with tool calls.",
    "finishMcpTools": "The tools of the step are done; delegates or people are next.",
    "callDelegate": "Delegates start, all calls of the message in parallel.",
    "skipDelegates": "The message calls no delegate; people are next.",
    "callInteractiveTool": "A question is put to a person.",
    "proceedToInteractiveTools": "The delegates are done and questions to people are left.",
    "resolveToolResults": "Every call of the step was answered by a tool.",
    "finishToolCall": "The answers of the step have joined the conversation.",
    "resumeToolCalls": "A resumed run still has calls to make in the step it stopped in.",
    "finishAllToolCalls": "The answers of tools and delegates of the step have joined the conversation.",
    "continueToNextStep": "The step is over and the run goes on; holds the checkpoints before and after.",
    "completeRun": "The run has its result in `text`.",
    "stopRunByInteractiveTool": "The run waits for a person.",
    "stopRunByDelegate": "The run waits for its delegates; the segment ends.",
    "stopRunByExceededMaxSteps": "The run has taken as many steps as it may.",
    "stopRunByError": "The run failed; `error` says why.",
    "stopRunByCancellation": "The run was cancelled.",
    "startStreamingReasoning": "The model begins to think aloud.",
    "streamReasoning": "A piece of its thinking.",
    "completeStreamingReasoning": "The whole of its thinking.",
    "startStreamingRunResult": "The model begins to write text.",
    "streamRunResult": "A piece of its text.",
    "completeStreamingRunResult": "The whole of its text.",
    "initializeRuntime": "A segment of a run begins; says with what settings.",
    "skillStarting": "A skill's program is started.",
    "skillConnected": "A skill is ready; says how long that took.",
    "skillStderr": "A skill's program wrote to its error output.",
    "skillDisconnected": "A skill was closed.",
}
"""When each event is emitted."""

NOT_YET: frozenset[str] = frozenset()
"""Events of features that this release does not have."""

CODES: Mapping[str, str] = {
    "activity.timeout": "A tool call took longer than its time limit; the model is told.",
    "cassette.diverged": "The replayed run is no longer the recorded one; the message shows both sides.",
    "cassette.exhausted": "The replayed run goes on behind the end of the recording.",
    "definition.credential": "A credential stands in the definition; set it in the environment instead.",
    "definition.encoding": "The file is not UTF-8 text.",
    "definition.env_not_allowed": "A definition made while a job runs requires a variable it may not have.",
    "definition.invalid": "The file breaks a rule; every broken rule is listed with line and key.",
    "definition.lock": "`perstack.lock` cannot be read, or with `--frozen` is missing or out of date.",
    "definition.not_built": "The definition is valid but needs what this release does not have.",
    "definition.provider_tool": "The expert wants a tool or skill of its provider that the provider does not have.",
    "definition.runtime_version": "The expert needs a newer Perstack (`minRuntimeVersion`).",
    "definition.scope": "The delegation crosses a scope; the message names both keys and the rule.",
    "definition.syntax": "The file is not TOML.",
    "definition.unknown_delegate": "A delegate is defined nowhere.",
    "definition.unknown_key": "A key looks like a misspelt one; the message names the key meant.",
    "definition.unsupported_provider": "The worker's release does not speak to this provider.",
    "export.conflict": "The archive holds another job of the id that the file names; nothing was written.",
    "export.damaged": "The file is no export of a job, or not whole; nothing was written.",
    "export.newer": "The export was written by a newer Perstack; upgrade this one.",
    "history.lost": "The server has forgotten the execution, and it is not in the archive.",
    "machine.newer": "The run was started by a newer Perstack than the worker or the reader; upgrade that.",
    "perstack.error": "A failure without a code of its own.",
    "provider.auth": "The provider refused the credentials (401, 403).",
    "provider.bad_request": "The provider refused the request.",
    "provider.content_refused": "The provider or the model refused the content.",
    "provider.context_overflow": "The conversation is larger than the model's context window.",
    "provider.credentials": "A credential is not set, or holds what no header can carry.",
    "provider.not_found": "The provider does not know the model or the address.",
    "provider.overloaded": "The provider is overloaded, out of order or unreachable; repeated.",
    "provider.proxy": "The provider could not be reached through `PERSTACK_PROXY_URL`.",
    "provider.quota": "The account's credit or spending limit is used up.",
    "provider.rate_limited": "Too many requests; repeated after the time the provider asks for.",
    "provider.stream_broken": "The answer broke off; repeated.",
    "provider.tls": "The provider's certificate could not be trusted.",
    "provider.unsupported": "The provider cannot take this request.",
    "skill.arguments": "The arguments of a skill's program make no sense together.",
    "skill.endpoint": "A skill's endpoint, or what it redirects to, may not be reached.",
    "skill.gave_up": "A skill died again and again; it is not started any more in this run.",
    "skill.missing_env": "A variable that a skill requires is not set.",
    "skill.no_command": "A skill of type mcpStdioSkill names no command.",
    "skill.not_started": "A skill could not be started, or did not answer; the message holds what it said.",
    "skill.too_many_tools": "A skill offers more tools than any provider takes; choose with `pick`.",
    "storage.corrupt": "A stored payload is not what its name says; restore it from a backup.",
    "storage.missing": "A stored payload is not in this storage; use the one the job was started with.",
    "storage.other": "The job keeps its large payloads in another storage than this one.",
    "storage.setting": "`PERSTACK_STORAGE` names no storage, or the AWS settings it needs cannot be used.",
    "storage.too_large": "A payload is over 64 MiB; split it or keep it in a file of the workspace.",
    "storage.unavailable": "The payload storage cannot be read or written now; running work waits for it.",
    "temporal.binary": "No `temporal` program was found and none could be had; the hint lists the ways to get one.",
    "temporal.deployment": "The server does not make a worker's version the current one of its deployment.",
    "temporal.failed": "The server answered at first and then failed.",
    "temporal.no_worker": "Nobody serves the task queue; start `perstack worker`.",
    "temporal.profile": "The Temporal profile file cannot be read.",
    "temporal.unreachable": "No server answers at the address.",
    "temporal.version": "The server is older than 1.29.",
    "usage.config_not_found": "There is no `perstack.toml` here or above.",
    "usage.config_unreadable": "The path names a folder, or a file that cannot be read.",
    "usage.endpoints": "An entry of `PERSTACK_ALLOW_ENDPOINTS` is not `host:port`.",
    "usage.env_file": "An env file exists and cannot be read.",
    "usage.expert_key": "The expert's key is malformed.",
    "usage.invalid": "The command line asks for something that makes no sense; the message says what.",
    "usage.job_exists": "The job id belongs to a job with another expert or query.",
    "usage.limit": "A limit is below what is possible.",
    "usage.missing_env": "A variable that a skill of the definition requires is not set.",
    "usage.model": "The provider has no default model; give `--model`.",
    "job.not_detached": "The background process of `--detach` ended before it worked; the job can be resumed.",
    "usage.completed": "There is nothing to resume at that checkpoint: the expert was done.",
    "usage.job_open": "The job is still open, or somebody else just went on with it.",
    "usage.question_open": "The job waits for an answer, not for a new query.",
    "usage.unknown_checkpoint": "The job has no checkpoint of that id.",
    "usage.unknown_run": "The job has no run of that id.",
    "usage.no_terminal": "Screens were asked for where there is no terminal.",
    "usage.no_question": "The job asks nothing, nothing of that id, or several things.",
    "usage.output": "stdout cannot be written, for example because the disk is full.",
    "usage.provider": "There is no such provider.",
    "usage.reasoning_budget": "Neither a level nor a number of tokens.",
    "usage.remote_config": "The address of the definition is refused, or it cannot be fetched.",
    "usage.unknown_expert": "The configuration defines no such expert; the hint lists those there are.",
    "usage.unknown_job": "The server has no such job.",
    "worker.leaving": "A worker that is leaving refused a call it had not begun; the call goes to another one.",
    "worker.lost": "The worker of one call was lost three times in a row.",
    "workspace.elsewhere": "This worker does not have the job's workspace; another one may.",
    "workspace.invalid": "The workspace is missing or cannot be written.",
    "workspace.unwritable": "The worker cannot write the workspace.",
}
"""What each stable code means; the generated table fails to be written when the code and this differ."""

APIS: Mapping[str, str] = {
    "messages": "Anthropic Messages",
    "responses": "OpenAI Responses",
    "chat": "Chat Completions",
    "gemini": "Gemini",
    "converse": "Bedrock Converse",
}

NAMES: Mapping[str, str] = {
    "EmptyAnswer": "The answer held neither text nor a tool call; the model is told.",
    "OutputCut": "The answer reached the model's output limit; the model is told.",
    "MaxRetriesExceeded": "The model made such a mistake more often in a row than `maxRetries` allows.",
    "UnexpectedFinishReason": "The model stopped for a reason this release does not know.",
    "ChildWorkflowError": "A delegate's workflow could not be started.",
}
"""Names of failures that carry no dotted code."""


def commands() -> list[str]:
    """Every command of the program, in its own order."""
    return [found.name or getattr(found.callback, "__name__", "") for found in app.registered_commands]


def help_text(*command: str) -> str:
    """What the program prints for `--help`."""
    env = {**os.environ, "COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}
    done = subprocess.run([PROGRAM, *command, "--help"], env=env, capture_output=True, text=True, check=True)
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def cli_reference() -> str:
    """The help of the program and of each command."""
    parts = ["## perstack", "", "```text", help_text(), "```"]
    for command in commands():
        parts += ["", f"## perstack {command}", "", "```text", help_text(command), "```"]
    return "\n".join(parts)


def event_tables() -> str:
    """The 32 events with their payload beyond the fields that all of their class have."""
    groups = (
        ("Run events", events.RunEvent, events.RunBase),
        ("Streaming events", events.StreamingEvent, events.RunBase),
        ("Runtime events", events.RuntimeEvent, events.RuntimeBase),
    )
    parts: list[str] = []
    for title, union, base in groups:
        members = get_args(get_args(union)[0])
        parts += [f"## {title}", "", "| event | emitted when | payload |", "|---|---|---|"]
        parts += [_event_row(member, base) for member in members]
        parts.append("")
    return "\n".join(parts).rstrip()


def _event_row(member: Any, base: Any) -> str:
    name: str = member.model_fields["type"].default
    payload = ", ".join(
        f"`{field.alias}`" for key, field in member.model_fields.items() if key not in base.model_fields
    )
    later = " *Not in this release.*" if name in NOT_YET else ""
    return f"| `{name}` | {EVENTS[name]}{later} | {payload} |"


def code_table() -> str:
    """Every stable code with its meaning."""
    found = frozenset(_codes())
    if found != frozenset(CODES):
        missing, gone = sorted(found - set(CODES)), sorted(set(CODES) - found)
        raise SystemExit(f"docs/generate.py: explain {missing or 'nothing'}; no longer used: {gone or 'nothing'}")
    rows = [f"| `{code}` | {CODES[code]} |" for code in sorted(CODES)]
    rows += [f"| `{name}` | {text} |" for name, text in NAMES.items()]
    return "\n".join(["| code | meaning |", "|---|---|", *rows])


def _codes() -> Iterator[str]:
    """The codes that stand in the sources: arguments, attributes and constants, and the provider's kinds."""
    yield from (f"provider.{kind}" for kind in get_args(ProviderErrorKind))
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(keywords=keywords):
                        values = [one.value for one in keywords if one.arg in ("code", "name", "type")]
                    case ast.Assign(value=value) | ast.AnnAssign(value=ast.Constant() as value):
                        values = [value]
                    case _:
                        continue
                yield from filter(_is_code, map(_text, values))


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _is_code(text: str) -> bool:
    is_shaped = bool(re.fullmatch(r"[a-z]+\.[a-z_]+", text)) and not text.endswith(".tcss")
    return is_shaped and (text == "perstack.error" or not text.startswith("perstack."))


def provider_tables() -> str:
    """The providers' entries as tables: abilities, tools, variables, models."""
    return "\n".join([*_abilities(), *_provider_tools(), *_variables(), *_tiers()])


def _abilities() -> Iterator[str]:
    media = "images | PDF | text files | images in results | PDF in results"
    yield f"| provider | API | reasoning | caching | parallel calls | {media} |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for name, profile in PROVIDERS.items():
        media = profile.media
        cells = [
            f"`{name}`",
            APIS[profile.api],
            profile.reasoning or "not sent",
            profile.caching,
            _yes(profile.parallel_tools),
            _with_url("image" in media, "image-url" in media),
            _with_url("pdf" in media, "pdf-url" in media),
            _with_url("text-file" in media, "text-file-url" in media),
            _yes("result-image" in media),
            _yes("result-pdf" in media),
        ]
        yield f"| {' | '.join(cells)} |"
    for name, profile in PROVIDERS.items():
        for sentence in profile.limits:
            yield f"\n`{name}`: {sentence}"


def _yes(value: bool) -> str:
    return "yes" if value else "**no**"


def _with_url(inline: bool, url: bool) -> str:
    return ("yes, also by URL" if url else "yes") if inline else ("by URL only" if url else "**no**")


def _provider_tools() -> Iterator[str]:
    yield "\n## Tools of the providers\n"
    yield "Listed in `providerTools`, run by the provider while it answers; their results are kept in the conversation."
    yield "\n| provider | tool | name for the model | options sent |\n|---|---|---|---|"
    for name, profile in PROVIDERS.items():
        for key, tool in profile.provider_tools.items():
            options = ", ".join(f"`{one}`" + (" (required)" if one in tool.required else "") for one in tool.options)
            yield f"| `{name}` | `{key}` | `{tool.wire_name}` | {options} |"
    without = ", ".join(f"`{name}`" for name, profile in PROVIDERS.items() if not profile.provider_tools)
    skills = ", ".join(f"`{name}`" for name, profile in PROVIDERS.items() if profile.takes_provider_skills)
    yield f"\nNo tools of their own: {without}. `providerSkills`: {skills} only."


def _variables() -> Iterator[str]:
    yield "\n## Variables\n"
    yield "From the environment or an env file; a key of `[provider.setting]` goes before its variable. Calls of every"
    yield "provider go through `PERSTACK_PROXY_URL` where it is set."
    yield "\n| provider | must be set | may be set | address | `[provider.setting]` |\n|---|---|---|---|---|"
    for name, profile in PROVIDERS.items():
        optional = (*(one for one in profile.credentials if one not in profile.required_env), *profile.optional_env)
        address = [f"`{profile.base_url_env}`", *([f"default `{profile.base_url}`"] if profile.base_url else [])]
        cells = (
            _codes_of(profile.required_env),
            _codes_of(optional),
            ", ".join(address),
            _codes_of(sorted(profile.setting_keys)),
        )
        yield f"| `{name}` | {' | '.join(cells)} |"


def _codes_of(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "–"


def _tiers() -> Iterator[str]:
    yield "\n## Models of the tiers\n"
    yield f"Checked on {CHECKED_ON}. An empty tier falls to the next lower, then the next higher one."
    yield "\n| provider | low | middle | high |\n|---|---|---|---|"
    for name, profile in PROVIDERS.items():
        models = (profile.tiers.get(tier) for tier in TIER_ORDER)
        yield f"| `{name}` | {' | '.join(f'`{one.model}`' if one else '–' for one in models)} |"


SECTIONS = {
    "providers.md": provider_tables,
    "reference/cli.md": cli_reference,
    "reference/events.md": event_tables,
    "reference/errors.md": code_table,
}


def current_pages() -> Iterator[tuple[Path, str, str]]:
    """Each page with its present text and the text it should have."""
    for name, section in SECTIONS.items():
        path = DOCS / name
        present = path.read_text()
        before, _, rest = present.partition(BEGIN)
        _, _, after = rest.partition(END)
        yield path, present, f"{before}{BEGIN}\n{section()}\n{END}{after}"


def main() -> int:
    """Write the pages, or check them."""
    stale = [(path, wanted) for path, present, wanted in current_pages() if present != wanted]
    for path, wanted in stale:
        if "--check" in sys.argv:
            sys.stdout.write(f"{path.relative_to(ROOT)} is out of date: run `make docs`\n")
        else:
            path.write_text(wanted)
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
