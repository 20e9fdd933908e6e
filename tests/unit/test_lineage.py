"""A job goes on from any checkpoint of any of its runs, and what was done is kept."""

import pytest
from perstack.core.conversation import Position
from perstack.core.events import CompleteRun, ResumeFromStop, RunBase, StartGeneration, StartRun
from perstack.core.failures import UsageError
from perstack.core.lineage import Words, open_questions, with_definition
from perstack.core.messages import InstructionMessage, ToolMessage
from perstack.core.run import RunInput
from perstack.core.seed import UNANSWERED, Seed, has_open_calls
from perstack.core.state import begin
from support.lineages import checkpoints_of, lineage_of, next_input, steps_of, user
from support.play import Play
from support.scenarios import call, complete, expert, say, texts_of, types_of, words_of
from support.stories import STORIES, TEAM, WITH_PEOPLE, command

PAIRS = [(name, at) for name, story in STORIES.items() for at in range(len(list(checkpoints_of(story()))))]


def goes_on(story: Play, start: RunInput, **options: object) -> Play:
    """A second execution of the job, with the tools of the first; everybody says `done`."""
    play = Play(people=("yes", "yes", "yes"), specs=story.specs, **options)  # pyright: ignore[reportArgumentType]
    play.run(start)
    return play


def assert_whole(seed: Seed | None) -> None:
    """The open calls and the position of a seed and of all its delegates are those of its conversation."""
    if seed is None:
        return
    position = Position()
    for message in seed.checkpoint.messages:
        position = position.after(message)
    assert seed.position == position
    assert bool(seed.calls) == has_open_calls(seed.checkpoint)
    for below in seed.delegates.values():
        assert_whole(below)


@pytest.mark.requirement("runtime.checkpoints")
@pytest.mark.parametrize(("name", "at"), PAIRS)
def test_every_checkpoint_of_every_story_can_be_gone_on_from(name: str, at: int) -> None:
    story = STORIES[name]()
    chosen = list(checkpoints_of(story))[at]
    words = Words(message=user("more")) if chosen.status == "completed" else Words()
    going = lineage_of(story).at(chosen.id, words)
    assert_whole(going.seed)
    play = goes_on(story, next_input(going))
    (last,) = [event for event in play.root.events if isinstance(event, CompleteRun)]
    assert going.start.expert_key == story.root.start.expert_key
    assert last.checkpoint.expert.key == story.root.start.expert_key
    assert not {event.id for event in play.root.events} & {event.id for event in story.events}
    if going.seed is None:
        return
    assert last.checkpoint.messages[: len(going.seed.checkpoint.messages)] == going.seed.checkpoint.messages
    first = next(event for event in play.root.events if isinstance(event, StartRun | ResumeFromStop))
    assert isinstance(first, StartRun) == (going.seed.message is not None)
    assert first.step_number == going.seed.checkpoint.step_number + 1
    assert last.checkpoint.usage.total_tokens >= going.seed.checkpoint.usage.total_tokens


@pytest.mark.parametrize("name", STORIES)
def test_every_story_can_be_gone_on_from_its_end(name: str) -> None:
    story = STORIES[name]()
    lineage = lineage_of(story)
    going = lineage.latest(Words(message=user("more")) if lineage.is_completed else Words())
    play = goes_on(story, next_input(going))
    assert types_of(play.root.events)[-1] == "completeRun"


def test_a_seed_survives_the_wire() -> None:
    story = STORIES["cancelled-delegating"]()
    seed = lineage_of(story).latest(Words()).seed
    assert seed is not None
    assert Seed.model_validate_json(seed.wire_json()) == seed


def test_a_new_query_follows_the_whole_conversation() -> None:
    story = STORIES["completion-with-result"]()
    play = goes_on(story, next_input(lineage_of(story).latest(Words(message=user("now in French")))))
    assert words_of(play.root.state.checkpoint.messages[-3:]) == ["the result", "now in French", "done"]
    assert isinstance(play.root.state.checkpoint.messages[0], InstructionMessage)
    assert sum(isinstance(m, InstructionMessage) for m in play.root.state.checkpoint.messages) == 1


