"""A real terminal: a program in a tmux server of its own, its screen as text, keys as a person types them."""

import asyncio
import os
import re
import shutil
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from support.cli import PROGRAM

LONGEST_SECONDS = 60.0
_LOOK_SECONDS = 0.05
_SETTINGS = """
set -g status off
set -g remain-on-exit on
set -g escape-time 0
set -g default-terminal tmux-256color
set -g history-limit 5000
"""
_ENDED = re.compile(r"^left with (\d+)$", re.MULTILINE)
# What a shell does: it waits for the program, and has a line for the next command.
_SHELL = """
"$@"
printf 'left with %s\\n' $?
stty -a | grep -o -E -- '-?(icanon|echo|isig)( |;|$)'
echo 'that is all'
exec cat
"""


@dataclass(frozen=True)
class Tmux:
    """A terminal with one program in it, as in a shell."""

    program: str
    folder: Path
    socket: str
    env: Mapping[str, str]

    async def run(self, *arguments: str) -> str:
        """One tmux command."""
        process = await asyncio.create_subprocess_exec(
            self.program,
            "-L",
            self.socket,
            "-f",
            str(self.folder / "tmux.conf"),
            *arguments,
            env=self.env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        stdout, stderr = await process.communicate()
        assert process.returncode == 0, f"tmux {' '.join(arguments)}: {stderr.decode().strip()}"
        return stdout.decode()

    async def text(self, *, has_styles: bool = False) -> str:
        """What stands on the screen, without the blanks at the ends of lines."""
        shown = await self.run("capture-pane", "-p", *(["-e"] if has_styles else []))
        return "\n".join(line.rstrip() for line in shown.splitlines())

    async def whole(self) -> str:
        """The same with what has scrolled away; long lines are put together."""
        return await self.run("capture-pane", "-p", "-J", "-S", "-")

    async def until(self, is_there: str | Callable[[str], object], *, seconds: float = LONGEST_SECONDS) -> str:
        """Wait for a text on the screen, or for what a function says of it; the screen then."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            text = await self.text()
            if (is_there in text) if isinstance(is_there, str) else is_there(text):
                return text
            assert asyncio.get_running_loop().time() < deadline, f"it did not come: {is_there}\n{text}"
            await asyncio.sleep(_LOOK_SECONDS)

    async def still(self, *, seconds: float = LONGEST_SECONDS) -> str:
        """The screen once it has stopped changing for a moment."""
        deadline = asyncio.get_running_loop().time() + seconds
        before, same = "", 0
        while same < 6:
            text = await self.text()
            same = same + 1 if text == before else 0
            before = text
            assert asyncio.get_running_loop().time() < deadline, f"it does not come to rest\n{text}"
            await asyncio.sleep(_LOOK_SECONDS)
        return before

    async def press(self, *keys: str) -> None:
        """Keys by tmux's names: `Enter`, `Escape`, `Down`, `C-c`, `a`."""
        await self.run("send-keys", *keys)

    async def write(self, text: str) -> None:
        """Text as it is."""
        await self.run("send-keys", "-l", text)

    async def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size."""
        await self.run("resize-window", "-x", str(columns), "-y", str(lines))

    async def left(self, *, seconds: float = LONGEST_SECONDS) -> int:
        """Wait until the program has ended; its exit code. The terminal has to be as it was before."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not (found := _ENDED.search(await self.whole())):
            assert asyncio.get_running_loop().time() < deadline, f"it does not leave\n{await self.text()}"
            await asyncio.sleep(_LOOK_SECONDS)
        text = await self.until("that is all", seconds=10)
        modes = text[text.rindex("left with") :].replace(";", "").split()
        assert {"icanon", "echo", "isig"} <= set(modes), modes
        state = await self.run("display-message", "-p", "#{alternate_on} #{cursor_flag} #{mouse_any_flag}")
        assert state.split() == ["0", "1", "0"], "the terminal is not as it was"
        return int(found[1])

    async def said(self) -> str:
        """What the program said on the plain screen, by the time it has left."""
        return _ENDED.split(await self.whole())[0].replace("\n", " ")

    async def program_pid(self) -> int:
        """The process of the program: the only child of the shell."""
        shell = (await self.run("display-message", "-p", "#{pane_pid}")).strip()
        children = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
        assert len(children) == 1, children
        return int(children[0])


@asynccontextmanager
async def terminal(
    folder: Path,
    arguments: Sequence[str | Path],
    *,
    workspace: Path,
    env: Mapping[str, str],
    size: tuple[int, int] = (80, 24),
    runner: Sequence[str | Path] = (PROGRAM,),
) -> AsyncGenerator[Tmux]:
    """`perstack` with these arguments in a terminal of that size; all of it has ended when the block ends."""
    program = shutil.which("tmux")
    assert program is not None, "the tests of screens need a real terminal: install tmux"
    (folder / "tmux.conf").write_text(_SETTINGS)
    # Of a socket's path only some hundred characters are allowed.
    tmux = Tmux(program, folder, f"perstack-{os.getpid()}-{uuid.uuid4().hex[:8]}", dict(env))
    columns, lines = size
    place = ["-x", str(columns), "-y", str(lines), "-c", str(workspace)]
    await tmux.run("new-session", "-d", *place, "sh", "-c", _SHELL, "sh", *map(str, (*runner, *arguments)))
    try:
        yield tmux
    finally:
        await tmux.run("kill-server")
