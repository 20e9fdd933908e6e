"""Replaces itself by a program that is told to end when its parent dies, however the parent dies.

Runs as a script before `exec`, so no Python code has to run between `fork` and `exec` of the parent.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def tethered(*command: str) -> list[str]:
    """The command line that runs `command` tied to this process; only Linux can tie."""
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main() -> None:
    """Ask the kernel for the signal, then become the program."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM))
    # A parent that died before the request would never be reported.
    if os.getppid() != parent:
        sys.exit("the parent is gone")
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
