"""Keys that come just when a line or a dialog appears: they are text for the line, and choose nothing."""

import pytest
from perstack.cli.tui import typed_ahead
from perstack.cli.tui.backend import Stop
from perstack.cli.tui.screens import dialog
from perstack.cli.tui.widgets.prompt import Prompt
from perstack.core.failures import UsageError
from support.scripted_backend import Asked, Hold, ScriptedJob
from support.shown_jobs import answers, asking, ending_with, game
from support.watching import LARGE, Watch, watched

AT_WORK = game()[:50]
WAITS = Stop("stoppedByInteractiveTool")
DONE = (*game(), Stop("completed"))
LATER = (Hold("stop"), WAITS)
"""The log shows the questions already, the screen does not know yet that they can be answered."""
COMMANDS = "bcdqrta"
"""Letters that do something while no line has the focus."""


def questions(watch: Watch) -> list[Prompt]:
    return list(watch.screen.query_one("QuestionsPane").query(Prompt))


def follow_up(watch: Watch) -> Prompt:
    return watch.screen.query_one("FollowUp").query_one(Prompt)


@pytest.mark.requirement("interface.tui")
async def test_an_answer_that_is_typed_before_its_line_is_there_comes_into_it() -> None:
    job = ScriptedJob([*asking(), *LATER])
    async with watched(job, size=LARGE) as watch:
        await watch.until_shown("May it use the whole terminal")
        await watch.write(f"{COMMANDS} x")
        await watch.press("backspace", "backspace", "enter")
        assert watch.app.screen is watch.screen
        await job.release("stop")
        await watch.until(lambda: bool(questions(watch)) and questions(watch)[0].has_focus)
        await watch.write("!")
        assert questions(watch)[0].text == f"{COMMANDS}!"
        assert job.asked == []
        await watch.press("enter")
        await watch.until(lambda: job.asked == [Asked("respond", ("q1", f"{COMMANDS}!"))])


@pytest.mark.requirement("interface.tui")
async def test_a_query_that_is_typed_as_the_job_ends_comes_into_its_line() -> None:
    job = ScriptedJob([*game(), Hold("stop"), Stop("completed")])
    async with watched(job) as watch:
        await watch.until_shown("Run results")
        await watch.write(COMMANDS)
        await job.release("stop")
        await watch.until(lambda: follow_up(watch).has_focus)
        assert follow_up(watch).text == COMMANDS
        await watch.press("escape", "f")
        await watch.until(lambda: watch.screen.query_one("RunTree").has_focus)
        assert (follow_up(watch).text, job.asked) == (COMMANDS, [])


async def test_keys_are_commands_again_when_no_line_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typed_ahead, "HOLD_SECONDS", 0.0)
    async with watched(ScriptedJob([*asking(), *LATER]), size=LARGE) as watch:
        await watch.until_shown("May it use the whole terminal")
        await watch.press("c")
        await watch.until_shown("Cancel this job?")


async def test_somebody_who_reads_older_entries_has_commands_all_the_time() -> None:
    job = ScriptedJob([*game()[:80], Hold("end"), *game()[80:], Hold("stop"), Stop("completed")])
    async with watched(job) as watch:
        await watch.until_shown("Run results")
        await watch.press("pageup")
        await watch.until_shown("End follows")
        await job.release("end")
        await watch.until(lambda: watch.screen.view.root is not None and watch.screen.view.root.has_ended)
        await watch.press("c")
        await watch.until_shown("Cancel this job?")


async def test_what_is_typed_while_a_query_is_on_its_way_is_no_command_and_follows_a_refusal() -> None:
    refusal = UsageError("The workspace is gone.")
    job = ScriptedJob(DONE, refusals={"go_on": refusal}, slow={"go_on": "arrived"})
    async with watched(job) as watch:
        await watch.until(lambda: follow_up(watch).has_focus)
        await watch.write("more")
        await watch.press("enter")
        await watch.until(lambda: job.calls == ["go_on"])
        await watch.write(COMMANDS)
        assert watch.app.screen is watch.screen
        await job.release("arrived")
        await watch.until_shown("The workspace is gone.")
        await watch.until(lambda: follow_up(watch).text == f"more{COMMANDS}")
        assert job.calls == ["go_on"]


async def test_what_was_typed_for_nobody_does_not_come_into_a_later_line() -> None:
    more = ending_with(answers("Blue it is."), query="Make it blue")
    anew = [event.model_copy(update={"id": f"{event.id}-2", "run_id": "second-run"}) for event in more]
    job = ScriptedJob([*DONE, Hold("go_on"), *anew, Stop("completed")], slow={"go_on": "arrived"})
    async with watched(job, size=LARGE) as watch:
        await watch.until(lambda: follow_up(watch).has_focus)
        await watch.write("blue")
        await watch.press("enter")
        await watch.until(lambda: job.calls == ["go_on"])
        await watch.write("zz")
        await job.release("arrived")
        await watch.until_shown("Blue it is.", "Enter:Send")
        assert follow_up(watch).text == ""


@pytest.mark.requirement("interface.tui")
async def test_another_answer_is_kept_while_the_job_takes_in_the_first() -> None:
    again = asking("green")[len(asking()) :]
    assert again[0].type == "initializeRuntime"
    assert again[-1].type == "stopRunByInteractiveTool"
    job = ScriptedJob([*asking(), WAITS, Hold("respond"), *again[:-1], Hold("rest"), again[-1], WAITS])
    async with watched(job, size=LARGE) as watch:
        await watch.until(lambda: len(questions(watch)) == 3 and questions(watch)[0].has_focus)
        await watch.write("green")
        await watch.press("enter")
        await watch.until_shown("1 running")
        await watch.write("about 5")
        assert questions(watch)[1].text == "about 5"
        await job.release("rest")
        await watch.until(lambda: len(questions(watch)) == 2)
        assert questions(watch)[0].text == "about 5"
        assert questions(watch)[0].has_focus


@pytest.mark.requirement("interface.tui")
@pytest.mark.parametrize("key", ["c", "d", "q"])
async def test_somebody_who_types_on_when_a_dialog_appears_chooses_nothing(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialog, "QUIET_SECONDS", 3600.0)
    job = ScriptedJob(AT_WORK)
    async with watched(job) as watch:
        await watch.press(key)
        await watch.until_shown("Stay")
        shown = watch.app.screen
        await watch.write("cdps")
        await watch.press("enter")
        assert watch.app.screen is shown
        assert "Enter chooses" not in watch.picture
        assert job.asked == []
        await watch.press("escape")
        await watch.until_gone("Stay")


async def test_a_dialog_takes_an_answer_after_a_moment_without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    job = ScriptedJob(AT_WORK)
    async with watched(job) as watch:
        monkeypatch.setattr(dialog, "QUIET_SECONDS", 3600.0)
        await watch.press("c")
        await watch.until_shown("Cancel this job?")
        monkeypatch.setattr(dialog, "QUIET_SECONDS", 0.01)
        await watch.press("c")
        await watch.until_asked("Cancel this job?")
        await watch.press("c")
        await watch.until(lambda: job.calls == ["cancel"])


async def test_a_second_interrupt_needs_no_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialog, "QUIET_SECONDS", 3600.0)
    job = ScriptedJob(AT_WORK)
    async with watched(job) as watch:
        await watch.press("ctrl+c")
        await watch.until_shown("The job still works")
        await watch.press("ctrl+c")
        assert await watch.until_left() == 130
        assert job.calls == ["close"]
