"""`perstack run` from the outside: a real process, a real Temporal server, a real HTTP model."""

from support.cli import Cli
from support.messages_server import MessagesServer
from support.teams import PARALLEL_TEAM, parallel_team


async def test_three_delegates_with_tools_work_in_parallel_in_one_job(
    cli: Cli, model: MessagesServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", PARALLEL_TEAM)
    model.script = parallel_team
    result = await cli.run("run", "team", "go", env=model_env)
    assert result.code == 0, result.stderr
    final = result.of_type("completeRun")[-1]
    assert final["expertKey"] == "team"
    assert final["text"] == "all: one done | two done | three done"
    assert {e["jobId"] for e in result.events} == {final["jobId"]}
    assert len(result.of_type("completeRun")) == 4
    assert (cli.workspace / "two.txt").read_text() == "by two"
