"""The demo: a whole create-expert job from its cassette, the team it writes at work in the same job, and back again."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from perstack.client.locations import DataFolder
from perstack.definitions.load import load_config
from support.cli import Cli, Result, command_env
from support.model_server import Answer, ModelServer, Request
from support.teams import PARALLEL_TEAM, parallel_team, who

# The job is played once; a second test process would play it again.
pytestmark = pytest.mark.xdist_group("demo")

EXAMPLE = Path(__file__).parents[2] / "examples/create-expert"
CASSETTE = EXAMPLE / "demo.cassette.json"
TEAM = ("intake", "summarize", "audit", "verify")
RUNS = Counter(
    {
        ("create-expert", None): 1,
        ("@create-expert/plan", "create-expert"): 1,
        ("@create-expert/write", "create-expert"): 2,
        ("@create-expert/verify", "create-expert"): 2,
        ("expense-report", "@create-expert/verify"): 2,
        **{(f"@expense-report/{name}", "expense-report"): 2 for name in TEAM},
    }
)


@dataclass(frozen=True)
class Demo:
    """One played demo: what it printed, where it worked, and the program to ask about it."""

    result: Result
    cli: Cli

    @property
    def job(self) -> str:
        return self.result.events[0]["jobId"]

    def texts(self, expert_key: str) -> list[str]:
        """The results of an expert's runs, in order."""
        return [e["text"] for e in self.result.of_type("completeRun") if e["expertKey"] == expert_key]


