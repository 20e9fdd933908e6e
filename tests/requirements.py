"""The feature matrix as data: every row has an id; tests carry ids; an unproved row is open, and the README says so.

A row is proved by a test that goes through the command line or the client on a real Temporal server (it takes the
fixture `cli`, `temporal` or `demo`). Rows marked `core` are pure functions and proved by unit tests.

`python tests/requirements.py --write` puts the status table into the README.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).parent))
from support.provider_rows import ROWS, SUBJECTS

TESTS = Path(__file__).parent
README = TESTS.parent / "README.md"
PROVIDERS_PAGE = TESTS.parent / "docs" / "providers.md"
BEGIN, END = "<!-- status: begin -->", "<!-- status: end -->"
REAL_FIXTURES = frozenset({"cli", "cli_env", "demo", "temporal"})


@dataclass(frozen=True)
class Requirement:
    """One row of the feature matrix."""

    id: str
    text: str
    proved_by: Literal["server", "core"] = "server"

    @property
    def layer(self) -> str:
        """The part of the product it belongs to."""
        return self.id.partition(".")[0]


REQUIREMENTS = (
    Requirement("definition.global-defaults", "perstack.toml defaults: model, reasoning budget, retries, timeout"),
    Requirement("definition.experts", "experts: instruction, description, delegates, tags, version, minimum runtime"),
    Requirement("definition.scoping", "coordinator and delegate scoping rules"),
    Requirement("definition.errors", "errors with file, line and key path; misspelt keys; unknown keys"),
    Requirement("definition.skills.stdio", "skill type MCP stdio"),
    Requirement("definition.skills.sse", "skill type MCP SSE and streamable HTTP"),
    Requirement("definition.skills.interactive", "skill type interactive"),
    Requirement("definition.skills.pick-omit", "pick and omit"),
    Requirement("definition.skills.domains", "domain restrictions"),
    Requirement("definition.provider.anthropic", "provider anthropic"),
    Requirement("definition.provider.openai", "provider openai"),
    Requirement("definition.provider.google", "provider google"),
    Requirement("definition.provider.fireworks", "provider fireworks"),
    Requirement("definition.provider.deepseek", "provider deepseek"),
    Requirement("definition.provider.ollama", "provider ollama"),
    Requirement("definition.provider.azure-openai", "provider azure-openai"),
    Requirement("definition.provider.amazon-bedrock", "provider amazon-bedrock"),
    Requirement("definition.provider.google-vertex", "provider google-vertex"),
    Requirement("definition.tiers", "model tiers with fallback cascade", "core"),
    Requirement("definition.provider-tools", "provider tools with options"),
    Requirement("definition.lockfile", "perstack.lock"),
    Requirement("context.meta-prompts", "meta-prompts for coordinator and delegate: time, working directory, sandbox"),
    Requirement("context.window", "context-window tracking"),
    Requirement("context.messages", "message types and parts: text, image, file, thinking, tool call, tool result"),
    Requirement("context.caching", "prompt caching with hit tracking"),
    Requirement("context.delegation", "parallel delegation: isolated context, history preserved, results aggregated"),
    Requirement("context.thinking", "extended thinking per provider"),
    Requirement("context.usage", "token usage across steps and delegations"),
    Requirement("context.resume", "resume a parked or killed job"),
    Requirement("context.continue", "continue from any checkpoint, job or delegation stop"),
    Requirement("runtime.states", "nine-state machine", "core"),
    Requirement("runtime.events.run", "21 run events", "core"),
    Requirement("runtime.events.streaming", "6 streaming events"),
    Requirement("runtime.events.runtime", "5 runtime events"),
    Requirement("runtime.checkpoints", "immutable checkpoints", "core"),
    Requirement("runtime.skill-manager", "skill manager life cycle"),
    Requirement("runtime.parallel-tools", "parallel MCP tool calls"),
    Requirement("runtime.priority", "priority MCP, then delegate, then interactive", "core"),
    Requirement("runtime.retries", "retries with provider-specific error normalisation"),
    Requirement("runtime.job", "job, run, checkpoint; step continuity"),
    Requirement("runtime.deltas", "streaming deltas"),
    Requirement("infrastructure.image", "container image (`PERSTACK_SANDBOX=1`)"),
    Requirement("infrastructure.workspace", "workspace boundary with symlink resolution"),
    Requirement("infrastructure.env", ".env loading, requiredEnv minimal privilege, protected variables"),
    Requirement("infrastructure.exec-env", "filtered exec environment"),
    Requirement("infrastructure.install", "`perstack install`"),
    Requirement("interface.run", "`perstack run`"),
    Requirement("interface.detach", "`perstack run --detach`"),
    Requirement("interface.start", "`perstack start`"),
    Requirement("interface.log", "`perstack log`"),
    Requirement("interface.expert", "`perstack expert`"),
    Requirement("interface.tui", "TUI: activity log, token metrics, delegation tree, browser"),
    Requirement("interface.json", "JSON event stream with `--filter`"),
    Requirement("interface.exit-codes", "exit codes and messages for people"),
    Requirement("interface.library", "runtime library `run()`"),
    Requirement("interface.react", "React hooks and activity utilities"),
    Requirement("interface.activities", "activities of a run", "core"),
    Requirement("interface.studio", "Studio life cycle over an API"),
    Requirement("interface.log-queries", "log queries by job, run, step, event type"),
    Requirement("built-in.create-expert", "`create-expert` with plan, write, verify"),
    Requirement("built-in.dynamic", "dynamic tools: create an expert, attach a delegate while the job runs"),
    Requirement("ours.workflows", "every run a workflow, calls activities, delegations child workflows"),
    Requirement("ours.history-is-the-record", "history is the only record: checkpoints, retries, resume"),
    Requirement("ours.linear-history", "history grows linearly, large payloads travel by reference"),
    Requirement("ours.cancel", "cancellation of a whole job: delegates, model calls and tools end, usage is counted"),
    Requirement("ours.chains", "long runs continue as new: readers, ids, steps, usage and todos go on unchanged"),
    Requirement("ours.archive", "jobs outlive Temporal's retention; export and import"),
    Requirement("ours.survives-kill", "kill -9 of the command, of a worker, of the server: nothing is lost"),
    Requirement("ours.ui", "inspection in the Temporal UI: summaries, details, search attributes"),
    Requirement("ours.cassette", "record any job, replay it without a provider"),
    Requirement("ours.pools", "workers on many machines"),
    Requirement("ours.embedded-server", "embedded Temporal server: found, started, shared, stopped"),
    Requirement("ours.secrets", "secrets never enter history"),
)
OF_PROVIDERS = tuple(
    Requirement(f"provider.{name}.{row.id}", row.text, "core") for row in ROWS.values() for name in row.providers
)
"""What each provider has to prove, on a server that speaks its protocol; docs/providers.md shows them as a matrix."""
KNOWN = {requirement.id: requirement for requirement in (*REQUIREMENTS, *OF_PROVIDERS)}


@dataclass(frozen=True)
class Proof:
    """A test that carries an id."""

    requirement_id: str
    test: str
    is_on_server: bool


def proofs() -> Iterator[Proof]:
    """Every `requirement` mark in the tests."""
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                fixtures = {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}
                for requirement_id in _marks(node):
                    name = f"{path.relative_to(TESTS)}::{node.name}"
                    yield Proof(requirement_id, name, bool(fixtures & REAL_FIXTURES))


def _marks(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for decorator in function.decorator_list:
        match decorator:
            case ast.Call(func=ast.Attribute(attr="requirement"), args=arguments):
                for argument in arguments:
                    assert isinstance(argument, ast.Constant), f"{function.name}: ids are written out"
                    yield str(argument.value)
            case ast.Call(func=ast.Name(id="for_providers"), args=[ast.Constant(value=str(row))]):
                yield from (f"provider.{name}.{row}" for name in ROWS[row].providers)
            case _:
                pass


def proved() -> set[str]:
    """The ids that count as proved."""
    found: set[str] = set()
    for proof in proofs():
        requirement = KNOWN.get(proof.requirement_id)
        if requirement and (proof.is_on_server or requirement.proved_by == "core"):
            found.add(requirement.id)
    return found


def table() -> str:
    """The status table in Markdown."""
    done = proved()
    lines = ["| feature | status |", "|---|---|"]
    lines.extend(f"| {one.text} | {'works' if one.id in done else 'open'} |" for one in REQUIREMENTS)
    return "\n".join(lines)


def provider_matrix() -> str:
    """What is proved for which provider, in Markdown."""
    done = proved()
    lines = [f"| row | {' | '.join(f'`{name}`' for name in SUBJECTS)} |", f"|---|{'---|' * len(SUBJECTS)}"]
    for row in ROWS.values():
        marks = {name: "yes" if f"provider.{name}.{row.id}" in done else "open" for name in row.providers}
        lines.append(f"| {row.text} | {' | '.join(marks.get(name, '–') for name in SUBJECTS)} |")
    return "\n".join(lines)


def with_table(readme: str) -> str:
    """The README with the present table between its marks."""
    return _between_marks(readme, table())


def with_matrix(page: str) -> str:
    """The page of the providers with the present matrix between its marks."""
    return _between_marks(page, provider_matrix())


def _between_marks(page: str, text: str) -> str:
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


if __name__ == "__main__":
    if "--write" in sys.argv:
        README.write_text(with_table(README.read_text()))
        PROVIDERS_PAGE.write_text(with_matrix(PROVIDERS_PAGE.read_text()))
    else:
        sys.stdout.write(table() + "\n")
