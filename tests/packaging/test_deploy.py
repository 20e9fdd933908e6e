"""The scripts of `deploy/` on a real server."""

import asyncio
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

from perstack.client.connection import SEARCH_ATTRIBUTES
from support.cli import Cli, RunningCli

DEPLOY = Path(__file__).parents[2] / "deploy"
LONGEST_SECONDS = 60


def address_of(running: RunningCli) -> str:
    """The address of the server, as the command told it."""
    found = re.search(r"127\.0\.0\.1:\d+", "".join(running.errors))
    assert found, running.errors
    return found[0]


async def finished(*command: str | Path, env: dict[str, str]) -> tuple[int, str]:
    """Exit code and output of a program."""
    process = await asyncio.create_subprocess_exec(
        *command, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(LONGEST_SECONDS):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_the_healthcheck_is_green_for_the_queue_that_a_worker_serves_and_red_for_another(cli: Cli) -> None:
    queue = f"health-{uuid.uuid4().hex}"
    async with cli.running("worker", "--task-queue", queue) as running:
        await running.seen(f"serving {queue} at ")
        env = {**cli.env, "TEMPORAL_ADDRESS": address_of(running)}
        check = (sys.executable, "-P", DEPLOY / "healthcheck.py")
        async with asyncio.timeout(LONGEST_SECONDS):
            while (await finished(*check, queue, env=env))[0] != 0:
                pass  # Temporal learns of the worker with its first poll; the check itself takes half a second
        code, said = await finished(*check, f"{queue}-other", env=env)
        assert code == 1
        assert said.startswith("no worker of ")
    code, said = await finished(*check, queue, env={**env, "TEMPORAL_ADDRESS": "127.0.0.1:1"})
    assert code == 1
    assert "Connection refused" in said


async def test_the_namespace_script_may_run_twice_and_registers_the_query_only_on_demand(
    cli: Cli, temporal_program: Path, tmp_path: Path
) -> None:
    namespace = f"deploy-{uuid.uuid4().hex}"
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "temporal"
    program.symlink_to(temporal_program)
    async with cli.running("dev") as running:
        await running.seen("Temporal server: ")
        env = {
            **cli.env,
            "PATH": f"{program.parent}{os.pathsep}{cli.env['PATH']}",
            "TEMPORAL_ADDRESS": address_of(running),
            "TEMPORAL_NAMESPACE": namespace,
            "TEMPORAL_RETENTION": "30d",
        }
        for shown in ("0", "1"):
            script = ("sh", DEPLOY / "setup-namespace.sh")
            code, said = await finished(*script, env={**env, "PERSTACK_SHOW_QUERIES": shown})
            assert code == 0, said
            listed = await finished(program, "operator", "search-attribute", "list", "-n", namespace, env=env)
            found = set(re.findall(r"\bPerstack\w+", listed[1]))
            assert found == set(SEARCH_ATTRIBUTES) - ({"PerstackQuery"} if shown == "0" else set())
        _, described = await finished(program, "operator", "namespace", "describe", "-n", namespace, env=env)
    assert re.search(r"RetentionTtl\s+720h", described)


def test_the_database_script_prepares_both_databases_with_the_schemas_of_the_image(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    tool = tmp_path / "temporal-sql-tool"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    tool.chmod(0o755)
    env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "POSTGRES_SEEDS": "db", "POSTGRES_USER": "temporal"}
    subprocess.run(["sh", DEPLOY / "setup-database.sh"], env=env, check=True)
    common = "--plugin postgres12 --ep db -p 5432 -u temporal --db"
    schemas = "/etc/temporal/schema/postgresql/v12"
    assert calls.read_text().splitlines() == [
        f"{common} {database} {step}"
        for database, folder in (("temporal", "temporal"), ("temporal_visibility", "visibility"))
        for step in ("create", "setup-schema -v 0.0", f"update-schema -d {schemas}/{folder}/versioned")
    ]
