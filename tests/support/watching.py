"""A job watched on the run screen, as a test looks at it."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from perstack.cli.tui.app import PerstackApp
from perstack.cli.tui.screens.run import RunScreen
from perstack.cli.tui.widgets.log import LogScroll
from textual.pilot import Pilot

from .screens import settled
from .scripted_backend import ScriptedBackend, ScriptedJob
from .shown_jobs import NOON

SMALL = (40, 20)
USUAL = (80, 24)
LARGE = (200, 50)


@dataclass
class Clock:
    """The time that a screen sees, in seconds since the epoch."""

    now: float = NOON / 1000 + 248

    def __call__(self) -> float:
        return self.now


def watching(job: ScriptedJob, *, clock: Callable[[], float] | None = None) -> PerstackApp:
    """The application with a job on the run screen; nothing in it moves by itself."""
    app = PerstackApp(ScriptedBackend(), RunScreen(job), clock=clock or Clock())
    app.animation_level = "none"
    return app


def picture(app: PerstackApp) -> str:
    """All that the terminal shows, as text."""
    strips = app.screen._compositor.render_strips()  # pyright: ignore[reportPrivateUsage]
    return "\n".join(strip.text.rstrip() for strip in strips)


@dataclass
class Watch:
    """A screen under test."""

    job: ScriptedJob
    app: PerstackApp
    pilot: Pilot[int]
    clock: Clock = field(default_factory=Clock)

    @property
    def screen(self) -> RunScreen:
        """The run screen, also below a dialog."""
        return next(screen for screen in self.app.screen_stack if isinstance(screen, RunScreen))

    @property
    def log(self) -> LogScroll:
        return self.screen.query_one(LogScroll)

    @property
    def picture(self) -> str:
        return picture(self.app)

    @property
    def lines(self) -> list[str]:
        return self.picture.split("\n")

    async def until(self, condition: Callable[[], bool]) -> None:
        await settled(self.pilot, condition)

    async def until_shown(self, *texts: str) -> None:
        """Wait until each of the texts is on the screen."""
        try:
            await self.until(lambda: all(text in self.picture for text in texts))
        except TimeoutError:
            missing = [text for text in texts if text not in self.picture]
            raise AssertionError(f"not shown: {missing}\n{self.picture}") from None

    async def until_asked(self, *texts: str) -> None:
        """Wait until a dialog with these texts takes an answer."""
        await self.until_shown(*texts, "Enter chooses")

    async def until_gone(self, text: str) -> None:
        """Wait until the text is not on the screen."""
        await self.until(lambda: text not in self.picture)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def write(self, text: str) -> None:
        """Type into what has the focus."""
        await self.pilot.press(*("space" if sign == " " else sign for sign in text))

    async def until_left(self) -> int | None:
        """Wait until the application ends; its exit code."""
        await self.until(lambda: not self.app.is_running or self.app.return_value is not None)
        return self.app.return_value


@asynccontextmanager
async def watched(job: ScriptedJob, *, size: tuple[int, int] = USUAL) -> AsyncGenerator[Watch]:
    """A job on the screen, once the screen has drawn what the job has told so far."""
    clock = Clock()
    app = watching(job, clock=clock)
    async with app.run_test(size=size, notifications=True) as pilot:
        watch = Watch(job, app, pilot, clock)
        await job.until_told()
        await settled(pilot, lambda: "Query:" in watch.picture)
        yield watch
