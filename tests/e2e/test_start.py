"""`perstack start` in a real terminal: a real process, a real server, keys as a person types them."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from perstack.client.embedded import stop_server
from perstack.client.locations import DataFolder
from perstack.client.record import read_record
from support.captures import masked
from support.cli import PROGRAM, Cli
from support.model_server import Answer, Call, ModelServer, Request
from support.pools import session_pid, worker
from support.teams import PARALLEL_TEAM, parallel_team
from support.tmux import Tmux, terminal

SOLO = """
[experts.solo]
description = "Works alone."
instruction = "You are solo."

[experts.solo.skills.people]
type = "interactiveSkill"
tools.approve.inputJsonSchema = '{"type": "object"}'
"""
GREETING = "the first half of it"


def gated(request: Request) -> Answer:
    """Writes half of its answer and waits with the rest until the test lets it go; later queries are answered."""
    if request.turn > 1:
        return Answer(text=f"answer {request.turn}")
    return Answer(text=f"{GREETING}, and the rest", delta_size=len(GREETING), after_events=4, then="hang", gate="end")


def asks_two(request: Request) -> Answer:
    """Asks two things at once, then repeats what it was told."""
    if request.turn == 1:
        asked = (("first", "May I delete the file?"), ("second", "And the folder?"))
        return Answer(calls=tuple(Call(name="approve", args={"question": text}, id=id) for id, text in asked))
    return Answer(text="told " + " and ".join(str(result["content"]) for result in request.results))


Start = Callable[..., AbstractAsyncContextManager[Tmux]]


@pytest.fixture
def start(cli: Cli, model: ModelServer, model_env: dict[str, str], tmp_path: Path) -> Start:
    """`perstack start` with these arguments, in a terminal."""
    cli.write("perstack.toml", SOLO)
    model.script = gated

    def started(
        *arguments: str,
        size: tuple[int, int] = (80, 24),
        env: dict[str, str] | None = None,
        command: str = "start",
        runner: tuple[str | Path, ...] = (PROGRAM,),
    ) -> AbstractAsyncContextManager[Tmux]:
        whole = {**cli.env, **model_env, "TEXTUAL_ANIMATIONS": "none", **(env or {})}
        command_line = [command, *arguments]
        return terminal(tmp_path, command_line, workspace=cli.workspace, env=whole, size=size, runner=runner)

    return started


def job_in(text: str) -> str:
    """The job that the program spoke of."""
    found = re.search(r"perstack (?:resume|log --job|respond) ([a-z0-9]{24})", text)
    assert found, text
    return found[1]


async def park(tmux: Tmux) -> str:
    """Leave a job that works, parked; its id."""
    await tmux.press("C-c")
    await tmux.until("Enter chooses")
    await tmux.press("p")
    assert await tmux.left() == 130
    return job_in(await tmux.said())


@pytest.mark.requirement("interface.start")
@pytest.mark.requirement("interface.tui")
async def test_a_team_is_chosen_asked_and_watched_to_its_end(start: Start, cli: Cli, model: ModelServer) -> None:
    cli.write("perstack.toml", PARALLEL_TEAM)
    model.script = parallel_team
    async with start() as tmux:
        await tmux.until("create-expert")
        await tmux.press("Enter")
        await tmux.until("What shall be done?")
        await tmux.write("go")
        await tmux.press("Enter")
        told = "all: one done | two done | three done"
        text = await tmux.until(lambda text: told in text and "Completed · " in text and "about $" in text)
        assert text.count("✓ @team/") == 3
        assert "Tokens: In 110 · Out 55" in text
        await tmux.press("C-c")
        assert await tmux.left() == 0
        said = await tmux.said()
        assert "110 tokens in, 55 out" in said
        assert "/namespaces/default/workflows/" in said
        assert (await cli.run("log", "--job", job_in(said))).code == 0


@pytest.mark.requirement("interface.start")
async def test_several_questions_are_answered_in_place(start: Start, model: ModelServer) -> None:
    model.script = asks_two
    async with start("solo", "go") as tmux:
        await tmux.until(lambda text: all(one in text for one in ("delete the file?", "the folder?", "Enter:Send")))
        await tmux.write("yes to the file")
        await tmux.press("Enter")
        await tmux.until(lambda text: "And the folder?" in text and "1 of 2" not in text and "Enter:Send" in text)
        await tmux.write("no to the folder")
        await tmux.press("Enter")
        told = "told yes to the file and no to the folder"
        await tmux.until(lambda text: told in text and "Completed · " in text)
        await tmux.press("C-c")
        assert await tmux.left() == 0


@pytest.mark.requirement("interface.start")
async def test_a_question_left_open_is_told_with_how_to_answer_it(
    start: Start, cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    model.script = asks_two
    async with start("solo", "go") as tmux:
        await tmux.until("And the folder?")
        await tmux.press("C-c")
        assert await tmux.left() == 6
        said = await tmux.said()
    assert "approve asks (call first)" in said
    job = job_in(said)
    assert (await cli.run("respond", job, "first", "a", env=model_env)).code == 6
    assert (await cli.run("respond", job, "b", env=model_env)).code == 0


@pytest.mark.requirement("interface.start")
async def test_a_follow_up_query_continues_the_job(start: Start, model: ModelServer) -> None:
    model.release("end")
    async with start("solo", "go") as tmux:
        await tmux.until("A follow-up query")
        await tmux.write("and now the rest")
        await tmux.press("Enter")
        text = await tmux.until(lambda text: "answer 2" in text and "A follow-up query" in text)
        assert "Query: and now the rest" in text
        await tmux.press("C-c")
        assert await tmux.left() == 0
        job = job_in(await tmux.said())
    async with start("--job", job, command="log") as tmux:
        await tmux.until(lambda text: "and now the rest" in text and "go" in text)
        await tmux.press("q")
        assert await tmux.left() == 0


@pytest.mark.requirement("interface.start")
async def test_an_expert_alone_is_asked_and_the_job_of_the_folder_is_gone_on_with(
    start: Start, model: ModelServer
) -> None:
    model.release("end")
    async with start("solo") as tmux:
        await tmux.until("What shall be done?")
        await tmux.write("begin")
        await tmux.press("Enter")
        await tmux.until("A follow-up query")
        await tmux.press("C-c")
        assert await tmux.left() == 0
    async with start("--continue") as tmux:
        await tmux.until(lambda text: "Query: begin" in text and "A follow-up query" in text)
        await tmux.press("C-c")
        assert await tmux.left() == 0
    async with start("solo", "go on with it", "--continue") as tmux:
        # The whole job, in its order.
        await tmux.until(
            lambda text: re.search(
                r"Query  begin.*and the rest.*Query  go on with it.*answer 2.*A follow-up", text, re.S
            )
        )
        await tmux.press("C-c")
        assert await tmux.left() == 0


@pytest.mark.requirement("interface.start")
async def test_a_job_that_fails_is_told_as_run_tells_it(start: Start, model: ModelServer) -> None:
    def refuses(_: Request) -> Answer:
        return Answer(status=400, message="this model is too old")

    model.script = refuses
    async with start("solo", "go") as tmux:
        await tmux.until("✗ Failed")
        await tmux.press("C-c")
        assert await tmux.left() == 1
        said = await tmux.said()
    assert "error: the run failed (provider." in said
    assert "this model is too old" in said


@pytest.mark.requirement("interface.start")
async def test_a_job_is_cancelled(start: Start) -> None:
    async with start("solo", "go") as tmux:
        await tmux.until(GREETING)
        await tmux.press("c")
        await tmux.until(lambda text: "Cancel this job?" in text and "Enter chooses" in text)
        await tmux.press("c")
        await tmux.until("✗ Cancelled")
        await tmux.press("C-c")
        assert await tmux.left() == 7
        assert "the run was cancelled" in await tmux.said()


@pytest.mark.requirement("interface.start")
@pytest.mark.requirement("interface.detach")
async def test_a_detached_job_goes_on_without_the_screen(
    start: Start, cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    async with start("solo", "go") as tmux:
        await tmux.until(GREETING)
        await tmux.press("d")
        await tmux.until(lambda text: "Leave this job?" in text and "Enter chooses" in text)
        await tmux.press("d")
        assert await tmux.left() == 0
        said = await tmux.said()
    assert "goes on in the background" in said
    model.release("end")
    followed = await cli.run("resume", job_in(said), env=model_env)
    assert followed.code == 0, followed.stderr
    assert followed.of_type("completeRun")[0]["text"] == f"{GREETING}, and the rest"


@pytest.mark.requirement("interface.start")
async def test_a_job_that_was_parked_is_taken_up_from_the_list_of_jobs(start: Start, model: ModelServer) -> None:
    async with start("solo", "park me") as tmux:
        await tmux.until(GREETING)
        job = await park(tmux)
        assert f"job {job} is parked; go on with: perstack resume {job}" in await tmux.said()
    async with start() as tmux:
        await tmux.until("create-expert")
        await tmux.press("h")
        await tmux.until("park me")
        await tmux.press("/")
        await tmux.write("park me")
        await tmux.press("Enter")
        await tmux.press("Enter")
        await tmux.until(GREETING)
        model.release("end")
        await tmux.until("Completed · ")
        await tmux.press("C-c")
        assert await tmux.left() == 0
        assert job_in(await tmux.said()) == job


@pytest.mark.requirement("interface.start")
@pytest.mark.requirement("ours.survives-kill")
async def test_a_killed_worker_of_a_pool_is_replaced_while_the_screen_watches(
    start: Start, cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    async with (
        worker(cli, "start-pool", model_env),
        worker(cli, "start-pool", model_env),
        start("solo", "go", "--task-queue", "start-pool", "--job-id", "watched-in-a-pool") as tmux,
    ):
        await tmux.until(GREETING)
        data = DataFolder(Path(cli.env["PERSTACK_DATA_DIR"]))
        os.kill(await session_pid(data, "watched-in-a-pool"), signal.SIGKILL)
        async with asyncio.timeout(30):
            while len(model.requests) < 2:  # noqa: ASYNC110 - the server counts, it tells nobody
                await asyncio.sleep(0.05)
        model.release("end")
        await tmux.until(lambda text: f"{GREETING}, and the rest" in text and "Completed · " in text)
        await tmux.press("C-c")
        assert await tmux.left() == 0


@pytest.mark.requirement("interface.start")
@pytest.mark.requirement("ours.survives-kill")
async def test_the_screen_goes_on_when_the_temporal_server_was_killed(
    start: Start, tmp_path: Path, model: ModelServer
) -> None:
    data = DataFolder(tmp_path / "data")
    try:
        async with start("solo", "go", env={"PERSTACK_DATA_DIR": str(data.root)}) as tmux:
            await tmux.until(GREETING)
            record = read_record(data.record)
            assert record is not None
            os.kill(record.pid, signal.SIGKILL)
            await tmux.until("starting the Temporal server")
            model.release("end")
            await tmux.until(lambda text: f"{GREETING}, and the rest" in text and "Completed · " in text)
            await tmux.press("C-c")
            assert await tmux.left() == 0
        assert set(model.ledger.counts.values()) == {1}
    finally:
        await asyncio.shield(stop_server(data))


@pytest.mark.requirement("interface.start")
@pytest.mark.requirement("ours.survives-kill")
async def test_a_killed_screen_loses_nothing(
    start: Start, cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    async with start("solo", "go", "--job-id", "killed-screen") as tmux:
        await tmux.until(GREETING)
        os.kill(await tmux.program_pid(), signal.SIGKILL)
        await tmux.until("left with 137")
    model.release("end")
    resumed = await cli.run("resume", "killed-screen", env=model_env)
    assert resumed.code == 0, resumed.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.requirement("interface.start")
async def test_a_signal_parks_the_job_and_gives_the_terminal_back(start: Start, number: signal.Signals) -> None:
    async with start("solo", "go") as tmux:
        await tmux.until(GREETING)
        os.kill(await tmux.program_pid(), number)
        assert await tmux.left(seconds=15) == 130
        assert "is parked; go on with: perstack resume" in await tmux.said()


async def test_a_terminal_that_goes_away_parks_the_job(
    start: Start, cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    async with start("solo", "go", "--job-id", "terminal-gone") as tmux:
        await tmux.until(GREETING)
        pid = await tmux.program_pid()
    async with asyncio.timeout(15):
        while Path(f"/proc/{pid}").exists():  # noqa: ASYNC110 - another process tells nobody of its end
            await asyncio.sleep(0.05)
    model.release("end")
    resumed = await cli.run("resume", "terminal-gone", env=model_env)
    assert resumed.code == 0, resumed.stderr


@pytest.mark.requirement("interface.tui")
async def test_the_screen_follows_the_size_of_the_terminal_while_a_job_works(start: Start, model: ModelServer) -> None:
    async with start("solo", "go", size=(200, 50)) as tmux:
        await tmux.until(GREETING)
        for columns, lines in ((40, 20), (80, 24)):
            await tmux.resize(columns, lines)
            # The line between log and status goes from edge to edge.
            # What the model says now is drawn again after the frame.
            text = await tmux.until(
                lambda text, columns=columns: "─" * columns in text.splitlines() and GREETING.split()[0] in text
            )
            assert all(len(line) <= columns for line in text.splitlines())
            assert len(text.splitlines()) <= lines
        model.release("end")
        await tmux.until("Completed · ")
        await tmux.press("C-c")
        assert await tmux.left() == 0


@pytest.mark.requirement("interface.start")
async def test_a_quiet_start_says_nothing_once_the_screens_are_gone(start: Start, model: ModelServer) -> None:
    model.release("end")
    async with start("solo", "go", "--quiet") as tmux:
        await tmux.until("Completed · ")
        await tmux.press("C-c")
        assert await tmux.left() == 0
        assert "perstack" not in await tmux.said()


@pytest.mark.requirement("interface.tui")
async def test_no_color_is_obeyed_and_nothing_is_lost_by_it(start: Start, model: ModelServer) -> None:
    coloured = re.compile(r"\x1b\[[0-9;]*(?:3[0-7]|4[0-7]|9[0-7]|10[0-7]|[34]8;[25])[0-9;]*m")
    model.release("end")
    async with start("solo", "go") as tmux:
        await tmux.until("Completed · ")
        assert not coloured.search(await tmux.text(has_styles=True))
        plain = await tmux.still()
        await tmux.press("C-c")
        await tmux.left()
    async with start("solo", "go", env={"NO_COLOR": ""}) as tmux:
        await tmux.until("Completed · ")
        assert coloured.search(await tmux.text(has_styles=True))
        assert masked(await tmux.still()) == masked(plain)
        await tmux.press("C-c")
        await tmux.left()


@pytest.mark.parametrize(
    ("arguments", "toml", "code", "words"),
    [
        (("nobody", "go"), SOLO, 2, 'Expert "nobody" not found'),
        (("nobody",), SOLO, 2, 'Expert "nobody" not found'),
        (("solo", "go"), "[experts.solo", 2, "perstack.toml"),
        (("solo", "go", "--resume-from", "x"), SOLO, 2, "--resume-from requires --continue-job"),
        (("solo", "go", "--continue-job", "no-such-job"), SOLO, 2, "There is no job no-such-job"),
        (("solo", "go", "--address", "127.0.0.1:1"), SOLO, 3, "cannot reach Temporal"),
    ],
)
@pytest.mark.requirement("interface.exit-codes")
async def test_what_cannot_be_started_is_a_sentence_and_an_exit_code(
    start: Start, cli: Cli, arguments: tuple[str, ...], toml: str, code: int, words: str
) -> None:
    cli.write("perstack.toml", toml)
    async with start(*arguments) as tmux:
        assert await tmux.left() == code
        said = await tmux.said()
        assert words in said
        assert "Traceback" not in said


async def test_missing_credentials_are_told_before_there_is_a_screen(cli: Cli, tmp_path: Path) -> None:
    cli.write("perstack.toml", SOLO)
    async with terminal(tmp_path, ["start", "solo", "go"], workspace=cli.workspace, env=cli.env) as tmux:
        assert await tmux.left() == 4
        assert "ANTHROPIC_API_KEY" in await tmux.said()


@pytest.mark.requirement("interface.start")
async def test_without_a_terminal_the_command_to_use_is_named(start: Start, cli: Cli) -> None:
    refused = await cli.run("start", "solo", "go")
    assert (refused.code, refused.stdout) == (2, "")
    assert "perstack run" in refused.stderr
    # The terminal names itself to what runs in it, so it is told otherwise there.
    async with start("TERM=dumb", str(PROGRAM), "start", "solo", command="env", runner=()) as tmux:
        assert await tmux.left() == 2
        assert "perstack run" in await tmux.said()


BROKEN = """
import os
from textual.screen import Screen
from perstack.cli.diagnostics import ExitCode, say
from perstack.cli.lifecycle import run_command
from perstack.cli.screens import show
from textual.widgets import Static

