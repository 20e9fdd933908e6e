"""The run screen with 10 000 activities: time to take them, delay of a key, memory. No server, no model."""

import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Awaitable
from pathlib import Path

from perstack.core.events import StartGeneration
from perstack.core.view_state import ViewState

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.scripted_backend import ScriptedJob, says
from support.shown_jobs import long_job
from support.watching import Watch, watched

STEPS, CALLS = 1_000, 10
SIZE = (120, 40)
DELTAS_A_SECOND = 100


def resident() -> float:
    """Megabytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


async def delays(watch: Watch, *keys: str, count: int) -> str:
    """From a key to the picture that shows what it did, in milliseconds."""
    taken: list[float] = []
    for number in range(count):
        drawn, place = asyncio.Event(), (watch.log.scroll_y, watch.log.mounted_rows[:1])
        begun = time.perf_counter()
        watch.app.simulate_key(keys[number % len(keys)])
        while (watch.log.scroll_y, watch.log.mounted_rows[:1]) == place and time.perf_counter() - begun < 1:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0)
        watch.app.screen.call_after_refresh(drawn.set)
        await drawn.wait()
        taken.append((time.perf_counter() - begun) * 1000)
        await asyncio.sleep(0.02)
    taken.sort()
    return f"{statistics.median(taken):5.1f} (95 %: {taken[int(count * 0.95)]:.1f}, most: {taken[-1]:.1f})"


async def stalls(longest: list[float]) -> None:
    """Note, in milliseconds, for how long nothing else got a turn."""
    while True:
        begun = time.perf_counter()
        await asyncio.sleep(0.005)
        longest.append((time.perf_counter() - begun - 0.005) * 1000)


async def stream(job: ScriptedJob, watch: Watch) -> None:
    """A model that writes without end."""
    place = next(event for event in reversed(job.items) if isinstance(event, StartGeneration))
    attempt = 0
    while True:
        attempt += 1
        for event in says(place, "a few more words of a text that goes on "):
            await job.play(event.model_copy(update={"id": f"{event.id}-{attempt}"}))
        await asyncio.sleep(1 / DELTAS_A_SECOND)


async def measured(name: str, figure: Awaitable[str]) -> None:
    print(f"{name:44} {await figure}")


async def main() -> None:
    events = long_job(STEPS, CALLS)
    gc.collect()
    gc.freeze()  # what made the events is no part of the screen
    begun, before = time.perf_counter(), resident()
    view = ViewState()
    for event in events:
        view.feed(event)
    print(f"{'events, activities':44} {len(events)}, {len(view.log)}")
    print(f"{'the reducer alone, ms':44} {(time.perf_counter() - begun) * 1000:5.0f}")
    del view
    last = max(at for at, event in enumerate(events) if event.type == "startGeneration")
    job = ScriptedJob(events[: last + 1])
    begun = time.perf_counter()
    longest: list[float] = []
    watching = asyncio.create_task(stalls(longest))
    async with watched(job, size=SIZE) as watch:
        await watch.until(lambda: len(watch.screen.view.log) >= STEPS * CALLS - CALLS)
        whole = (time.perf_counter() - begun) * 1000
        watching.cancel()
        print(f"{'taken and shown, ms (longest stall)':44} {whole:5.0f} ({max(longest):.0f})")
        print(f"{'memory for it, MB':44} {resident() - before:5.0f}")
        for keys, count in ((("up",), 100), (("pageup",), 50), (("pagedown",), 40), (("home", "end"), 10)):
            await measured(f"{', '.join(keys)}, ms", delays(watch, *keys, count=count))
        streaming = asyncio.create_task(stream(job, watch))
        await measured(f"up while {DELTAS_A_SECOND} pieces of text a second come, ms", delays(watch, "up", count=100))
        streaming.cancel()
        for width in (80, 40, 200):
            begun = time.perf_counter()
            await watch.pilot.resize_terminal(width, SIZE[1])
            await watch.pilot.pause()
            print(f"{f'resize to {width} columns, ms':44} {(time.perf_counter() - begun) * 1000:5.0f}")


if __name__ == "__main__":
    asyncio.run(main())
