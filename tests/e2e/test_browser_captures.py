"""The browser of `perstack log` and the ends of a job in a real terminal, as captures that a person has read."""

import gzip
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from perstack.client.embedded import stop_server
from perstack.client.locations import DataFolder
from support.captures import require_capture
from support.cli import Cli
from support.model_server import Answer, Call, ModelServer, Request
from support.teams import who
from support.tmux import Tmux, terminal

DEEPEST = Path(__file__).parents[1] / "golden" / "histories" / "deepest.json.gz"
SIZES = [(80, 24), (200, 50)]
TEAM = """
model = "claude-haiku-4-5"

[experts.notes]
description = "Writes the release notes."
instruction = "You are notes."
delegates = ["@notes/writer"]

[experts.notes.skills.people]
type = "interactiveSkill"
tools.approve.inputJsonSchema = '{"type": "object"}'

[experts."@notes/writer"]
description = "Writes."
instruction = "You are writer."
"""
DRAFT = "The first half of the draft, as it is being written"
COLOUR = re.compile(r"\x1b\[(?:\d+[;:])*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[;:m]")
"""An escape sequence that sets a colour of letters or of what is behind them."""


def story(request: Request) -> Answer:
    """What becomes of a query: answered at once, refused, asked back, or handed to a writer that never ends."""
    query, turn = request.first_user_text, request.turn
    if who(request) == "writer":
        if turn == 1:
            call = Call(name="writeTextFile", args={"path": "notes.md", "text": "# Notes\n\n- faster\n"})
            return Answer(text="I begin.", calls=(call,))
        return Answer(text=f"{DRAFT}, and the second", delta_size=len(DRAFT), after_events=4, then="hang", gate="never")
    if query.startswith("List"):
        return Answer(text="There are two: `1.0` and `1.1`.")
    if query.startswith("Publish"):
        return Answer(calls=(Call(name="approve", args={"question": "Under which name?"}, id="name"),))
    if query.startswith("Translate") and turn == 2:
        return Answer(status=401, error_type="authentication_error", message="invalid x-api-key")
    task = "Translate them" if query.startswith("Translate") else "Write the notes"
    return Answer(text="The writer does that.", calls=(Call(name="writer", args={"query": task}),))


def translates(request: Request) -> Answer:
    """The writer's work is done, then the provider refuses the key."""
    if who(request) == "writer":
        return Answer(text="Übersetzt.")
    return story(request)


Browse = Callable[..., AbstractAsyncContextManager[Tmux]]


class Captures:
    """Captures of one size."""

    def __init__(self, size: tuple[int, int], *, is_updating: bool) -> None:
        self._size, self._is_updating = size, is_updating

    async def take(self, tmux: Tmux, name: str) -> None:
        """Compare the screen, once it is at rest, with the one that is kept."""
        columns, lines = self._size
        require_capture(f"{name}-{columns}x{lines}", await tmux.still(), is_updating=self._is_updating)


@pytest.fixture
def browse(cli: Cli, tmp_path: Path) -> Browse:
    """`perstack log` of the deepest job that is recorded, in a terminal; no server is near."""
    file = tmp_path / "deepest.json"
    file.write_bytes(gzip.decompress(DEEPEST.read_bytes()))

    def browsed(size: tuple[int, int], **env: str) -> AbstractAsyncContextManager[Tmux]:
        whole = {**cli.env, "TZ": "UTC", "TEXTUAL_ANIMATIONS": "none", "PERSTACK_DATA_DIR": str(tmp_path / "no"), **env}
        return terminal(tmp_path, ["log", "--file", file], workspace=cli.workspace, env=whole, size=size)

    return browsed


@pytest.fixture
async def lone_cli(cli: Cli, tmp_path: Path) -> AsyncIterator[Cli]:
    """The program with a server of its own, which knows of no job yet."""
    data = DataFolder(tmp_path / "lone")
    yield Cli(cli.workspace, {**cli.env, "PERSTACK_DATA_DIR": str(data.root)})
    await stop_server(data)


def is_whole(text: str) -> bool:
    """Whether the runs are all there, and their price, of which forty columns leave little."""
    return "about $0.87" in text or "7.6k out · abo…" in text


