"""What a person does on the run screen: answering, asking more, resuming, cancelling, detaching, leaving."""

import pytest
from perstack.cli.tui.backend import Stop
from perstack.cli.tui.widgets.activities import ActivityRow
from perstack.cli.tui.widgets.prompt import Prompt
from perstack.core.failures import Failure, PerstackError, UsageError
from perstack.core.run import Limits
from perstack.core.triggers import GenerationFailed
from support.scenarios import call
from support.scripted_backend import Asked, Hold, ScriptedJob
from support.shown_jobs import answers, asking, ending_with, game
from support.watching import LARGE, Watch, watched
from textual import events

AT_WORK = game()[:50]
WAITS = Stop("stoppedByInteractiveTool")
DONE = (*game(), Stop("completed"))
OVERLOADED = Failure(name="provider.overloaded", message="The provider is overloaded.", status_code=529)
LISTS = (answers("", call("exec", command="ls", args=[], env={}, cwd=".")),)
NO_KEY = Failure(name="provider.credentials", message="The API key was refused.", status_code=401)


def failed(failure: Failure = OVERLOADED, message: str = "The provider is overloaded.") -> ScriptedJob:
    """A job that stopped by an error."""
    return ScriptedJob([*ending_with(GenerationFailed(failure)), Stop("stoppedByError", message)])


def prompts(watch: Watch) -> list[Prompt]:
    return list(watch.screen.query_one("QuestionsPane").query(Prompt))


# Questions


@pytest.mark.requirement("interface.tui")
async def test_all_open_questions_are_shown_with_their_arguments_and_a_line_each() -> None:
    async with watched(ScriptedJob([*asking(), WAITS]), size=LARGE) as watch:
        await watch.until_shown(
            "⏸ askUser asks · 1 of 3",
            "Which colours shall the snake have?",
            'choices: ["green", "amber", "white"]',
            "⏸ askUser asks · 2 of 3",
            "How fast shall it start, in moves a second?",
            "⏸ askUser asks · 3 of 3",
        )
        assert len(prompts(watch)) == 3
        await watch.until(lambda: prompts(watch)[0].has_focus)


@pytest.mark.requirement("interface.tui")
async def test_questions_are_answered_in_any_order_and_what_is_written_stays() -> None:
    job = ScriptedJob([*asking(), WAITS, Hold("answered"), *asking("green")[len(asking()) :], WAITS])
    async with watched(job, size=LARGE) as watch:
        await watch.until_shown("3 of 3")
        await watch.write("green")
        await watch.press("tab")
        await watch.write("about 5")
        await watch.press("shift+tab", "enter")
        await watch.until(lambda: job.asked == [Asked("respond", ("q1", "green"))])
        await job.release("answered")
        await watch.until_gone("1 of 3")
        await watch.until_shown("How fast shall it start", "about 5")
        await watch.until(lambda: prompts(watch)[0].has_focus)
        await watch.press("enter")
        await watch.until(lambda: job.asked[1:] == [Asked("respond", ("q2", "about 5"))])


async def test_a_refused_answer_says_why_and_keeps_its_text() -> None:
    job = ScriptedJob([*asking(), WAITS])
    job.refusals["respond"] = UsageError("Somebody answered it already.", hint="Look at the log.")
    async with watched(job, size=LARGE) as watch:
        await watch.until_shown("3 of 3")
        await watch.write("amber")
        await watch.press("enter")
        await watch.until_shown("Somebody answered it already. Look at the log.", "amber")
        assert prompts(watch)[0].text == "amber"
        await watch.until(lambda: prompts(watch)[0].has_focus)
        del job.refusals["respond"]
        await watch.press("enter")
        await watch.until(lambda: job.calls == ["respond", "respond"])
        await watch.until_gone("Somebody answered it already.")


async def test_an_answer_may_have_several_lines() -> None:
    job = ScriptedJob([*asking(), WAITS])
    async with watched(job, size=LARGE) as watch:
        await watch.until_shown("3 of 3")
        watch.app.post_message(events.Paste("green\nand amber"))
        await watch.until(lambda: prompts(watch)[0].text == "green\nand amber")
        await watch.press("ctrl+j", "o", "k", "enter")
        await watch.until(lambda: job.asked == [Asked("respond", ("q1", "green\nand amber\nok"))])