class Broken(Screen[None]):
    BINDINGS = [("x", "break", "Break"), ("n", "noise", "Make noise")]

    def compose(self):
        yield Static("a screen that may break")

    def action_noise(self):
        os.write(1, b"noise on stdout\\\\n")
        os.write(2, b"noise on stderr\\\\n")
        print("printed noise")
        say("this is news")

    def action_break(self):
        secret = "sk-ant-local-variable"
        raise LookupError("it broke")

async def command():
    await show(None, Broken())
    return ExitCode.COMPLETED

run_command(command)
"""


async def test_a_bug_and_whatever_others_wrote_appear_when_the_terminal_is_whole(cli: Cli, tmp_path: Path) -> None:
    program = cli.write("broken.py", BROKEN.replace("\\\\n", "\\n"))
    runner = (sys.executable, "-P", program)
    async with terminal(tmp_path, (), workspace=cli.workspace, env=cli.env, runner=runner) as tmux:
        await tmux.until("a screen that may break")
        await tmux.press("n")
        text = await tmux.until("this is news")
        assert "noise" not in text
        await tmux.press("x")
        assert await tmux.left() == 1
        said = await tmux.said()
    assert "noise on stdout" in said
    assert "noise on stderr" in said
    assert "this is a bug in Perstack: LookupError: it broke" in said
    assert said.count("Traceback") == 1
    assert "sk-ant-local-variable" not in said.replace('secret = "sk-ant-local-variable"', "")