@pytest.mark.parametrize("size", [(40, 20), *SIZES])
@pytest.mark.requirement("interface.log")
@pytest.mark.requirement("interface.tui")
async def test_the_runs_of_the_deepest_job_read_right_at_a_glance(
    size: tuple[int, int], browse: Browse, is_updating_goldens: bool, tmp_path: Path
) -> None:
    captures = Captures(size, is_updating=is_updating_goldens)
    async with browse(size) as tmux:
        await tmux.until(is_whole)
        await captures.take(tmux, "deepest-runs")
        await tmux.press("End")
        await tmux.until("› ⏸")
        await captures.take(tmux, "deepest-runs-end")
        await tmux.press("q")
        assert await tmux.left() == 0
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.requirement("interface.log")
@pytest.mark.requirement("interface.tui")
async def test_the_deepest_job_is_looked_into_down_to_the_texts_of_a_checkpoint(
    size: tuple[int, int], browse: Browse, is_updating_goldens: bool
) -> None:
    captures = Captures(size, is_updating=is_updating_goldens)
    async with browse(size) as tmux:
        await tmux.until(is_whole)
        await tmux.press("?")
        await tmux.until("Esc closes")
        await captures.take(tmux, "help")
        await tmux.press("Escape")
        await tmux.until(lambda text: "Esc closes" not in text)
        await tmux.write("/@ship/build")
        await tmux.until(lambda text: "@ship/build (resumed)" in text and "@ship/docs" not in text)
        await captures.take(tmux, "deepest-search")
        await tmux.press("Enter")
        await tmux.until(lambda text: "what it did" in text and "Three wheels" in text)
        await captures.take(tmux, "deepest-steps")
        await tmux.press("End")
        await tmux.until(re.compile(r"^› +8 ", re.MULTILINE).search)
        await tmux.press("Enter")
        await tmux.until("up to here")
        await captures.take(tmux, "deepest-checkpoint")
        await tmux.write("/instruction")
        await tmux.until(lambda text: "instruction" in text and "this step" not in text)
        await tmux.press("Enter")
        await tmux.until("▾ 1 instruction")
        await captures.take(tmux, "deepest-checkpoint-unfolded")
        await tmux.press("q")
        assert await tmux.left() == 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.requirement("interface.log")
@pytest.mark.requirement("interface.tui")
async def test_the_activity_log_of_the_deepest_job_ends_at_its_question(
    size: tuple[int, int], browse: Browse, is_updating_goldens: bool
) -> None:
    captures = Captures(size, is_updating=is_updating_goldens)
    async with browse(size) as tmux:
        await tmux.until(is_whole)
        await tmux.press("o")
        await tmux.until(lambda text: "askUser asks" in text and "about $0.87" in text)
        await captures.take(tmux, "deepest-log")
        await tmux.press("b")
        await tmux.until("o:Activity log")
        await tmux.press("q")
        assert await tmux.left() == 0


@pytest.mark.requirement("interface.tui")
async def test_without_colours_the_runs_read_the_same(browse: Browse) -> None:
    async with browse((80, 24), NO_COLOR="") as tmux:
        await tmux.until(is_whole)
        colourful, coloured = await tmux.still(), await tmux.text(has_styles=True)
    async with browse((80, 24), NO_COLOR="1") as tmux:
        await tmux.until(is_whole)
        plain, uncoloured = await tmux.still(), await tmux.text(has_styles=True)
    assert COLOUR.search(coloured)
    assert not COLOUR.search(uncoloured)
    assert without_bars(plain) == without_bars(colourful)


