"""How every command begins and ends: one loop, errors as sentences, and a way out that native threads cannot spoil."""

import asyncio
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, NoReturn

from ..core.failures import PerstackError
from .diagnostics import ExitCode, complain, exit_code_of, share_stderr, show_error
from .spinner import room


def leave(code: int) -> NoReturn:
    """Flush and end the process at once: the SDK's native threads crash one interpreter exit in twelve."""
    with room():
        for stream in (sys.stdout, sys.stderr):
            with suppress(BrokenPipeError, ValueError):
                stream.flush()
        os._exit(code)


def run_command(command: Callable[[], Coroutine[Any, Any, ExitCode]], *, is_verbose: bool = False) -> NoReturn:
    """Run an asynchronous command and leave with its exit code."""
    if is_verbose:
        form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=form)
        share_stderr()
        for talkative in ("httpx2", "httpcore2", "mcp"):
            # They quote whole addresses and what servers say, secrets included.
            logging.getLogger(talkative).setLevel(logging.WARNING)
    else:
        # What libraries log is no talk of ours; without any handler Python would print their warnings.
        logging.getLogger().addHandler(logging.NullHandler())
        # Of calls that were given up when a worker left, for one.
        warnings.filterwarnings("ignore", module="temporalio")
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # From here on Ctrl-C ends the command in good order; until now it left at once.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = asyncio.run(command())
    except PerstackError as error:
        show_error(error)
        code = exit_code_of(error)
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except Exception as error:
        complain(f"this is a bug in Perstack: {type(error).__name__}: {error}")
        traceback.print_exc()
        code = ExitCode.FAILED
    leave(code)


class Interruption:
    """The first Ctrl-C (or SIGTERM) sets an event, the second ends the process at once."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()

    def install(self) -> None:
        """Listen from now on."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled)

    async def lets_finish(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do `work` until somebody interrupts; whether it came to its end."""
        working = asyncio.create_task(work)
        interrupted = asyncio.create_task(self.requested.wait())
        await asyncio.wait((working, interrupted), return_when=asyncio.FIRST_COMPLETED)
        interrupted.cancel()
        if not working.done():
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working
            return False
        await working
        return True

    def _signalled(self) -> None:
        if self.requested.is_set():
            leave(ExitCode.INTERRUPTED)
        self.requested.set()
