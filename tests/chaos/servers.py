"""The Temporal server dies under a run, with or without its supervisor, and comes back."""

import os
import random
import signal
import time
import uuid
from collections import Counter

from chaos.claims import completed, effects_once
from chaos.harness import Drill, Report
from chaos.lab import LONGEST_SECONDS, Lab, Moment, until
from chaos.teams import SOLO, TEAM
from perstack.client.record import read_record
from perstack.client.supervisor import is_listening
from support.cli import RunningCli


async def killed(lab: Lab, chance: random.Random) -> Report:
    """Kill the server, or its supervisor and with it the server, while a command works."""
    team = chance.choice((SOLO, TEAM))
    lab.use(team)
    job_id = f"server-{uuid.uuid4().hex[:8]}"
    moment = Moment.chosen(chance, team)
    with_supervisor = chance.random() < 0.3
    outages: list[tuple[float, float]] = []
    async with lab.command("run", team.root, "go", "--job-id", job_id) as run:
        if await lab.reach(moment, run):
            outages.append(await _kill_server(lab, run, with_supervisor=with_supervisor))
        last = await lab.finished(run)
    log, _, repeated = await completed(lab, job_id, team, outages=outages, last=last)
    what = "supervisor and server" if with_supervisor else "server"
    return Report(
        f"{what} killed {moment}, {team.root}",
        seconds={"server back after": [over - begun for begun, over in outages]},
        counts=Counter({"model call repeated": repeated, "lost command reported": effects_once(lab, log)}),
    )


async def _kill_server(lab: Lab, run: RunningCli, *, with_supervisor: bool) -> tuple[float, float]:
    """From the kill to the first moment at which somebody listens again on the server's port.

    Or to the end of the run: one that had heard everything already needs no server any more.
    """
    record = read_record(lab.data.record)
    assert record is not None
    begun = time.time()
    if with_supervisor:
        os.kill(record.supervisor_pid, signal.SIGKILL)
    os.kill(record.pid, signal.SIGKILL)

    def is_back() -> bool:
        if run.process.returncode is not None:
            return True
        fresh = read_record(lab.data.record)
        return fresh is not None and fresh.pid != record.pid and bool(fresh.version) and is_listening(fresh.port)

    await until(is_back, LONGEST_SECONDS)
    return begun, time.time()


DRILLS = (
    Drill(
        "server-killed",
        "kill -9 of the Temporal server, it comes back: nothing is lost",
        killed,
        has_own_server=True,
    ),
)