def without_bars(text: str) -> str:
    """A screen without what is drawn of a scroll bar."""
    return re.sub(r" *[▁▂▃▄▅▆▇█]$", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.requirement("interface.log")
@pytest.mark.requirement("interface.tui")
async def test_jobs_tell_apart_how_they_stand(
    size: tuple[int, int],
    lone_cli: Cli,
    model: ModelServer,
    model_env: dict[str, str],
    tmp_path: Path,
    is_updating_goldens: bool,
) -> None:
    cli, captures = lone_cli, Captures(size, is_updating=is_updating_goldens)
    cli.write("perstack.toml", TEAM)
    model.script = story
    for query, code in (("List the releases", 0), ("Publish 1.1", 6)):
        assert (await cli.run("run", "notes", query, env=model_env)).code == code
    model.script = translates
    assert (await cli.run("run", "notes", "Translate the notes of 1.1 into German", env=model_env)).code == 4
    model.script = story
    async with cli.running("run", "notes", "Write the notes of 0.9", env=model_env) as running:
        await running.seen(DRAFT)
        job = json.loads(running.lines[0])["jobId"]
        assert (await cli.run("cancel", job, env=model_env)).code == 0
        assert (await cli.finished(running)).code == 7
    async with cli.running("run", "notes", "Write the notes of 1.2", env=model_env) as running:
        await running.seen(DRAFT)
        await look_at_jobs(cli, model_env, captures, size, tmp_path)


async def look_at_jobs(
    cli: Cli, model_env: dict[str, str], captures: Captures, size: tuple[int, int], folder: Path
) -> None:
    """From the list of all jobs into the completed one, as far as to a fork of it."""
    env = {**cli.env, **model_env, "TZ": "UTC", "TEXTUAL_ANIMATIONS": "none"}
    async with terminal(folder, ["log"], workspace=cli.workspace, env=env, size=size) as tmux:
        await tmux.until(lambda text: all(word in text for word in ("running", "waiting", "failed", "cancelled")))
        await captures.take(tmux, "jobs")
        await tmux.press("End")
        await tmux.until(re.compile(r"^› ✓ completed", re.MULTILINE).search)
        await tmux.press("Enter")
        await tmux.until(lambda text: "1 run" in text and "about $" in text)
        await tmux.press("Enter")
        await tmux.until("what it did")
        await tmux.press("f")
        await tmux.until("Fork from step 1")
        await captures.take(tmux, "fork")
        await tmux.press("C-c")
        assert await tmux.left() == 0


@pytest.mark.parametrize("size", [(40, 20), *SIZES])
@pytest.mark.requirement("interface.start")
@pytest.mark.requirement("interface.tui")
async def test_a_job_at_work_is_left_or_cancelled(
    size: tuple[int, int],
    cli: Cli,
    model: ModelServer,
    model_env: dict[str, str],
    tmp_path: Path,
    is_updating_goldens: bool,
) -> None:
    captures = Captures(size, is_updating=is_updating_goldens)
    cli.write("perstack.toml", TEAM)
    model.script = story
    env = {**cli.env, **model_env, "TEXTUAL_ANIMATIONS": "none"}
    command = ["start", "notes", "Write the notes of 1.2"]
    async with terminal(tmp_path, command, workspace=cli.workspace, env=env, size=size) as tmux:
        await tmux.until(lambda text: DRAFT in " ".join(text.split()) and "about $" in text)
        await captures.take(tmux, "at-work")
        assert not COLOUR.search(await tmux.text(has_styles=True))
        await tmux.press("q")
        await tmux.until(lambda text: "Park it" in text and "Enter chooses" in text)
        await captures.take(tmux, "leave")
        await tmux.press("Escape")
        await tmux.until(lambda text: "Park it" not in text)
        await tmux.press("c")
        await tmux.until(lambda text: "Cancel this job?" in text and "Enter chooses" in text)
        await captures.take(tmux, "cancel")
        await tmux.press("Enter")
        await tmux.until(lambda text: "Cancelled · " in text and "being cancelled" not in text)
        await captures.take(tmux, "cancelled")
        await tmux.press("C-c")
        assert await tmux.left() == 7


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.requirement("interface.start")
@pytest.mark.requirement("interface.tui")
async def test_a_job_that_fails_says_why_and_what_to_do(
    size: tuple[int, int],
    cli: Cli,
    model: ModelServer,
    model_env: dict[str, str],
    tmp_path: Path,
    is_updating_goldens: bool,
) -> None:
    captures = Captures(size, is_updating=is_updating_goldens)
    cli.write("perstack.toml", TEAM)
    model.script = translates
    env = {**cli.env, **model_env, "TEXTUAL_ANIMATIONS": "none"}
    command = ["start", "notes", "Translate the notes of 1.1 into German"]
    async with terminal(tmp_path, command, workspace=cli.workspace, env=env, size=size) as tmux:
        await tmux.until(lambda text: "Failed · " in text and "about $" in text)
        await captures.take(tmux, "failed")
        await tmux.press("C-c")
        assert await tmux.left() == 4
