"""Skills that are MCP servers of others, as processes or on the network; none of them is trusted."""

import importlib
import threading


def load() -> None:
    """Import what speaks MCP, which takes over half a second; may be done in a thread."""
    importlib.import_module(".skill", __package__)


def warm_up() -> None:
    """Start that in the background, before a run needs it."""
    threading.Thread(target=load, daemon=True).start()
