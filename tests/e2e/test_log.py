"""`perstack log` asked for a part of a job: filters, pages, runs, checkpoints, and events as they come."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cli import Cli, Result
from support.model_server import Answer, Call, ModelServer, Request
from support.servers import own_server
from support.teams import PARALLEL_TEAM, parallel_team

Json = dict[str, Any]
ASKING = """
[experts.solo]
instruction = "You are solo."

[experts.solo.skills.people]
type = "interactiveSkill"
tools.approve.inputJsonSchema = '{"type": "object"}'
"""
SOLO = """
[experts.solo]
instruction = "You are solo."
"""
HALF = "The first half."


async def parallel_job(cli: Cli, model: ModelServer, model_env: dict[str, str]) -> Result:
    """A job of a team: four runs, two segments of the first, commands, files."""
    cli.write("perstack.toml", PARALLEL_TEAM)
    model.script = parallel_team
    result = await cli.run("run", "team", "go", env=model_env)
    assert result.code == 0, result.stderr
    return result


async def told(cli: Cli, *words: str) -> Json:
    """What `log --json` tells."""
    result = await cli.run("log", *words, "--json")
    assert result.code == 0, result.stderr
    return json.loads(result.stdout)


def ids(events: list[Json]) -> list[str]:
    return sorted(event["id"] for event in events)


@pytest.mark.requirement("interface.log-queries")
async def test_every_filter_keeps_the_events_it_names(cli: Cli, model: ModelServer, model_env: dict[str, str]) -> None:
    job = (await parallel_job(cli, model, model_env)).events[0]["jobId"]
    everything = (await told(cli, "--job", job, "--take", "0"))["events"]
    is_kept: dict[tuple[str, ...], Callable[[Json], bool]] = {
        ("--step", "2"): lambda event: event.get("stepNumber") == 2,
        ("--step", ">2"): lambda event: event.get("stepNumber", 0) > 2,
        ("--step", "1-2"): lambda event: event.get("stepNumber") in (1, 2),
        ("--type", "completeRun"): lambda event: event["type"] == "completeRun",
        ("--tools",): lambda event: event["type"] in ("callTools", "resolveToolResults"),
        ("--delegations",): lambda event: event["type"] in ("callDelegate", "stopRunByDelegate"),
        ("--filter", '.toolCalls[].toolName == "exec"'): lambda event: any(
            call["toolName"] == "exec" for call in event.get("toolCalls", ())
        ),
        ("--filter", ".expertKey == @team/two", "--tools", "--step", "2-3"): lambda event: (
            event.get("expertKey") == "@team/two"
            and event["type"] in ("callTools", "resolveToolResults")
            and event["stepNumber"] in (2, 3)
        ),
    }
    found = await asyncio.gather(*(told(cli, "--job", job, *words, "--take", "0") for words in is_kept))
    for (words, keeps), one in zip(is_kept.items(), found, strict=True):
        expected = [event for event in everything if keeps(event)]
        assert expected, words
        assert ids(one["events"]) == ids(expected), words
        assert one["summary"]["totalEvents"] == len(expected)
    errors = await told(cli, "--job", job, "--errors")
    assert (errors["events"], errors["summary"]["totalEvents"], errors["matchedAfterPagination"]) == ([], 0, 0)


@pytest.mark.requirement("interface.log-queries")
async def test_a_page_says_how_much_there_is_beyond_it(cli: Cli, model: ModelServer, model_env: dict[str, str]) -> None:
    job = (await parallel_job(cli, model, model_env)).events[0]["jobId"]
    words = ("--job", job, "--type", "startGeneration")
    one, context, cut, beyond, pretty = await asyncio.gather(
        told(cli, *words, "--take", "2", "--offset", "1"),
        told(cli, "--job", job, "--type", "callDelegate", "--context", "1"),
        cli.run("log", *words, "--take", "2", "--context", "1"),
        cli.run("log", *words, "--offset", "500"),
        cli.run("log", *words, "--pretty"),
    )
    count = one["totalEventsBeforeLimit"]
    assert count == one["summary"]["totalEvents"] > 4
    assert (len(one["events"]), one["matchedAfterPagination"]) == (2, 2)
    types = [event["type"] for event in context["events"]]
    assert (len(types), types[1], context["matchedAfterPagination"]) == (3, "callDelegate", 1)
    assert f"(showing 2 of {count} matched events (+4 context))" in cut.stdout
    assert "--take 0 shows all" in cut.stdout
    assert f"({count} events available, use --offset to view)" in beyond.stdout
    assert json.loads(pretty.stdout)["matchedAfterPagination"] == count
    assert '\n  "events": [\n    {\n      "type": "startGeneration"' in pretty.stdout
    assert (await cli.run("export", job, "-o", "job.json")).code == 0
    nowhere = {"TEMPORAL_ADDRESS": "127.0.0.1:1"}
    filed = await cli.run(
        "log", "--file", "job.json", *words[2:], "--take", "2", "--offset", "1", "--json", env=nowhere
    )
    in_file = json.loads(filed.stdout)
    assert (len(in_file["events"]), in_file["totalEventsBeforeLimit"]) == (2, count)
    assert {event["type"] for event in in_file["events"]} == {"startGeneration"}


@pytest.mark.requirement("interface.log-queries")
async def test_a_run_is_named_by_its_first_id_and_a_segment_of_it_by_a_later_one(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    result = await parallel_job(cli, model, model_env)
    job, resumed = result.events[0]["jobId"], result.of_type("resumeFromStop")[0]
    first = result.of_type("stopRunByDelegate")[0]["runId"]
    delegate = next(event for event in result.of_type("startRun") if event["expertKey"] == "@team/two")
    everything, whole, segment, one, latest, unknown = await asyncio.gather(
        told(cli, "--job", job, "--take", "0"),
        told(cli, "--job", job, "--run", first, "--take", "0"),
        told(cli, "--job", job, "--run", resumed["runId"]),
        told(cli, "--job", job, "--run", delegate["runId"]),
        told(cli, "--take", "1"),
        cli.run("log", "--job", job, "--run", "nosuchrun"),
    )
    events = everything["events"]
    assert ids(whole["events"]) == ids([event for event in events if event["runId"] in (first, resumed["runId"])])
    assert {event["runId"] for event in whole["events"]} == {first, resumed["runId"]}
    assert ids(segment["events"]) == ids([event for event in events if event["runId"] == resumed["runId"]])
    assert ids(one["events"]) == ids([event for event in events if event["runId"] == delegate["runId"]])
    runs = {run["runId"]: run for run in everything["runs"]}
    assert runs[first]["segments"] == [first, resumed["runId"]]
    assert (runs[delegate["runId"]]["expertKey"], runs[delegate["runId"]]["status"]) == ("@team/two", "completed")
    assert len(runs) == 4
    assert (latest["isLatestJob"], latest["job"]["id"]) == (True, job)
    assert "isLatestJob" not in everything
    assert (unknown.code, f"Run nosuchrun not found in job {job}" in unknown.stderr) == (2, True)


@pytest.mark.requirement("interface.log-queries")
async def test_a_checkpoint_is_shown_with_its_messages_and_the_events_of_its_run(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    result = await parallel_job(cli, model, model_env)
    job = result.events[0]["jobId"]
    done = next(event for event in result.of_type("completeRun") if event["expertKey"] == "@team/one")
    checkpoint = done["checkpoint"]
    one, everything, text, unknown = await asyncio.gather(
        told(cli, "--job", job, "--checkpoint", checkpoint["id"]),
        told(cli, "--job", job, "--take", "1"),
        cli.run("log", "--checkpoint", checkpoint["id"], "--messages"),
        cli.run("log", "--job", job, "--checkpoint", "nosuch"),
    )
    assert one["checkpoint"] == checkpoint
    assert {event["runId"] for event in one["events"]} == {done["runId"]}
    # A run that goes on after a stop tells the checkpoint of its step twice; what it has become counts.
    known = {event["checkpoint"]["id"]: event["checkpoint"] for event in result.events if "checkpoint" in event}
    assert {found["id"]: found for found in everything["checkpoints"]} == known
    assert len(everything["checkpoints"]) == len(known)
    lines = text.stdout.splitlines()
    at = lines.index(f"Checkpoint: {checkpoint['id']}")
    assert lines[at + 1 : at + 5] == ["  Status: completed", f"  Step: {done['stepNumber']}", "  Expert: @team/one",
                                      "Messages:"]  # fmt: skip
    assert "  [userMessage] task one" in lines
    assert any(line.startswith("  [expertMessage] ") and "(writeTextFile)" in line for line in lines)
    assert (unknown.code, f"Checkpoint nosuch not found in job {job}" in unknown.stderr) == (2, True)


async def test_the_text_shows_arguments_and_counts_where_they_are_asked_for(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    job = (await parallel_job(cli, model, model_env)).events[0]["jobId"]
    short, long = await asyncio.gather(
        cli.run("log", "--job", job, "--type", "callTools"),
        cli.run("log", "--type", "callTools", "--verbose", "--summary"),
    )
    assert "Args:" not in short.stdout
    assert "  Tools: writeTextFile, exec\n" in short.stdout
    assert "Summary:" not in short.stdout
    assert "latest" not in short.stdout
    assert (
        "Runs:\n"
        "⎇       team            go\n"
        "| \\ \\ \\\n"
        "| ✓ | | @team/one       task one\n"
        "| | ✓ | @team/two       task two\n"
        "| | | ✓ @team/three     task three\n"
        "| / / /\n"
        "✓       team (resumed)  go\n"
        "Usage:\n"
    ) in short.stdout
    assert "\n├ @team/one    claude-" in short.stdout
    assert long.stdout.startswith("(showing latest job)\nStorage: ")
    assert f"Job: {job} (completed)\n" in long.stdout
    assert '  [@perstack/base] writeTextFile\n    Args: {"path":"two.txt","text":"by two"}\n' in long.stdout
    assert "Summary:\n  Total Events: " in long.stdout
    assert "  Errors: 0\n" in long.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--step", "five"), "Invalid step filter: five"),
        (("--step", "7-3"), "Invalid step range: 7-3 (min 7 > max 3)"),
        (("--filter", "type == x"), "Invalid filter expression: type == x"),
        (("--filter", ".type =="), "Missing value in filter expression: .type =="),
        (("--take", "-1"), "Invalid value for --take: -1"),
        (("--offset", "x"), "Invalid value for --offset: x"),
        (("--context", "1.5"), "Invalid value for --context: 1.5"),
        (("--type", "completeRuns"), "Unknown event type in --type: completeRuns."),
        (("--messages",), "--messages requires --checkpoint"),
        (("--cassette", "--tools"), "--cassette tells a whole job"),
        (("--export", "--take", "1"), "--export tells a whole job"),
        (("--export", "--json"), "--export is another JSON than --json."),
        (("--cassette", "--export"), "--cassette is another JSON than --export."),
        (("--export", "--follow"), "--follow cannot be combined with --export."),
        (("--text", "--json"), "--text is no JSON."),
        (("--follow", "--take", "3", "--summary"), "--follow cannot be combined with --take, --summary"),
    ],
)
async def test_what_makes_no_sense_is_refused_before_anything_is_asked(
    cli: Cli, words: tuple[str, ...], message: str
) -> None:
    nowhere = {"TEMPORAL_ADDRESS": "127.0.0.1:1"}
    result = await cli.run("log", "--job", "any", *words, env=nowhere)
    assert (result.code, result.stdout) == (2, "")
    assert message in result.stderr


def asks_or_works(request: Request) -> Answer:
    """Asks a person, or just ends."""
    return Answer(calls=(Call(name="approve"),)) if "ask" in request.first_user_text else Answer(text="done")


@pytest.mark.requirement("interface.log-queries")
async def test_the_latest_job_is_the_one_started_last_though_an_older_one_is_still_open(
    cli: Cli, model: ModelServer, model_env: dict[str, str], temporal_program: Path, tmp_path: Path
) -> None:
    cli.write("perstack.toml", ASKING)
    model.script = asks_or_works
    async with own_server(temporal_program, tmp_path) as server:
        env = {**model_env, "TEMPORAL_ADDRESS": server.address}
        for words in ((), ("--json",), ("--follow",)):
            nothing = await cli.run("log", *words, env=env)
            assert (nothing.code, nothing.stdout) == (0, "No data found\n"), nothing.stderr
        for query, job, code in (("ask me", "older", 6), ("work", "between", 0), ("work", "newest", 0)):
            done = await cli.run("run", "solo", query, "--job-id", job, env=env)
            assert done.code == code, done.stderr
        latest = await cli.run("log", env=env)
        assert "Job: newest (completed)" in latest.stdout
        # A job that goes on is the latest again.
        assert (await cli.run("respond", "older", "yes", env=env)).code == 6
        again = await cli.run("run", "solo", "work on", "--continue-job", "between", env=env)
        assert again.code == 0, again.stderr
        assert "Job: between (completed)" in (await cli.run("log", env=env)).stdout


def stops_halfway(request: Request) -> Answer:
    """Works for one step, then says one half and waits for the test."""
    if request.turn == 1:
        return Answer(calls=(Call(name="writeTextFile", args={"path": "a.txt", "text": "a"}),))
    whole = f"{HALF} The second half."
    return Answer(text=whole, delta_size=len(HALF), after_events=4, then="hang", gate="rest")


@pytest.mark.requirement("interface.log-queries")
@pytest.mark.requirement("runtime.deltas")
async def test_following_shows_events_and_text_as_they_come_and_harms_nothing(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = stops_halfway
    async with cli.running("run", "solo", "go", "--job-id", "followed", env=model_env) as run:
        await run.seen("streamRunResult")
        async with (
            cli.running("log", "--job", "followed", "--follow", "--json") as lines,
            cli.running("log", "--follow", "--type", "completeRun") as end,
            cli.running("log", "--job", "followed", "--follow") as given_up,
        ):
            await lines.seen(HALF)
            await given_up.seen("[Step 2] startGeneration")
            given_up.interrupt()
            left = await cli.finished(given_up)
            gone = await cli.shell("perstack log --job followed --follow --json | head -n 1")
            assert not any("completeRun" in line for line in lines.lines)
            model.release("rest")
            whole, last, result = await cli.finished(lines), await cli.finished(end), await cli.finished(run)
    assert (result.code, whole.code, last.code) == (0, 0, 0), whole.stderr + last.stderr
    assert result.of_type("completeRun")[0]["text"] == f"{HALF} The second half."
    assert (left.code, "was only looked at" in left.stderr) == (130, True)
    assert len(gone.events) == 1
    live_only = {"streamRunResult", "skillStderr"}
    assert ids([event for event in whole.events if event["type"] not in live_only]) == ids(
        [event for event in result.events if event["type"] not in live_only]
    )
    assert "".join(event["delta"] for event in whole.of_type("streamRunResult")).startswith(HALF)
    assert "job followed has ended: completed" in whole.stderr
    assert last.stdout.startswith("(showing latest job)\nJob: followed\nExpert: solo\n")
    assert f"  Result: {HALF} The second half.\n" in last.stdout
    assert "startRun" not in last.stdout
    assert set(model.ledger.counts.values()) == {1}


async def test_following_a_job_that_waits_for_a_person_ends_with_the_question(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", ASKING)
    model.script = asks_or_works
    asked = await cli.run("run", "solo", "ask me", "--job-id", "waiting", env=model_env)
    assert asked.code == 6, asked.stderr
    followed, wrong = await asyncio.gather(
        cli.run("log", "--job", "waiting", "--follow"),
        cli.run("log", "--job", "waiting", "--follow", "--run", "nosuchrun"),
    )
    assert followed.code == 0, followed.stderr
    assert "  Asks: approve\n" in followed.stdout
    assert "perstack respond waiting TEXT" in followed.stderr
    assert (wrong.code, "Run nosuchrun not found in job waiting" in wrong.stderr) == (2, True)