async def test_nothing_is_sent_while_nothing_is_written() -> None:
    job = ScriptedJob([*asking(), WAITS])
    async with watched(job) as watch:
        await watch.until_shown("1 of 3")
        await watch.press("enter", "space", "enter", "escape", "f")
        await watch.until(lambda: watch.screen.query_one("RunTree").has_focus)
        assert job.asked == []


async def test_the_screen_goes_on_while_an_answer_is_on_its_way() -> None:
    job = ScriptedJob([*asking(), WAITS, Hold("later"), *asking("green")[len(asking()) :], WAITS])
    job.slow = {"respond": "arrived"}
    async with watched(job, size=LARGE) as watch:
        await watch.until_shown("3 of 3")
        await watch.press("x", "enter")
        await watch.until(lambda: job.calls == ["respond"])
        await watch.until(lambda: prompts(watch)[1].has_focus)
        await watch.write("five")
        await watch.until_shown("five")
        await job.release("arrived")
        await job.release("later")
        await watch.until_gone("1 of 3")


# After the end


@pytest.mark.requirement("interface.tui")
async def test_a_follow_up_query_goes_on_with_the_job() -> None:
    more = ending_with(answers("Blue it is."), query="Make it blue")
    anew = [event.model_copy(update={"id": f"{event.id}-2", "run_id": "second-run"}) for event in more]
    job = ScriptedJob([*DONE, Hold("go_on"), *anew, Stop("completed")])
    async with watched(job, size=LARGE) as watch:
        await watch.until_shown("✓ Completed", "A follow-up query")
        await watch.write("Make it blue")
        await watch.press("enter")
        await watch.until(lambda: job.asked == [Asked("go_on", ("Make it blue",))])
        await watch.until_shown("Query: Make it blue", "Blue it is.")
        assert len(watch.screen.view.roots) == 2


async def test_a_refused_follow_up_says_why_and_keeps_its_text() -> None:
    job = ScriptedJob(DONE, refusals={"go_on": UsageError("The workspace is gone.")})
    async with watched(job, size=LARGE) as watch:
        await watch.until_shown("A follow-up query")
        await watch.write("more")
        await watch.press("enter")
        await watch.until_shown("The workspace is gone.", "more")
        await watch.until(lambda: watch.screen.query_one("FollowUp").query_one(Prompt).has_focus)
        await watch.write("!")
        await watch.until_shown("more!")


@pytest.mark.requirement("interface.tui")
async def test_a_job_that_failed_says_why_and_is_resumed_with_a_key() -> None:
    job = failed()
    job.refusals["resume"] = UsageError("It cannot go on.", hint="Start a new job.")
    async with watched(job, size=LARGE) as watch:
        await watch.until_shown("✗ Failed · The provider is overloaded.", "^r:Resume")
        await watch.press("ctrl+r")
        await watch.until(lambda: job.calls == ["resume"])
        await watch.until_shown("It cannot go on.", "Start a new job.")
        await watch.until_shown("✗ Failed")
        del job.refusals["resume"]
        await watch.press("escape", "r")
        await watch.until(lambda: job.calls == ["resume", "resume"])
        await watch.until_gone("Resume")


async def test_a_completed_job_is_not_resumed() -> None:
    job = ScriptedJob(DONE)
    async with watched(job) as watch:
        await watch.until_shown("✓ Completed")
        assert "Resume" not in watch.picture
        await watch.press("ctrl+r", "escape", "r", "f")
        await watch.until(lambda: watch.screen.query_one("RunTree").has_focus)
        assert job.asked == []


# Cancelling, detaching, the link


@pytest.mark.requirement("interface.tui")
async def test_cancelling_is_asked_for_twice() -> None:
    job = ScriptedJob(AT_WORK)
    async with watched(job) as watch:
        await watch.press("c")
        await watch.until_asked("Cancel this job?")
        await watch.press("escape")
        await watch.until_gone("Cancel this job?")
        await watch.press("c")
        await watch.until_asked("Cancel it with all its delegates")
        await watch.press("s")
        await watch.until_gone("Cancel this job?")
        assert job.asked == []
        await watch.press("c")
        await watch.until_asked("Cancel this job?")
        await watch.press("enter")
        await watch.until(lambda: job.calls == ["cancel"])
        await watch.until_shown("The job is being cancelled.")


@pytest.mark.requirement("interface.tui")
async def test_detaching_leaves_the_job_to_the_background() -> None:
    job = ScriptedJob(AT_WORK)
    async with watched(job) as watch:
        await watch.press("d")
        await watch.until_asked("Leave this job?", "A background process works on")
        await watch.press("d")
        assert await watch.until_left() == 0
        assert job.calls == ["detach", "close"]


