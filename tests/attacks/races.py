"""Attacks that change the tree while a tool looks at it: at every single step, and from a thread that never rests."""

import itertools
import os
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from attacks.arena import TOOLS, Arena, Tool
from perstack.activities.skills.base import workspace

STEPS = frozenset({"open", "stat", "fstat", "readlink", "replace", "mkdir", "fchmod"})
"""Calls between which the tree may change."""
MAX_STEPS = 200
THREAD_TURNS = {"exec": 20}
"""Calls of a tool while a thread turns things around; a process costs more than the others."""
_TURNS = 60

Lay = Callable[[Arena, Path, str], None]
"""Makes the evil thing at a path, for the file a tool is after."""


def link_outside(arena: Arena, place: Path, leaf: str) -> None:
    place.symlink_to(arena.outside / leaf)


def relative_link_outside(arena: Arena, place: Path, leaf: str) -> None:
    place.symlink_to(Path("../outside") / leaf)


def link_to_hidden(arena: Arena, place: Path, leaf: str) -> None:
    place.symlink_to(Path("perstack") / leaf)


def hard_link_to_hidden(arena: Arena, place: Path, leaf: str) -> None:
    place.hardlink_to(arena.root / "perstack" / leaf)


def hard_link_to_env_file(arena: Arena, place: Path, leaf: str) -> None:
    place.hardlink_to(arena.root / ".env")


def fifo(arena: Arena, place: Path, leaf: str) -> None:
    os.mkfifo(place)


def real_folder(arena: Arena, place: Path) -> None:
    place.mkdir()
    arena.fill(place, is_bait=True)


def link_inside(arena: Arena, place: Path) -> None:
    place.symlink_to(arena.root / "a")


@dataclass(frozen=True)
class Swap:
    """Something innocent that becomes something evil, and back."""

    name: str
    evil: Lay
    innocent: Callable[[Arena, Path], None] | None = None
    """Makes a folder; a file, as the tool wants it, if left out."""
    tools: frozenset[str] | None = None

    def lay(self, arena: Arena, number: int, leaf: str) -> tuple[str, Callable[[], None]]:
        """The path for the tool and what turns one thing into the other."""
        place, other, aside = (arena.root / f"{prefix}{number}" for prefix in ("x", "evil", "aside"))
        if self.innocent is None:
            place.write_bytes((arena.root / leaf).read_bytes())
            self.evil(arena, other, leaf)
        else:
            self.innocent(arena, place)
            self.evil(arena, other, "")

        def turn() -> None:
            os.rename(place, aside)
            os.rename(other, place)
            os.rename(aside, other)

        return (place.name if self.innocent is None else os.path.join(place.name, leaf)), turn


SWAPS = (
    Swap("a file for a link outside", link_outside),
    Swap("a file for a relative link outside", relative_link_outside),
    Swap("a file for a link to the hidden folder", link_to_hidden),
    Swap("a file for a hard link to the hidden folder", hard_link_to_hidden),
    Swap(
        "a file for a hard link to an env file",
        hard_link_to_env_file,
        tools=frozenset({"readTextFile", "editTextFile"}),
    ),
    Swap("a file for a pipe", fifo),
    Swap("a folder for a link outside", link_outside, real_folder),
    Swap("a folder for a link to the hidden folder", link_to_hidden, real_folder),
    Swap("a link inside for a link outside", link_outside, link_inside),
    Swap("a link inside for a relative link outside", relative_link_outside, link_inside),
)


def _fits(swap: Swap, tool: Tool) -> bool:
    if swap.tools is not None and tool.name not in swap.tools:
        return False
    return swap.innocent is not None or tool.leaf.startswith("canary")


@dataclass(frozen=True)
class SteppedRace:
    """The swap before each step of the tool, and back before the next one or never."""

    swap: Swap
    tool: Tool

    def __str__(self) -> str:
        return f"{self.tool}: {self.swap.name}, at every step"

    async def run(self, arena: Arena) -> list[str]:
        """What came of it."""
        found: list[str] = []
        numbers = itertools.count()
        async with arena.open():
            for is_back in (False, True):
                for step in range(1, MAX_STEPS):
                    path, turn = self.swap.lay(arena, next(numbers), self.tool.leaf)
                    turns = {step, step + 1} if is_back else {step}
                    with stepped(turns, turn) as taken:
                        found += [f"{damage} (step {step})" for damage in await arena.attack(self.tool, path)]
                    if taken() < step:
                        break
                else:
                    found.append("never came to an end")
        return found


@dataclass(frozen=True)
class ThreadRace:
    """The swap, again and again, by a thread that does not wait for anybody."""

    swap: Swap
    tool: Tool

    def __str__(self) -> str:
        return f"{self.tool}: {self.swap.name}, by a thread"

    async def run(self, arena: Arena) -> list[str]:
        """What came of it."""
        found: list[str] = []
        path, turn = self.swap.lay(arena, 0, self.tool.leaf)
        stop = threading.Event()

        def race() -> None:
            while not stop.is_set():
                try:
                    turn()
                except OSError:  # the tool put a file of its own there
                    return

        async with arena.open():
            racer = threading.Thread(target=race)
            racer.start()
            try:
                for _ in range(THREAD_TURNS.get(self.tool.name, _TURNS)):
                    found += await arena.attack(self.tool, path)
            finally:
                stop.set()
                racer.join()
        return found


class _SteppedOs:
    """The module `os`, with something that happens before some of its calls."""

    def __init__(self, turns: set[int], turn: Callable[[], None]) -> None:
        self.count = 0
        self._turns = turns
        self._turn = turn

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in STEPS:
            return real

        def step(*args: Any, **more: Any) -> Any:
            self.count += 1
            if self.count in self._turns:
                self._turn()
            return real(*args, **more)

        return step


@contextmanager
def stepped(turns: set[int], turn: Callable[[], None]) -> Generator[Callable[[], int]]:
    """Run `turn` before each of the workspace's calls whose number is in `turns`; gives their count."""
    counting = _SteppedOs(turns, turn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workspace, "os", counting)
        yield lambda: counting.count


def stepped_races() -> Iterator[SteppedRace]:
    """Every swap for every tool it fits."""
    return (SteppedRace(swap, tool) for swap in SWAPS for tool in TOOLS if _fits(swap, tool))


def thread_races() -> Iterator[ThreadRace]:
    """Every swap for a tool that reads, one that writes, and one that runs."""
    names = ("readTextFile", "writeTextFile", "editTextFile", "exec")
    return (ThreadRace(swap, tool) for swap in SWAPS for tool in TOOLS if str(tool) in names and _fits(swap, tool))
