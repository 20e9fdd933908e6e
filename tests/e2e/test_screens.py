"""The screens in a real terminal, as captures that a person has read; narrow and wide."""

from pathlib import Path

import pytest
from support.captures import require_capture
from support.cli import Cli
from support.model_server import Answer, Call, ModelServer, Request
from support.teams import who
from support.tmux import Tmux, terminal

TEAM = """
model = "claude-haiku-4-5"

[experts.team]
description = "Writes the release notes."
instruction = "You are team."
delegates = ["lead"]

[experts.team.skills.people]
type = "interactiveSkill"
tools.approve.inputJsonSchema = '{"type": "object"}'

[experts.lead]
description = "Leads the writing."
instruction = "You are lead."
delegates = ["@lead/writer"]

[experts."@lead/writer"]
description = "Writes."
instruction = "You are writer."
"""
SIZES = [(80, 24), (200, 50)]
DRAFT = "The first half of the draft, as it is being written"


def story(request: Request) -> Answer:
    """Three levels, one after another: a file, a text that waits half way, then two questions, then the end."""
    name, turn = who(request), request.turn
    if name == "writer":
        if turn == 1:
            text = "# Notes\n\n- faster\n- smaller\n"
            call = Call(name="writeTextFile", args={"path": "notes.md", "text": text})
            return Answer(thinking="A short list will do.", text="I begin.", calls=(call,))
        return Answer(text=f"{DRAFT}, and the second", delta_size=len(DRAFT), after_events=4, then="hang", gate="draft")
    if name == "lead":
        if turn == 1:
            return Answer(calls=(Call(name="writer", args={"query": "Write the notes"}),))
        return Answer(text="The notes are written.")
    if turn == 1:
        return Answer(text="I ask the lead.", calls=(Call(name="lead", args={"query": "See to the notes"}),))
    if turn == 2:
        asked = (("one", "Shall I publish them?"), ("two", "Under which name?"))
        return Answer(calls=tuple(Call(name="approve", args={"question": text}, id=id) for id, text in asked))
    return Answer(text="**Published** as `1.0`, with:\n\n1. what is faster\n2. what is smaller")


@pytest.mark.parametrize(("columns", "lines"), SIZES)
@pytest.mark.requirement("interface.start")
@pytest.mark.requirement("interface.tui")
async def test_a_job_of_three_levels_looks_as_ever_at_every_turn(
    columns: int,
    lines: int,
    cli: Cli,
    model: ModelServer,
    model_env: dict[str, str],
    tmp_path: Path,
    is_updating_goldens: bool,
) -> None:
    cli.write("perstack.toml", TEAM)
    model.script = story
    env = {**cli.env, **model_env, "TEXTUAL_ANIMATIONS": "none"}

    async def capture(tmux: Tmux, name: str) -> None:
        text = await tmux.still()
        require_capture(f"{name}-{columns}x{lines}", text, is_updating=is_updating_goldens)

    async with terminal(tmp_path, ["start"], workspace=cli.workspace, env=env, size=(columns, lines)) as tmux:
        await tmux.until("create-expert")
        await capture(tmux, "experts")
        await tmux.press("Enter")
        await tmux.until("What shall be done?")
        await tmux.write("Write the release notes")
        await capture(tmux, "query")
        await tmux.press("Enter")
        await tmux.until(lambda text: DRAFT in " ".join(text.split()) and "about $" in text)
        await capture(tmux, "working")
        model.release("draft")
        await tmux.until(lambda text: "Under which name?" in text and "Enter:Send" in text)
        await capture(tmux, "asking")
        await tmux.write("Yes, publish them")
        await tmux.press("Enter")
        await tmux.until(lambda text: "1 of 2" not in text and "Enter:Send" in text)
        await capture(tmux, "asking-once-more")
        await tmux.write("1.0")
        await tmux.press("Enter")
        await tmux.until("Completed · ")
        await capture(tmux, "completed")
        await tmux.press("C-c")
        assert await tmux.left() == 0


@pytest.mark.requirement("interface.log")
@pytest.mark.requirement("interface.tui")
async def test_a_job_is_looked_into_from_the_list_of_jobs_to_a_checkpoint(
    cli: Cli, model: ModelServer, model_env: dict[str, str], tmp_path: Path
) -> None:
    cli.write("perstack.toml", TEAM)
    model.script = story
    model.release("draft")
    ran = await cli.run("run", "team", "Look into this", env=model_env)
    assert ran.code == 6
    job = ran.events[0]["jobId"]
    async with terminal(tmp_path, ["log"], workspace=cli.workspace, env=cli.env) as tmux:
        await tmux.until("Look into this")
        await tmux.press("/")
        await tmux.write("Look into this")
        await tmux.press("Enter")
        await tmux.until(lambda text: " lead" in text and "@lead/writer" in text)
        await tmux.press("q")
        assert await tmux.left() == 0
    file = tmp_path / "job.json"
    assert (await cli.run("export", job, "-o", str(file))).code == 0
    offline = {**cli.env, "PERSTACK_DATA_DIR": str(tmp_path / "nothing")}
    async with terminal(tmp_path, ["log", "--file", file], workspace=cli.workspace, env=offline) as tmux:
        await tmux.until(lambda text: " lead" in text and "@lead/writer" in text)
        await tmux.press("q")
        assert await tmux.left() == 0
    assert not (tmp_path / "nothing").exists()