def test_the_step_limit_counts_only_the_generations_of_the_run_itself() -> None:
    story = STORIES["max-steps"]()
    play = goes_on(story, next_input(lineage_of(story).latest(Words())))
    assert types_of(play.root.events)[-1] == "completeRun"
    assert play.root.state.generations == 3
    assert [effect.ordinal for effect in play.root.asked] == [3]


def test_from_a_delegates_checkpoint_its_siblings_results_are_kept() -> None:
    story = STORIES["parallel"]()
    (chosen,) = steps_of(story, "@team/a")
    going = lineage_of(story).at(chosen.id, Words())
    play = goes_on(story, next_input(going))
    assert [run.start.expert_key for run in play.runs] == ["team", "@team/a"]
    delegate = play.runs[1]
    assert delegate.state.checkpoint.messages[: len(chosen.messages)] == chosen.messages
    assert types_of(delegate.events)[:2] == ["resumeFromStop", "startGeneration"]
    answer = next(m for m in reversed(play.root.state.checkpoint.messages) if isinstance(m, ToolMessage))
    assert texts_of(answer.contents) == ['{"tool":"exec"}', "done", "B"]
    # B's tokens were counted when it reported; A goes on with its own.
    assert play.root.state.checkpoint.usage.total_tokens == 15 + 15 + 2 * 15 + 15


def test_from_a_checkpoint_two_levels_down_every_run_above_goes_on_from_its_stop() -> None:
    story = Play(
        {
            "top": [say("", call("mid", query="plan it")), say("T")],
            "@top/mid": [say("", command("ls")), say("", call("low", query="do it")), say("M")],
            "@top/low": [say("", command("pwd")), say("L")],
        }
    )
    story.run(
        RunInput.model_validate({**STORIES["chain"]().root.start.model_dump(), "run_id": "first", "job_id": "deep"})
    )
    (chosen,) = steps_of(story, "@top/low")
    play = goes_on(story, next_input(lineage_of(story).at(chosen.id, Words(message=user("be quick")))))
    assert [types_of(run.events)[0] for run in play.runs] == ["resumeFromStop", "resumeFromStop", "startRun"]
    low = play.runs[2]
    assert words_of(low.state.checkpoint.messages[-2:]) == ["be quick", "done"]
    assert types_of(play.root.events)[-1] == "completeRun"


def test_a_cancelled_job_goes_on_with_the_delegates_that_were_cut_off_where_they_were() -> None:
    story = STORIES["cancelled-delegating"]()
    play = goes_on(story, next_input(lineage_of(story).latest(Words())))
    assert [run.start.expert_key for run in play.runs] == ["team", "@team/b"]
    assert types_of(play.root.events)[:4] == ["resumeFromStop", "resumeToolCalls", "callDelegate", "stopRunByDelegate"]
    delegate = play.runs[1]
    assert types_of(delegate.events)[0] == "resumeFromStop"
    assert "exec was cancelled." in texts_of(
        next(m for m in delegate.state.checkpoint.messages if isinstance(m, ToolMessage)).contents
    )


def test_a_new_query_to_a_job_with_open_calls_answers_them_first() -> None:
    story = STORIES["cancelled-delegating"]()
    play = goes_on(story, next_input(lineage_of(story).latest(Words(message=user("leave it")))))
    (first,) = [event for event in play.root.events if isinstance(event, StartRun)]
    answers, query = first.input_messages
    assert isinstance(answers, ToolMessage)
    assert texts_of(answers.contents) == ["done", UNANSWERED]
    assert words_of([query])[0] == "leave it"
    assert len(play.runs) == 1


