"""A job goes on: with a new query, from any checkpoint, after a failure, as a branch; what was done is kept."""

import json
import re
from typing import Any

import pytest
from support.cli import Cli, Result
from support.model_server import Answer, Call, ModelServer, Request
from support.teams import PARALLEL_TEAM, parallel_team, who

SOLO = """
[experts.solo]
instruction = "You are solo."
"""
ASKING = """
[experts.solo]
instruction = "You are solo."

[experts.solo.skills.people]
type = "interactiveSkill"
tools.approve.inputJsonSchema = '{"type": "object"}'
"""


def job_of(result: Result) -> str:
    """The id of the job."""
    return result.events[0]["jobId"]


def texts(request: Request) -> list[str]:
    """The first text of every user turn that is no tool result."""
    found: list[str] = []
    for message in request.messages:
        content = message["content"]
        parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if message["role"] == "user":
            found.extend(part["text"] for part in parts if part["type"] == "text")
    return found


def echo(request: Request) -> Answer:
    """Says what it was told last."""
    return Answer(text=f"heard: {' / '.join(texts(request))}")


@pytest.mark.requirement("context.continue")
async def test_a_follow_up_query_goes_on_with_the_conversation_the_steps_and_the_tokens(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = echo
    first = await cli.run("run", "solo", "one", env=model_env)
    second = await cli.run("run", "solo", "two", "--continue", env=model_env)
    job = job_of(first)
    third = await cli.run("run", "solo", "three", "--continue-job", job, env=model_env)
    assert (second.code, third.code) == (0, 0), second.stderr + third.stderr
    assert job_of(second) == job_of(third) == job
    assert third.of_type("completeRun")[0]["text"] == "heard: one / two / three"
    steps = [result.of_type("startRun")[0]["stepNumber"] for result in (first, second, third)]
    assert steps == [1, 2, 3]
    runs = {result.of_type("startRun")[0]["runId"] for result in (first, second, third)}
    assert len(runs) == 3
    (query,) = third.of_type("startRun")[0]["inputMessages"]
    assert query["contents"][0]["text"] == "three"
    used = [result.of_type("completeRun")[0]["checkpoint"]["usage"]["totalTokens"] for result in (first, second, third)]
    assert used == sorted(used)
    assert used[2] > used[1] > used[0]


async def test_continue_takes_the_job_started_last_even_if_an_older_one_is_open(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", ASKING)
    model.script = asks
    waiting = await cli.run("run", "solo", "one", env=model_env)
    assert waiting.code == 6
    model.script = echo
    second = await cli.run("run", "solo", "two", env=model_env)
    third = await cli.run("run", "solo", "three", "--continue", env=model_env)
    assert third.code == 0, third.stderr
    assert job_of(third) == job_of(second)


@pytest.mark.requirement("context.continue")
async def test_the_log_of_a_job_that_went_on_tells_all_of_it_once(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = echo
    first = await cli.run("run", "solo", "one", env=model_env)
    job = job_of(first)
    second = await cli.run("run", "solo", "two", "--continue", env=model_env)
    logged = json.loads((await cli.run("log", "--job", job, "--json", "--take", "0")).stdout)
    live = [event for event in (*first.events, *second.events) if "tream" not in event["type"]]
    told = [event for event in logged["events"] if "tream" not in event["type"]]
    assert [event["id"] for event in told] == [event["id"] for event in live]
    assert logged["job"]["totalSteps"] == 2
    assert logged["job"]["usage"] == second.of_type("completeRun")[0]["checkpoint"]["usage"]
    text = (await cli.run("log", "--job", job)).stdout
    assert "Runs:\n✓ solo              one\n✓ solo (continued)  two\nUsage:\n" in text
    assert "Abandoned" not in text
    listed = await cli.run("jobs", "--json")
    assert next(one for one in map(json.loads, listed.stdout.splitlines()) if one["id"] == job)["query"] == "two"
    assert listed.stdout.count(job) == 1


def locked_out(request: Request) -> Answer:
    """Works one step, then the key is refused, until the test lets it in."""
    if request.turn == 1:
        return Answer(calls=(Call(name="writeTextFile", args={"path": "a.txt", "text": "a"}),))
    return Answer(status=401, message="no", error_type="authentication_error")


@pytest.mark.requirement("context.resume")
async def test_a_failed_job_is_resumed_from_where_it_failed(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = locked_out
    failed = await cli.run("run", "solo", "go", env=model_env)
    assert failed.code == 4, failed.stderr
    assert f"perstack resume {job_of(failed)}" in failed.stderr
    model.script = echo
    resumed = await cli.run("resume", job_of(failed), env=model_env)
    assert resumed.code == 0, resumed.stderr
    types = [kind for kind in resumed.types if kind not in ("initializeRuntime", "skillConnected", "skillDisconnected")]
    assert types[:2] == ["resumeFromStop", "startGeneration"]
    assert resumed.of_type("startGeneration")[0]["stepNumber"] == 3
    assert {turn: count for (_, turn), count in model.ledger.counts.items()} == {1: 1, 2: 2}
    again = await cli.run("resume", job_of(failed), env=model_env)
    assert again.code == 0
    assert again.of_type("completeRun") == resumed.of_type("completeRun")


async def test_a_job_at_its_step_limit_goes_on_with_a_new_limit(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)

    def script(request: Request) -> Answer:
        if request.turn > 3:
            return Answer(text="done")
        return Answer(calls=(Call(name="todo", args={"newTodos": [f"t{request.turn}"]}),))

    model.script = script
    stopped = await cli.run("run", "solo", "go", "--max-steps", "2", env=model_env)
    assert stopped.code == 5
    resumed = await cli.run("run", "solo", "--continue", "--max-steps", "5", env=model_env)
    assert resumed.code == 0, resumed.stderr
    assert [event["stepNumber"] for event in resumed.of_type("startGeneration")] == [3, 4]
    # The todo list lives in the conversation, so it went along.
    assert '"title":"t1"' in str(resumed.of_type("resolveToolResults")[0]["toolResults"][0]["result"][0]["text"])


def two_steps(request: Request) -> Answer:
    """A file, then an answer that tells how often it was asked."""
    if request.turn == 1:
        return Answer(calls=(Call(name="writeTextFile", args={"path": "a.txt", "text": "a"}),))
    return Answer(text=f"heard: {' / '.join(texts(request))}")


@pytest.mark.requirement("context.continue")
async def test_a_closed_job_goes_on_from_any_of_its_checkpoints(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = two_steps
    first = await cli.run("run", "solo", "go", env=model_env)
    job = job_of(first)
    middle = first.of_type("continueToNextStep")[0]["checkpoint"]
    back = await cli.run("run", "solo", "--continue-job", job, "--resume-from", middle["id"], env=model_env)
    assert back.code == 0, back.stderr
    assert back.of_type("resumeFromStop")[0]["checkpoint"]["messages"] == middle["messages"]
    assert back.of_type("startGeneration")[0]["stepNumber"] == middle["stepNumber"] + 1
    text = (await cli.run("log", "--job", job)).stdout
    assert f"⎇ from step 1, checkpoint {middle['id']}\n✓ solo (from step 1)  go\n" in text
    assert f"  Checkpoint: {middle['id']}\n" in text
    assert re.search(r"Abandoned: \d+ in, \d+ out", text)


@pytest.mark.requirement("context.continue")
async def test_from_a_delegates_checkpoint_only_that_delegate_works_again(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", PARALLEL_TEAM)
    model.script = parallel_team
    first = await cli.run("run", "team", "go", env=model_env)
    assert first.code == 0, first.stderr
    chosen = next(
        event["checkpoint"]
        for event in first.of_type("continueToNextStep")
        if event["expertKey"] == "@team/two" and event["checkpoint"]["stepNumber"] == 2
    )
    asked = len(model.requests)
    back = await cli.run(
        *("run", "@team/two", "once more", "--continue-job", job_of(first), "--resume-from", chosen["id"]),
        env=model_env,
    )
    assert back.code == 0, back.stderr
    assert [who(request) for request in model.requests[asked:]] == ["two", "two", "team"]
    assert "once more" in texts(model.requests[asked])
    assert back.of_type("completeRun")[-1]["text"] == "all: one done | two done | three done"
    assert {event["expertKey"] for event in back.of_type("startRun", "resumeFromStop")} == {"team", "@team/two"}


async def test_a_job_cancelled_amid_its_delegates_goes_on_with_those_that_were_cut_off(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", PARALLEL_TEAM)

    def script(request: Request) -> Answer:
        answer = parallel_team(request)
        if who(request) == "two" and request.turn == 2:
            return Answer(text="wait", calls=answer.calls, after_events=4, then="hang", gate="two")
        return answer

    model.script = script
    async with cli.running("run", "team", "go", env=model_env) as running:
        await running.seen('"delta":"wait"')
        await running.seen('"type":"completeRun"', count=2)
        job = json.loads(running.lines[0])["jobId"]
        await cli.run("cancel", job, env=model_env)
        cancelled = await cli.finished(running)
    assert cancelled.code == 7, cancelled.stderr
    model.release("two")
    asked = len(model.requests)
    result = await cli.run("resume", job, env=model_env)
    assert result.code == 0, result.stderr
    assert [who(request) for request in model.requests[asked:]] == ["two", "two", "team"]
    assert result.of_type("completeRun")[-1]["text"] == "all: one done | two done | three done"


def asks(request: Request) -> Answer:
    """Asks a person, then tells what it was told."""
    if request.turn == 1:
        return Answer(calls=(Call(name="approve", args={}, id="ask"), Call(name="todo", args={"newTodos": ["x"]})))
    told = {result["tool_use_id"]: str(result["content"]) for result in request.results}
    return Answer(text=f"told {told['ask']}")


async def test_a_branch_leaves_the_open_job_as_it_is(cli: Cli, model: ModelServer, model_env: dict[str, str]) -> None:
    cli.write("perstack.toml", ASKING)
    model.script = asks
    waiting = await cli.run("run", "solo", "go", env=model_env)
    assert waiting.code == 6
    job = job_of(waiting)
    refused = await cli.run("run", "solo", "new", "--continue-job", job, env=model_env)
    assert refused.code == 2
    assert "--branch" in refused.stderr
    branch = await cli.run("run", "solo", "yes", "-i", "--continue-job", job, "--branch", env=model_env)
    assert branch.code == 0, branch.stderr
    assert branch.of_type("completeRun")[0]["text"] == "told yes"
    assert job_of(branch) != job
    assert f"of job {job}" in (await cli.run("log", "--job", job_of(branch))).stdout
    original = await cli.run("respond", job, "no", env=model_env)
    assert original.code == 0, original.stderr
    assert original.of_type("completeRun")[0]["text"] == "told no"


@pytest.mark.parametrize(
    "answer", ["fine", json.dumps({"toolCallId": "ask", "toolName": "approve", "skillName": "people", "text": "fine"})]
)
async def test_i_answers_the_question_and_not_the_first_call(
    cli: Cli, model: ModelServer, model_env: dict[str, str], answer: str
) -> None:
    cli.write("perstack.toml", ASKING)
    model.script = asks
    await cli.run("run", "solo", "go", env=model_env)
    answered = await cli.run("run", "solo", answer, "--continue", "-i", env=model_env)
    assert answered.code == 0, answered.stderr
    assert answered.of_type("completeRun")[0]["text"] == "told fine"


async def test_a_cancelled_question_can_still_be_answered(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", ASKING)
    model.script = asks
    waiting = await cli.run("run", "solo", "go", env=model_env)
    assert (await cli.run("cancel", job_of(waiting), env=model_env)).code == 0
    refused = await cli.run("run", "solo", "what now", "--continue", env=model_env)
    assert refused.code == 2
    assert "waits for an answer to approve" in refused.stderr
    asked_again = await cli.run("resume", job_of(waiting), env=model_env)
    assert asked_again.code == 6, asked_again.stderr
    assert (await cli.run("cancel", job_of(waiting), env=model_env)).code == 0
    answered = await cli.run("run", "solo", "late", "--continue", "-i", env=model_env)
    assert answered.code == 0, answered.stderr
    assert answered.of_type("completeRun")[0]["text"] == "told late"


@pytest.mark.requirement("context.continue")
async def test_what_cannot_be_gone_on_from_is_refused_in_words(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO + '\n[experts.other]\ninstruction = "You are other."\n')
    model.script = echo
    none = await cli.run("run", "solo", "two", "--continue", env=model_env)
    assert (none.code, "No job has run in" in none.stderr) == (2, True)
    first = await cli.run("run", "solo", "one", env=model_env)
    job = job_of(first)
    asked = len(model.requests)
    for words, said in {
        ("run", "solo", "two", "--resume-from", "x"): "--resume-from requires --continue-job",
        ("run", "solo", "two", "--continue-job", job, "--resume-from", "x"): f"Checkpoint x not found in job {job}",
        ("run", "other", "two", "--continue"): "Checkpoint expert key solo does not match input expert key other",
        ("run", "solo", "--continue"): "there is nothing to resume",
        ("run", "solo", "yes", "--continue", "-i"): "no open question",
        ("run", "solo", "two", "--continue", "--continue-job", job): "both name a job",
        ("run", "solo", "two", "--continue", "--job-id", "mine"): "--job-id names a new job",
        ("run", "solo", "--continue-job", "no-such-job"): "There is no job no-such-job",
        ("run", "solo", "two", "--branch"): "--branch requires",
        ("run", "solo", "two", "-i"): "-i requires",
        ("run", "solo"): "There is no query",
    }.items():
        refused = await cli.run(*words, env=model_env)
        assert refused.code == 2, (words, refused.stderr)
        assert said in refused.stderr
        assert refused.stdout == ""
        assert "Traceback" not in refused.stderr
    assert len(model.requests) == asked
    listed = [json.loads(line) for line in (await cli.run("jobs", "--json", "--take", "100")).stdout.splitlines()]
    assert next(one for one in listed if one["id"] == job)["query"] == "one"


async def test_a_recorded_follow_up_is_replayed_with_its_past(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = two_steps
    first = await cli.run("run", "solo", "one", env=model_env)
    await cli.run("run", "solo", "two", "--continue", env=model_env)
    cassette = await cli.run("log", "--job", job_of(first), "--cassette")
    cli.write("job.cassette.json", cassette.stdout)
    replayed = await cli.run("run", "solo", "two", "--replay", "job.cassette.json", "--replay-strict")
    assert replayed.code == 0, replayed.stderr
    assert replayed.of_type("completeRun")[0]["text"] == "heard: one / two"
    assert job_of(replayed) != job_of(first)
