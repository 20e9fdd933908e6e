"""Perstack for Python on Temporal: teams of micro-agents as durable workflows."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core.run import RunInput, RunResult
    from .plugin import PerstackPlugin
    from .workflows.calling import run_expert

__version__ = "0.1.0"
__all__ = ["PerstackPlugin", "RunInput", "RunResult", "__version__", "run_expert"]

_PLACES = {
    "PerstackPlugin": "plugin",
    "RunInput": "core.run",
    "RunResult": "core.run",
    "run_expert": "workflows.calling",
}


def __getattr__(name: str) -> Any:
    # Looked up when somebody asks: the version alone, and `perstack --help`, load no library.
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{place}", __name__), name)