async def test_a_job_that_cannot_be_detached_stays_on_the_screen() -> None:
    job = ScriptedJob(AT_WORK, refusals={"detach": PerstackError("No server outlives this process.")})
    async with watched(job) as watch:
        await watch.press("d")
        await watch.until_asked("Leave this job?")
        await watch.press("enter")
        await watch.until_shown("No server outlives this process.", "That did not work")
        assert watch.app.is_running
        assert job.calls == ["detach"]


async def test_a_job_of_another_process_is_not_detached() -> None:
    job = ScriptedJob(AT_WORK, is_ours=False)
    async with watched(job) as watch:
        await watch.until_shown("c:Cancel")
        assert "Detach" not in watch.picture
        await watch.press("d", "f")
        await watch.until(lambda: watch.screen.query_one("RunTree").has_focus)
        assert job.asked == []


async def test_the_link_to_the_temporal_ui_is_shown_and_copied() -> None:
    async with watched(ScriptedJob(AT_WORK, link="http://localhost:8233/x")) as watch:
        await watch.press("t")
        await watch.until_shown("http://localhost:8233/x")
        assert watch.app.clipboard == "http://localhost:8233/x"
    async with watched(ScriptedJob(AT_WORK, link=None)) as watch:
        await watch.until_shown("f:Runs")
        assert "Temporal" not in watch.picture


# Leaving


@pytest.mark.requirement("interface.tui")
@pytest.mark.parametrize("key", ["q", "ctrl+c"])
@pytest.mark.parametrize(
    ("choice", "code", "calls"),
    [
        ("enter", 130, ["close"]),
        ("p", 130, ["close"]),
        ("ctrl+c", 130, ["close"]),
        ("d", 0, ["detach", "close"]),
        ("c", 7, ["cancel", "close"]),
    ],
)
async def test_leaving_a_job_that_works_here_asks_how(key: str, choice: str, code: int, calls: list[str]) -> None:
    job = ScriptedJob(AT_WORK, job_id="abc")
    async with watched(job) as watch:
        await watch.press(key)
        await watch.until_asked("The job still works", "Park it", "perstack resume abc", "Leave it to the background")
        await watch.press(choice)
        assert await watch.until_left() == code
        assert job.calls == calls


@pytest.mark.parametrize("key", ["escape", "s"])
async def test_one_can_stay_after_all(key: str) -> None:
    job = ScriptedJob(AT_WORK)
    async with watched(job) as watch:
        await watch.press("q")
        await watch.until_asked("The job still works")
        await watch.press(key)
        await watch.until_gone("The job still works")
        assert job.asked == []
        await job.play(*game()[50:55])
        await watch.until_shown("✗ @game-dev/test")


@pytest.mark.requirement("interface.tui")
@pytest.mark.parametrize(
    ("job", "code"),
    [
        (ScriptedJob(DONE), 0),
        (failed(), 1),
        (failed(NO_KEY, "The API key was refused."), 4),
        (ScriptedJob([*ending_with(*LISTS, limits=Limits(max_steps=1)), Stop("stoppedByExceededMaxSteps")]), 5),
        (ScriptedJob([*asking(), WAITS]), 6),
        (ScriptedJob([*AT_WORK, Stop("stoppedByCancellation")]), 7),
        (ScriptedJob([*AT_WORK, Stop("ended", "terminated")]), 1),
        (ScriptedJob(AT_WORK, is_ours=False), 130),
    ],
    ids=["completed", "failed", "no key", "step limit", "asks", "cancelled", "ended", "works elsewhere"],
)
async def test_the_exit_code_says_how_the_job_stood(job: ScriptedJob, code: int) -> None:
    async with watched(job) as watch:
        await watch.until(lambda: watch.screen.stop is not None or not job.is_ours)
        await watch.press("ctrl+c")
        assert await watch.until_left() == code
        assert job.calls == ["close"]


async def test_a_second_interrupt_does_not_wait_for_a_job_that_will_not_close() -> None:
    job = ScriptedJob(AT_WORK, slow={"close": "never"}, is_ours=False)
    async with watched(job) as watch:
        await watch.press("ctrl+c")
        await watch.until(lambda: job.calls == ["close"])
        await watch.press("ctrl+c")
        assert await watch.until_left() == 130


