"""Secrets that tests give to the program, and the search for them where none may ever be."""

from collections.abc import Iterator
from pathlib import Path

from .provider_rows import KEY

MODEL_KEY = "sk-ant-test-key-0123456789"
"""The key of the scripted model."""
CANARY = "canary-7f3a91c2d4e8-never-recorded"
"""Stands for any other secret: a test may put it wherever a user would keep one."""
PLANTED = (KEY, MODEL_KEY, CANARY)


def found_in(folder: Path) -> Iterator[str]:
    """Each planted secret that stands in a file below `folder`, with the file."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            yield from (f"{secret} in {path.name}" for secret in PLANTED if secret.encode() in content)
