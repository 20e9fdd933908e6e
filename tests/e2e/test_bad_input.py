"""Whatever is wrong before a job starts is said in a sentence; nothing is started, written or lost by it."""

import asyncio
import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from perstack.client.locations import DataFolder
from support.cli import Cli, Result
from support.model_server import Answer, Call, ModelServer, Request, Script

SOLO = """
[experts.solo]
instruction = "You are solo."
"""
TEAM = """
[experts.team]
instruction = "You are team."
delegates = ["{delegate}"]

[experts."@team/one"]
instruction = "You are one."

[experts."@other/one"]
instruction = "You are one."
"""
SKILL = """
[experts.solo]
instruction = "You are solo."

[experts.solo.skills.extra]
type = "{type}"
"""
ASK = (
    SKILL.format(type="interactiveSkill")
    + """
[experts.solo.skills.extra.tools.ask]
inputJsonSchema = '{}'
"""
)
NO_PROGRAM = {"PERSTACK_TEMPORAL_CLI": "", "PATH": "/nowhere"}


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A call that cannot work, and what is said about it."""

    says: tuple[str, ...]
    args: tuple[str | bytes, ...] = ("run", "solo", "go")
    code: int = 2
    toml: str | None = SOLO
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    is_data_made: bool = False
    """Whether looking for a server makes the data folder; there is no server in it."""


def run(*more: str | bytes) -> tuple[str | bytes, ...]:
    return ("run", "solo", "go", *more)


BAD: dict[str, Bad] = {
    "no definition": Bad(toml=None, says=("perstack.toml not found",)),
    "definition elsewhere": Bad(args=run("--config", "nope.toml"), says=('"nope.toml" is not found',)),
    "broken TOML": Bad(toml=SOLO + "\nmodel = oops\n", says=("perstack.toml:5:",)),
    "misspelt key": Bad(
        toml=SOLO.replace("instruction", "instructoin"),
        says=("instructoin", "did you mean `instruction`?", "perstack.toml:3"),
    ),
    "unknown expert": Bad(
        args=("run", "sole", "go"),
        says=('Expert "sole" not found', 'Did you mean "solo"?', "Available experts: ", ", solo."),
    ),
    "malformed expert key": Bad(args=("run", "So lo", "go"), says=("Invalid expert key format: So lo",)),
    "malformed key in the definition": Bad(
        toml=SOLO.replace("experts.solo", 'experts."So lo"'), says=("Invalid expert key format: So lo", ":2")
    ),
    "missing delegate": Bad(
        args=("run", "team", "go"),
        toml=TEAM.format(delegate="@team/two"),
        says=("Delegate @team/two not found", "experts.team.delegates[0]", "perstack.toml:4", 'mean "@team/one"?'),
    ),
    "delegate of another scope": Bad(
        args=("run", "team", "go"),
        toml=TEAM.format(delegate="@other/one"),
        says=('"team" cannot delegate to "@other/one"', "its own delegates", "perstack.toml:4"),
    ),
    "frozen without a lock": Bad(args=run("--frozen"), says=("no perstack.lock", "perstack install")),
    "another provider in the definition": Bad(
        toml='[provider]\nproviderName = "openai"\n' + SOLO,
        code=4,
        says=("OPENAI_API_KEY is not set",),
    ),
    "another provider": Bad(
        args=run("--provider", "google"), code=4, says=("GOOGLE_GENERATIVE_AI_API_KEY is not set",)
    ),
    "unknown provider tool": Bad(
        toml=SOLO + 'providerTools = ["webSerch"]\n',
        says=("anthropic has no provider tool webSerch", 'Did you mean "webSearch"', "experts.solo.providerTools[0]"),
    ),
    "unknown provider": Bad(args=run("--provider", "antropic"), says=('did you mean "anthropic"?', "google-vertex")),
    "no API key": Bad(env={"ANTHROPIC_API_KEY": ""}, code=4, says=("ANTHROPIC_API_KEY is not set",)),
    "unsendable API key": Bad(env={"ANTHROPIC_API_KEY": "sk\n1"}, code=4, says=("ANTHROPIC_API_KEY holds",)),
    "unknown event type": Bad(args=run("--filter", "completeRun,nope"), says=("--filter: nope", "stopRunByError")),
    "bad reasoning budget": Bad(args=run("--reasoning-budget", "lots"), says=('"lots" is not a reasoning', "medium")),
    "steps no number": Bad(args=run("--max-steps", "many"), says=("'--max-steps'", "integer")),
    "no steps": Bad(args=run("--max-steps", "0"), says=("--max-steps must be at least 1, not 0",)),
    "negative retries": Bad(args=run("--max-retries", "-1"), says=("--max-retries must be at least 0, not -1",)),
    "no time": Bad(args=run("--timeout", "0"), says=("--timeout must be at least 1, not 0",)),
    "bad job id": Bad(args=run("--job-id", "a job"), says=("Invalid job id: a job", "letters, digits")),
    "job id with a slash": Bad(args=run("--job-id", "a/b"), says=("Invalid job id: a/b",)),
    "--branch alone": Bad(args=run("--branch"), says=("--branch requires --continue or --continue-job",)),
    "--continue twice": Bad(args=run("--continue", "--continue-job", "j"), says=("both name a job",)),
    "--continue-job with a path": Bad(args=run("--continue-job", "a/b"), says=("Invalid job id: a/b",)),
    "-i alone": Bad(args=run("-i"), says=("-i requires --continue or --continue-job",)),
    "-i without an answer": Bad(args=("run", "solo", "-i", "--continue"), says=("-i needs the answer",)),
    "--resume-from alone": Bad(args=run("--resume-from", "c"), says=("--resume-from requires --continue-job",)),
    "missing file": Bad(args=run("--file", "nope.png"), says=("--file nope.png", "No such file")),
    "folder as file": Bad(args=run("--file", "."), says=("--file .", "directory")),
    "no image": Bad(args=run("--file", "notes.png"), files={"notes.png": b"text"}, says=("--file notes.png", "PNG")),
    "no cassette": Bad(args=run("--replay", "nope.json"), says=("cassette nope.json", "No such file")),
    "cassette no JSON": Bad(args=run("--replay", "c.json"), files={"c.json": b"{"}, says=("c.json is not a cassette",)),
    "another JSON": Bad(args=run("--replay", "c.json"), files={"c.json": b"{}"}, says=("c.json is not a cassette",)),
    "empty query": Bad(args=("run", "solo", " "), says=("The query is empty",)),
    "query no text": Bad(args=("run", "solo", b"\xff"), says=("The query is not UTF-8",)),
    "model no text": Bad(args=run("--model", b"\xff"), says=("--model is not UTF-8",)),
    "no arguments": Bad(args=("run",), says=("Usage: perstack run", "Missing argument 'EXPERT'")),
    "no query": Bad(args=("run", "solo"), says=("There is no query",)),
    "unknown option": Bad(args=run("--nope"), says=("No such option: --nope",)),
    "unknown command": Bad(args=("go",), says=("No such command 'go'",)),
    "server away": Bad(args=run("--address", "127.0.0.1:1"), code=3, says=("127.0.0.1:1: Connection refused",)),
    "server in the environment away": Bad(
        env={"TEMPORAL_ADDRESS": "127.0.0.1:1"}, code=3, says=("127.0.0.1:1: Connection refused", "TEMPORAL_ADDRESS")
    ),
    "server with an impossible name": Bad(args=run("--address", "a b"), code=3, says=("cannot reach Temporal at a b",)),
    "no server program": Bad(
        env=NO_PROGRAM,
        code=3,
        is_data_made=True,
        says=("no `temporal` program found", "PERSTACK_NO_DOWNLOAD=1", "brew install", "go install", "docker run"),
    ),
    "server program no program": Bad(
        env={"PERSTACK_TEMPORAL_CLI": "/dev/null"},
        code=3,
        is_data_made=True,
        says=("PERSTACK_TEMPORAL_CLI names /dev/null",),
    ),
}


def says(text: str) -> Script:
    """A model that completes at once."""

    def script(request: Request) -> Answer:
        return Answer(text=text, delta_size=1000)

    return script


def said(result: Result, bad_code: int, *fragments: str) -> None:
    """The command failed with one message and printed nothing."""
    assert result.code == bad_code, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert re.search(r"^(perstack: e|E)rror: ", result.stderr, re.MULTILINE), result.stderr
    for fragment in fragments:
        assert fragment in result.stderr


@pytest.mark.requirement("interface.exit-codes")
@pytest.mark.requirement("definition.errors")
@pytest.mark.requirement("definition.scoping")
@pytest.mark.parametrize("name", BAD)
async def test_a_call_that_cannot_work_is_refused_before_anything_starts(
    name: str, cli: Cli, model: ModelServer, model_env: dict[str, str], tmp_path: Path
) -> None:
    bad = BAD[name]
    data = tmp_path / "data"
    files = {**bad.files, **({} if bad.toml is None else {"perstack.toml": bad.toml.encode()})}
    for path, content in files.items():
        (cli.workspace / path).write_bytes(content)
    result = await cli.run(*bad.args, env={**model_env, "PERSTACK_DATA_DIR": str(data), **bad.env})
    said(result, bad.code, *bad.says)
    assert model.requests == []
    assert {path.name for path in cli.workspace.iterdir()} == set(files)
    assert data.exists() == bad.is_data_made
    assert not DataFolder(data).record.exists()


async def test_an_unknown_key_is_a_warning_and_the_run_goes_on(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO + 'flavour = "vanilla"\n')
    model.script = says("done")
    result = await cli.run("run", "solo", "go", "--env-path", "nope.env", env=model_env)
    assert result.code == 0, result.stderr
    assert re.search(r"warning: .*perstack.toml:4: .*experts.solo.flavour", result.stderr)
    assert re.search(r"warning: --env-path .*nope.env: there is no such file", result.stderr)
    assert result.of_type("completeRun")[0]["text"] == "done"


@pytest.mark.parametrize("folder", ["/proc", "/sys"])
async def test_a_workspace_that_cannot_be_written_is_refused_before_anything_starts(
    folder: str, cli: Cli, model: ModelServer, model_env: dict[str, str], tmp_path: Path
) -> None:
    config = cli.write("perstack.toml", SOLO)
    data = tmp_path / "data"
    elsewhere = dataclasses.replace(cli, workspace=Path(folder))
    args = ("run", "solo", "go", "--config", str(config))
    result = await elsewhere.run(*args, env={**model_env, "PERSTACK_DATA_DIR": str(data)})
    said(result, 2, f"The workspace {folder} cannot be written")
    assert model.requests == []
    assert not data.exists()


async def test_a_workspace_that_is_gone_is_said(cli: Cli, model_env: dict[str, str]) -> None:
    result = await cli.shell("mkdir gone && cd gone && rmdir ../gone && perstack run solo go", env=model_env)
    said(result, 2, "The current folder does not exist any more")


@pytest.mark.parametrize("command", [("run", "solo", "go"), ("resume", "job"), ("log", "--job", "job"), ("dev",)])
async def test_a_data_folder_that_cannot_be_made_is_refused(
    command: tuple[str, ...], cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    data = cli.write("file", "content") / "data"
    result = await cli.run(*command, env={**model_env, "PERSTACK_DATA_DIR": str(data)})
    said(result, 2, str(data), "PERSTACK_DATA_DIR")
    assert model.requests == []
    assert (cli.workspace / "file").read_text() == "content"


@pytest.mark.parametrize("job", ["nosuchjob", "no/such job", ""])
async def test_a_job_that_is_not_there_is_said(job: str, cli: Cli) -> None:
    resumed, logged = await asyncio.gather(cli.run("resume", job), cli.run("log", "--job", job))
    said(resumed, 2, job)
    said(logged, 2, job)


async def test_a_delegates_run_is_no_job_to_resume(cli: Cli, model: ModelServer, model_env: dict[str, str]) -> None:
    cli.write("perstack.toml", TEAM.format(delegate="@team/one"))

    def script(request: Request) -> Answer:
        if "You are team." in request.system and request.turn == 1:
            return Answer(calls=(Call(name="one", args={"query": "go"}),))
        if "You are team." in request.system:
            return Answer(text="done")
        return Answer(text="slow", after_events=4, then="hang", gate="delegate")

    model.script = script
    async with cli.running("run", "team", "go", "--job-id", "withdelegate", env=model_env) as running:
        await running.seen('"delta":"slow"')
        child = next(
            json.loads(line)["runId"] for line in running.lines if '"startRun"' in line and '"@team/one"' in line
        )
        refused = await cli.run("resume", f"withdelegate/{child}", env=model_env)
        said(refused, 2, "perstack resume withdelegate")
        model.release("delegate")
        result = await cli.finished(running)
    assert result.code == 0, result.stderr


async def test_a_pool_without_a_worker_is_said_and_nothing_is_started(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    args = ("run", "solo", "go", "--task-queue", "nobody", "--job-id", "forthepool")
    result = await cli.run(*args, env={**model_env, "PERSTACK_WORKER_WAIT": "0.3"})
    said(result, 3, "No worker serves the task queue nobody", "perstack worker --task-queue nobody")
    assert model.requests == []
    said(await cli.run("log", "--job", "forthepool"), 2, "There is no job forthepool")


async def test_a_worker_for_a_provider_that_is_not_there_is_not_started(cli: Cli) -> None:
    result = await cli.run("worker", "--task-queue", "pool", "--provider", "opnai")
    said(result, 2, 'Unknown provider "opnai", did you mean "openai"?', "Providers: anthropic, openai")


async def test_a_namespace_that_is_not_there_is_said(
    cli: Cli, model: ModelServer, model_env: dict[str, str], server_data: DataFolder
) -> None:
    cli.write("perstack.toml", SOLO)
    await cli.run("log", "--job", "starts-the-server")
    record = json.loads(server_data.record.read_text())
    env = {**model_env, "TEMPORAL_NAMESPACE": "nope"}
    result = await cli.run("run", "solo", "go", "--address", record["address"], env=env)
    said(result, 3, "nope", "TEMPORAL_NAMESPACE")
    assert model.requests == []


async def test_a_job_id_that_exists_is_followed_for_the_same_query_and_refused_for_another(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = says("once")
    first = await cli.run("run", "solo", "go", "--job-id", "twice", env=model_env)
    assert first.code == 0, first.stderr
    again, other = await asyncio.gather(
        cli.run("run", "solo", "go", "--job-id", "twice", env=model_env),
        cli.run("run", "solo", "stop", "--job-id", "twice", env=model_env),
    )
    assert again.code == 0, again.stderr
    assert again.of_type("completeRun") == first.of_type("completeRun")
    said(other, 2, "Job twice exists already")
    assert len(model.requests) == 1


async def test_a_reader_that_goes_away_early_ends_nothing(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = says("word " * 60_000)
    ran = await cli.shell('perstack run solo go --job-id cut | head -1; exit "${PIPESTATUS[0]}"', env=model_env)
    assert ran.code == 0, ran.stderr
    assert [event["type"] for event in ran.events] == ["initializeRuntime"]
    assert "Traceback" not in ran.stderr
    logged = await cli.shell('perstack log --job cut --json | head -c 10; exit "${PIPESTATUS[0]}"')
    assert logged.code == 0, logged.stderr
    assert "Traceback" not in logged.stderr
    assert "rror" not in logged.stderr


async def test_an_output_that_is_full_is_said_and_the_job_is_parked(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = says("done")
    full = await cli.shell("perstack run solo go --job-id full > /dev/full", env=model_env)
    said(full, 2, "No space left", "perstack resume full")
    result = await cli.run("resume", "full", env=model_env)
    assert result.code == 0, result.stderr
    assert result.of_type("completeRun")[0]["text"] == "done"