async def test_a_job_that_has_said_its_last_word_is_waited_for_and_not_asked_about() -> None:
    job = ScriptedJob([*game(), Hold("archived"), Stop("completed")])
    async with watched(job) as watch:
        await watch.until_shown("Completed · ")
        await watch.press("ctrl+c")
        await watch.until(lambda: any(worker.group == "leave" for worker in watch.app.workers))
        assert "The job still works" not in watch.picture
        await job.release("archived")
        assert await watch.until_left() == 0
        assert job.calls == ["close"]


async def test_a_job_that_does_not_come_to_its_end_is_asked_about_after_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perstack.cli.tui.screens.run.SETTLING_SECONDS", 0.2)
    job = ScriptedJob([*game(), Hold("never")])
    async with watched(job) as watch:
        await watch.until_shown("Completed · ")
        await watch.press("ctrl+c")
        await watch.until_asked("The job still works")
        await watch.press("p")
        assert await watch.until_left() == 130


async def test_leaving_while_a_query_is_on_its_way_asks_when_the_job_has_begun() -> None:
    job = ScriptedJob(DONE, slow={"go_on": "begun"})
    async with watched(job) as watch:
        await watch.until_shown("A follow-up query")
        await watch.write("More")
        await watch.press("enter")
        await watch.until(lambda: job.calls == ["go_on"])
        await watch.press("ctrl+c")
        await watch.until_shown("The job is being started")
        assert "The job still works" not in watch.picture
        await job.release("begun")
        await watch.until_asked("The job still works")
        await watch.press("p")
        assert await watch.until_left() == 130
        assert job.calls == ["go_on", "close"]


async def test_an_interrupt_copies_what_is_selected_instead_of_leaving() -> None:
    async with watched(ScriptedJob(AT_WORK)) as watch:
        await watch.until_shown("4 passed")
        watch.screen.query(ActivityRow).last().text_select_all()
        await watch.until(lambda: bool(watch.screen.get_selected_text()))
        await watch.press("ctrl+c")
        await watch.until(lambda: "4 passed in 0.31s" in watch.app.clipboard)
        assert "The job still works" not in watch.picture


# Keys


@pytest.mark.requirement("interface.tui")
async def test_help_names_the_keys_that_do_something_now() -> None:
    async with watched(ScriptedJob(AT_WORK), size=LARGE) as watch:
        await watch.press("question_mark")
        await watch.until_shown("Keys", "Cancel", "Detach", "Temporal", "Newest")
        assert "Resume" not in watch.picture
        await watch.press("escape")
        await watch.until_gone("Newest")


async def test_in_a_line_of_text_letters_are_text_and_help_has_another_key() -> None:
    job = ScriptedJob(DONE)
    async with watched(job) as watch:
        await watch.until_shown("Enter:Send", "F1:Help", "Esc:Keys")
        assert "q:Leave" not in watch.picture
        await watch.write("q?")
        await watch.until_shown("q?")
        await watch.press("f1")
        await watch.until_shown("Keys")
        await watch.press("escape", "escape")
        await watch.until_shown("q:Leave", "?:Help")
        await watch.press("a")
        await watch.until_shown("Enter:Send")


async def test_somebody_who_reads_older_entries_is_not_taken_to_the_line_for_a_query() -> None:
    job = ScriptedJob([*game()[:80], Hold("end"), *game()[80:], Stop("completed")])
    async with watched(job) as watch:
        await watch.until_shown("Run results")
        await watch.press("pageup")
        await watch.until_shown("End follows")
        await job.release("end")
        await watch.until_shown("✓ Completed", "a:Write")
        await watch.press("a")
        await watch.until_shown("Enter:Send")


async def test_tab_goes_from_part_to_part_and_passes_the_entries_of_the_log() -> None:
    async with watched(ScriptedJob([*asking(), WAITS]), size=LARGE) as watch:
        await watch.until_shown("3 of 3")
        seen: list[str] = []
        for _ in range(6):
            seen.append(type(watch.screen.focused).__name__)
            await watch.press("tab")
        assert seen == ["Prompt", "Prompt", "Prompt", "LogScroll", "RunTree", "Prompt"]


async def test_an_entry_of_the_log_is_unfolded_with_keys() -> None:
    async with watched(ScriptedJob(AT_WORK), size=LARGE) as watch:
        await watch.until_shown("… +3 more lines")
        await watch.press("j", "enter")
        await watch.until_shown("+     while True:")
        await watch.press("enter")
        await watch.until_shown("… +3 more lines")
        await watch.press("tab")
        await watch.until(lambda: watch.screen.query_one("RunTree").has_focus)