def test_an_answer_to_a_question_of_a_cancelled_job_goes_on_with_it() -> None:
    story = STORIES["cancelled-asking"]()
    going = lineage_of(story).latest(Words(answer="yes, do"))
    assert going.seed is not None
    assert [one.tool_name for one in open_questions(going.seed)] == ["askUser"]
    play = goes_on(story, next_input(going))
    assert types_of(play.root.events)[:2] == ["resumeFromStop", "finishAllToolCalls"]
    answer = next(m for m in reversed(play.root.state.checkpoint.messages) if isinstance(m, ToolMessage))
    assert "yes, do" in texts_of(answer.contents)


def test_without_an_answer_a_question_is_asked_again() -> None:
    story = STORIES["cancelled-asking"]()
    play = Play(specs=story.specs)
    play.run(next_input(lineage_of(story).latest(Words())))
    assert types_of(play.root.events)[-1] == "stopRunByInteractiveTool"


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("parked", Words(message=user("new")), "waits for an answer"),
        ("completion-with-result", Words(), "nothing to resume"),
        ("completion-with-result", Words(answer="yes"), "no open question"),
        ("parked", Words(answer="yes", call_id="tc-else"), "no open question with the id tc-else"),
    ],
)
def test_words_that_fit_nothing_are_refused(name: str, words: Words, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        lineage_of(STORIES[name]()).latest(words)


def test_an_unknown_checkpoint_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="Checkpoint nope not found in job job"):
        lineage_of(STORIES["chain"]()).at("nope", Words())


def test_a_job_whose_session_never_opened_begins_anew() -> None:
    story = STORIES["error-at-opening"]()
    going = lineage_of(story).latest(Words())
    assert going.seed is None
    play = goes_on(story, next_input(going))
    assert types_of(play.root.events)[:2] == ["startRun", "startGeneration"]


def test_what_a_run_learned_while_it_worked_goes_along() -> None:
    story = STORIES["dynamic"]()
    going = lineage_of(story).latest(Words(message=user("fly again")))
    assert going.seed is not None
    assert [skill.name for skill in going.seed.toolset.added_skills] == ["wings"]
    assert begin(next_input(going)).toolset.added_skills == going.seed.toolset.added_skills


def test_a_new_definition_keeps_what_was_added_and_taken_away() -> None:
    story = STORIES["completion-with-result"]()
    seed = lineage_of(story).latest(Words(message=user("more"))).seed
    assert seed is not None
    old = expert("team", delegates=("@team/a", "@team/b"))
    worked = seed.replaced(toolset=seed.toolset.replaced(delegates=("@team/b", "@team/dynamic")))
    new = expert("team", delegates=("@team/a", "@team/b", "@team/c"))
    assert with_definition(worked, old, new).toolset.delegates == ("@team/b", "@team/c", "@team/dynamic")


def test_a_run_ended_from_outside_goes_on_from_where_history_stops() -> None:
    """Terminated amid parallel calls: what was answered is kept, the rest is told to have been lost."""
    story = Play({"team": [say("", command("ls"), call("readTextFile", path="a"), complete("no"))]}, specs=WITH_PEOPLE)
    story.run(TEAM)
    run = story.root
    told = run.told[: next(i for i, (t, _) in enumerate(run.told) if type(t).__name__ == "ToolFinished") + 1]
    run.told[:] = told
    going = lineage_of(story).latest(Words())
    assert going.seed is not None
    play = goes_on(story, next_input(going))
    answers = next(m for m in play.root.state.checkpoint.messages if isinstance(m, ToolMessage))
    assert sorted(texts_of(answers.contents)) == sorted([UNANSWERED, '{"tool":"readTextFile"}', UNANSWERED])


def test_generations_go_on_counting_and_every_event_names_the_new_run() -> None:
    story = STORIES["chain"]()
    play = goes_on(story, next_input(lineage_of(story).latest(Words(message=user("again")))))
    assert {event.run_id for event in play.root.events if isinstance(event, RunBase)} == {"next-run"}
    assert [event.step_number for event in play.root.events if isinstance(event, StartGeneration)] == [
        story.root.state.checkpoint.step_number + 1
    ]
    assert words_of(play.root.state.checkpoint.messages[-2:]) == ["again", "done"]
