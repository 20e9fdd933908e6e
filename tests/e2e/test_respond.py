"""A job that asks a person: it stops, waits without any process, and goes on with the answer."""

from typing import Any

import pytest
from support.cli import Cli, Result
from support.model_server import Answer, Call, ModelServer, Request

TOML = """
[experts.team]
instruction = "You are team."
delegates = ["@team/one"]

[experts.team.skills.people]
type = "interactiveSkill"
rule = "Ask before you act."

[experts.team.skills.people.tools.approve]
description = "Asks a person to approve."
inputJsonSchema = '{"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]}'

[experts."@team/one"]
description = "First."
instruction = "You are one."

[experts."@team/one".skills.people]
type = "interactiveSkill"
tools.approve.inputJsonSchema = '{"type": "object"}'
"""


def asking(*questions: str) -> Any:
    """The expert asks, beside a tool and a delegate; then reports what it was told."""

    def script(request: Request) -> Answer:
        if "You are one." in request.system:
            return Answer(text="one done")
        if request.turn == 1:
            asked = tuple(Call(name="approve", args={"what": question}, id=f"ask_{question}") for question in questions)
            mine = (Call(name="todo", args={"newTodos": ["a"]}), Call(name="one", args={"query": "go"}))
            return Answer(text="I ask.", calls=(*asked, *mine))
        told = {result["tool_use_id"]: str(result["content"]) for result in request.results}
        return Answer(text=" ".join(told.get(f"ask_{question}", "?") for question in questions))

    return script


async def stopped(cli: Cli, model_env: dict[str, str], *more: str) -> Result:
    """A job that has asked."""
    cli.write("perstack.toml", TOML)
    result = await cli.run("run", "team", "Go.", *more, env=model_env)
    assert result.code == 6, result.stderr
    return result


def job_of(result: Result) -> str:
    """The id of the job."""
    return result.events[0]["jobId"]


@pytest.mark.requirement("definition.skills.interactive")
async def test_a_question_stops_the_job_with_everything_else_of_the_step_kept(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    model.script = asking("plan")
    result = await stopped(cli, model_env)
    stop = result.of_type("stopRunByInteractiveTool")[-1]
    assert [call["toolName"] for call in stop["checkpoint"]["pendingToolCalls"]] == ["approve"]
    assert {one["toolName"] for one in stop["checkpoint"]["partialToolResults"]} == {"todo", "one"}
    assert stop["checkpoint"]["status"] == "stoppedByInteractiveTool"
    assert "Ask before you act." in model.requests[0].system
    assert 'approve asks (call ask_plan): {"what":"plan"}' in result.stderr
    assert f"perstack respond {job_of(result)}" in result.stderr
    offered = {
        ("one" if "You are one." in request.system else "team"): {tool["name"] for tool in request.json["tools"]}
        for request in model.requests
    }
    assert "approve" in offered["team"]
    # A person is asked by the first expert of a job only.
    assert "approve" not in offered["one"]


async def test_an_answer_goes_on_with_the_run_and_prints_what_comes_then(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    model.script = asking("plan")
    job = job_of(await stopped(cli, model_env))
    before = len(model.requests)
    result = await cli.run("respond", job, "Yes, do it.", env=model_env)
    assert result.code == 0, result.stderr
    assert result.types[:2] == ["initializeRuntime", "resumeFromStop"]
    assert result.events[0]["interactiveToolCall"]["text"] == "Yes, do it."
    assert result.of_type("completeRun")[0]["text"] == "Yes, do it."
    assert len(model.requests) == before + 1
    log = await cli.run("log", "--job", job, "--json", "--take", "0", env=model_env)
    assert log.code == 0
    assert log.stdout.count("Yes, do it.") >= 2


async def test_several_questions_are_answered_one_by_one_and_the_rest_stop_the_job_again(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    model.script = asking("plan", "price")
    job = job_of(await stopped(cli, model_env))
    unsure = await cli.run("respond", job, "Yes", env=model_env)
    assert unsure.code == 2
    assert "ask_plan" in unsure.stderr
    assert "ask_price" in unsure.stderr
    cli.write("answer.md", "Too high.")
    first = await cli.run("respond", job, "ask_price", "@answer.md", env=model_env)
    assert first.code == 6, first.stderr
    assert [call["id"] for call in first.of_type("stopRunByInteractiveTool")[0]["checkpoint"]["pendingToolCalls"]] == [
        "ask_plan"
    ]
    again = await cli.run("respond", job, "ask_price", "Fine.", env=model_env)
    assert (again.code, again.stdout) == (2, "")
    second = await cli.run("respond", job, "Good.", env=model_env)
    assert second.code == 0, second.stderr
    assert second.of_type("completeRun")[0]["text"] == "Good. Too high."


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nobody", "Yes"), "No open question"),
        (("  ",), "empty"),
        (("@missing.md",), "missing.md"),
        (("a", "b", "c"), "one answer"),
    ],
)
async def test_an_answer_that_cannot_be_taken_is_refused_and_changes_nothing(
    cli: Cli, model: ModelServer, model_env: dict[str, str], words: tuple[str, ...], says: str
) -> None:
    model.script = asking("plan")
    job = job_of(await stopped(cli, model_env))
    before = (await cli.run("log", "--job", job, "--json", "--take", "0", env=model_env)).stdout
    result = await cli.run("respond", job, *words, env=model_env)
    assert (result.code, result.stdout) == (2, "")
    assert says in result.stderr
    assert (await cli.run("log", "--job", job, "--json", "--take", "0", env=model_env)).stdout == before


async def test_a_parked_question_is_shown_again_by_resume(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    model.script = asking("plan")
    job = job_of(await stopped(cli, model_env))
    result = await cli.run("resume", job, env=model_env)
    assert result.code == 6
    assert "approve asks" in result.stderr
    done = await cli.run("respond", job, "Yes", env=model_env)
    assert done.code == 0
    assert (await cli.run("respond", job, "Yes", env=model_env)).code == 2
