"""`python -m perstack` and the `perstack` command."""

import os
import signal
from types import FrameType

_INTERRUPTED = 130


def main() -> None:
    """The entry point of the `perstack` command."""
    # Half a second of imports: somebody who has thought better of it wants no stack trace of them.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from .cli.app import main as command

    command()


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