@pytest.fixture(scope="module")
def demo(server_data: DataFolder, temporal_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """What `make demo` runs, with no API key and an empty home folder; strict, which plain replay is a part of."""
    folder = tmp_path_factory.mktemp("demo")
    home = tmp_path_factory.mktemp("home")
    env = command_env(data=server_data.root, temporal=temporal_program, home=home)
    command = [sys.executable, "-P", str(EXAMPLE / "demo.py"), "--replay-strict"]
    done = subprocess.run(command, env={**env, "TMPDIR": str(folder)}, capture_output=True, text=True, timeout=90)
    (workspace,) = folder.iterdir()
    return Demo(Result(done.returncode, done.stdout, done.stderr), Cli(workspace, env))


def test_the_demo_plans_writes_and_verifies_a_team_and_succeeds_in_the_second_round(demo: Demo) -> None:
    assert demo.result.code == 0, demo.result.stderr
    assert [text.partition("\n")[0] for text in demo.texts("@create-expert/verify")] == ["CONTINUE", "PASS"]
    assert demo.result.of_type("completeRun")[-1]["expertKey"] == "create-expert"
    assert "perstack run expense-report" in demo.texts("create-expert")[0]


@pytest.mark.requirement("built-in.create-expert")
def test_the_written_team_runs_inside_the_same_job_under_the_expert_that_verifies_it(demo: Demo) -> None:
    started: Counter[tuple[str, str | None]] = Counter()
    for event in demo.result.of_type("startRun"):
        delegated_by = event["initialCheckpoint"].get("delegatedBy")
        started[event["expertKey"], delegated_by and delegated_by["expert"]["key"]] += 1
    assert started == RUNS
    assert {event["jobId"] for event in demo.result.events} == {demo.job}
    completed = Counter(event["expertKey"] for event in demo.result.of_type("completeRun"))
    assert completed == Counter(event["expertKey"] for event in demo.result.of_type("startRun"))


def test_the_team_reaches_its_result_by_tools_that_really_ran(demo: Demo) -> None:
    read_back: list[str] = [
        json.loads(result["result"][0]["text"]).get("output", "")
        for event in demo.result.of_type("resolveToolResults")
        for result in event["toolResults"]
        if event["expertKey"] == "@create-expert/verify" and result["toolName"] == "exec"
    ]
    assert read_back.count("| total | 591.60 |\n") == 2
    assert "| travel | 139.60 |" in (demo.cli.workspace / "create-expert-test/summary.md").read_text()


def test_the_written_plan_and_definition_are_complete_and_loadable(demo: Demo) -> None:
    plan = (demo.cli.workspace / "plan.md").read_text()
    assert re.findall(r"^## (.+)$", plan, re.MULTILINE) == [
        "Expert Purpose",
        "Domain Knowledge",
        "Use Cases",
        "Test Query",
        "Verification Signals",
        "Architecture",
    ]
    loaded = load_config("perstack.toml", cwd=demo.cli.workspace)
    keys = ("expense-report", *(f"@expense-report/{name}" for name in TEAM))
    assert loaded.own_experts == keys
    assert loaded.warnings == ()
    assert "with their sign" in loaded.toml.experts["@expense-report/summarize"].instruction


def test_stderr_shows_the_link_the_tree_and_the_files(demo: Demo) -> None:
    said = demo.result.stderr
    assert len(re.findall(rf"http://\S+/namespaces/default/workflows/{demo.job}/[0-9a-f-]+", said)) == 2
    assert f"perstack log --job {demo.job}" in said
    tree = [line.partition("claude-")[0].rstrip() for line in said.splitlines() if "✓" in line]
    assert tree[0] == "✓ create-expert"
    assert "│ └ ✓ expense-report" in tree
    assert tree[-1] == "    └ ✓ @expense-report/verify"
    assert len(tree) == RUNS.total()
    for name in ("plan.md", "perstack.toml", "create-expert-test/summary.md"):
        assert f"  {name}  " in said


async def test_the_log_of_a_replayed_job_shows_its_tree(demo: Demo) -> None:
    log = await demo.cli.run("log", "--job", demo.job)
    assert log.code == 0, log.stderr
    graph, _, used = log.stdout.partition("Events:")[0].partition("Runs:\n")[2].partition("Usage:\n")
    assert graph.startswith("⎇ ")
    assert re.search(r"^\| .*✓ .*@expense-report/verify ", graph, re.MULTILINE)
    assert re.search(r"^✓ +create-expert \(resumed\) ", graph, re.MULTILINE)
    assert "\n    └ @expense-report/verify  " in used


@pytest.mark.requirement("ours.cassette")
async def test_the_recording_of_a_replayed_job_is_the_cassette_it_was_played_from(demo: Demo) -> None:
    log = await demo.cli.run("log", "--job", demo.job, "--cassette")
    assert log.code == 0, log.stderr
    again, before = json.loads(log.stdout), json.loads(CASSETTE.read_text())
    assert os.path.samefile(again.pop("workspace"), demo.cli.workspace)
    del before["workspace"]
    assert again == before


@pytest.mark.requirement("ours.cassette")
async def test_a_run_that_leaves_its_cassette_stops_and_shows_both_sides(cli: Cli) -> None:
    cassette: dict[str, Any] = json.loads(CASSETTE.read_text())
    call = cassette["entries"][0]["reply"]["contents"][-1]
    assert call["toolName"] == "exec"
    call["toolName"] = "readTextFile"
    changed = cli.write("changed.json", json.dumps(cassette))
    result = await cli.run("run", "create-expert", cassette["query"], "--replay", str(changed))
    assert result.code == 1
    assert "left the recording at generation 2 of the root run (expert `create-expert`)" in result.stderr
    assert '  recorded: exec {"args": ["-A"], "command": "ls"' in result.stderr
    assert '  now:      readTextFile {"args": ["-A"], "command": "ls"' in result.stderr
    (failed,) = result.of_type("stopRunByError")
    assert failed["error"]["name"] == "cassette.diverged"


def two_answers_last(request: Request) -> Answer:
    """Delegate `two` is slow: its answers arrive after those of the others."""
    answer = parallel_team(request)
    if who(request) == "two" and request.turn == 1:
        return Answer(text=answer.text, calls=answer.calls, after_events=0, then="hang", gate="two")
    return answer


async def test_parallel_delegates_get_their_answers_by_place_and_not_by_order(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", PARALLEL_TEAM)
    model.script = two_answers_last
    async with cli.running("run", "team", "go", env=model_env) as running:
        await running.seen("completeRun", count=2)
        model.release("two")
        recorded = await cli.finished(running)
    log = await cli.run("log", "--job", recorded.events[0]["jobId"], "--cassette")
    cassette: dict[str, Any] = json.loads(log.stdout)
    cassette["entries"].reverse()
    result = await cli.run("run", "team", "go", "--replay", str(cli.write("reversed.json", json.dumps(cassette))))
    assert result.code == 0, result.stderr
    texts = {event["expertKey"]: event["text"] for event in result.of_type("completeRun")}
    assert texts == {
        "team": "all: one done | two done | three done",
        **{f"@team/{name}": f"{name} done" for name in ("one", "two", "three")},
    }
