"""Where a definition is found. Loads no library: the shell asks for it while somebody types."""

import os
from pathlib import Path

CONFIG_NAME = "perstack.toml"


def find_config(cwd: Path) -> Path | None:
    """The nearest `perstack.toml` in `cwd` or above it."""
    start = Path(os.path.abspath(cwd))
    for folder in (start, *start.parents):
        # Unlike `Path.is_file`, this is False for a folder we may not look into.
        if os.path.isfile(folder / CONFIG_NAME):
            return folder / CONFIG_NAME
    return None
