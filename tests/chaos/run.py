"""`make chaos`: every drill at random points, and a table of what came of them.

`make chaos SEED=7 DRILL=cancel POINT=3` plays one point again; the seed of a run is its first line.
"""

import argparse
import asyncio
import os
import secrets
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from chaos.harness import Drill, Ground, Outcome, play_all, table
from chaos.registry import DRILLS
from perstack.client.binary import find_binary

BUSY_AT_ONCE = 5
"""Points at a time of the drills that keep the processors busy: two have always something to do then."""
IDLE_AT_ONCE = 4
"""The same of those that mostly wait."""


def told(text: str) -> None:
    """Show a line as it comes."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def main(seed: int, drills: list[Drill], points: int | None, point: int | None) -> bool:
    """Play the drills and print the table; whether everything held."""
    program = find_binary()
    assert program is not None, "no `temporal` program: run `make temporal`"
    begun = time.monotonic()
    told(f"SEED={seed}")
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        # Whoever ends the drills ends what they have started, too.
        loop.add_signal_handler(number, task.cancel)
    with tempfile.TemporaryDirectory(prefix="perstack-chaos-") as folder:
        ground = Ground(Path(folder), program, seed)

        async def played(drill: Drill, turn: asyncio.Semaphore) -> Outcome:
            numbers = [point] if point is not None else list(range(_points_of(drill, points)))
            outcome = await play_all(ground, drill, numbers, turn=turn, told=told)
            for broken in outcome.broken_limits:
                told(f"FAILED {drill.name}: {broken}; to see it again: make chaos SEED={seed} DRILL={drill.name}")
            told(f"{outcome.row()}  ({(time.monotonic() - begun) / 60:.1f} min)")
            return outcome

        busy, idle = asyncio.Semaphore(BUSY_AT_ONCE), asyncio.Semaphore(IDLE_AT_ONCE)
        shared = [played(drill, idle if drill.is_idle else busy) for drill in drills if not drill.alone]
        outcomes = await asyncio.gather(*shared)
        outcomes.extend([await played(drill, asyncio.Semaphore(drill.alone)) for drill in drills if drill.alone])
    outcomes.sort(key=lambda outcome: drills.index(outcome.drill))
    minutes = (time.monotonic() - begun) / 60
    held = all(outcome.holds for outcome in outcomes)
    told(f"\n{table(outcomes)}\n")
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    told(f"{when}, SEED={seed}, {os.cpu_count()} cores, {minutes:.1f} minutes: {'all held' if held else 'FAILED'}")
    return held


def _points_of(drill: Drill, wanted: int | None) -> int:
    """What was asked for; what is long is played as often as ever."""
    return drill.points if wanted is None or drill.is_long else wanted


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Drills: kill, cut, cancel, and see that nothing is lost.")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--drill", choices=sorted(DRILLS), action="append", help="only this one; repeatable")
    parser.add_argument("--points", type=int, help="how many points of each drill")
    parser.add_argument("--point", type=int, help="only this point")
    given = parser.parse_args()
    chosen = [drill for name, drill in DRILLS.items() if not given.drill or name in given.drill]
    try:
        code = 0 if asyncio.run(main(given.seed, chosen, given.points, given.point)) else 1
    except asyncio.CancelledError:
        code = 130
    sys.stdout.flush()
    # As a command of ours leaves: the SDK's native threads may crash the interpreter's exit.
    os._exit(code)
