"""What the shell offers while somebody types: keys of experts and ids of jobs. Quick, silent, and it starts nothing."""

import hashlib
import json
import os
import re
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

import typer

from ..core.ids import is_job_id, parse_expert_key
from ..definitions.place import CONFIG_NAME, find_config

LONGEST_SECONDS = 2.0
"""A server that takes longer is not waited for."""
FRESH_SECONDS = 5.0
"""How long a list of jobs is offered again without asking the server."""
TAKE = 100
_LONGEST_WORDS = 60
_PLACE = (
    "TEMPORAL_ADDRESS",
    "TEMPORAL_NAMESPACE",
    "TEMPORAL_PROFILE",
    "TEMPORAL_CONFIG_FILE",
    "PERSTACK_DATA_DIR",
    "PERSTACK_SANDBOX",
)
"""The settings that decide which server is asked; none of them is a secret."""

Offer = tuple[str, str]
"""What may be typed, and what it is."""
JobKind = Literal["any", "open", "waiting", "unfinished"]


def complete(app: Callable[[], Any]) -> NoReturn:
    """Answer the shell; whatever goes wrong, it gets an answer without a word on the terminal."""
    if os.environ.get("_PERSTACK_COMPLETE", "").startswith("complete"):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    code: object = 1
    try:
        app()
    except SystemExit as end:
        code = end.code
    except Exception:
        code = 1
    with suppress(OSError):
        sys.stdout.flush()
    # Native threads of Temporal's library spoil an orderly exit now and then.
    os._exit(code if isinstance(code, int) else 0)


def expert_keys(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """The experts of the definition in use, then the built-in ones; those of a scope once `@` is typed."""
    config = ctx.params.get("config")
    path = Path(config) if isinstance(config, str) else find_config(Path.cwd())
    found = dict(_experts(path)) if path is not None else {}
    built_in = files(f"{str(__package__).rpartition('.')[0]}.definitions")
    for folder in built_in.iterdir():
        with suppress(OSError):
            found = dict(_experts_of((folder / CONFIG_NAME).read_text("utf-8"))) | found
    is_scoped = incomplete.startswith("@")
    return [
        (key, _words(text))
        for key, text in found.items()
        if key.startswith(incomplete) and (is_scoped or not key.startswith("@")) and parse_expert_key(key) is not None
    ]


def job_ids(ctx: typer.Context, incomplete: str, kind: JobKind) -> list[Offer]:
    """The jobs of the server in use, if it runs, that a command makes sense for."""
    address = ctx.params.get("address")
    try:
        found = _known_jobs(address if isinstance(address, str) else None)
    except Exception:
        return []  # no server, no answer in time, nothing we may read
    return [
        (job_id, f"{status} {text}".strip())
        for job_id, status, text in found
        if job_id.startswith(incomplete) and is_job_id(job_id) and _is(kind, status)
    ]


def _is(kind: JobKind, status: str) -> bool:
    match kind:
        case "any":
            return True
        case "open":
            return status in ("running", "waiting")
        case "waiting":
            return status == "waiting"
        case "unfinished":
            return status != "completed"


def _experts(path: Path) -> Iterator[Offer]:
    with suppress(OSError, UnicodeDecodeError):
        yield from _experts_of(path.read_text("utf-8-sig"))


def _experts_of(text: str) -> Iterator[Offer]:
    """Unchecked: somebody who is still writing the file has experts already."""
    try:
        raw: object = tomllib.loads(text).get("experts")
    except (ValueError, RecursionError):
        return
    for key, table in cast("dict[str, object]", raw if isinstance(raw, dict) else {}).items():
        description = cast("dict[str, object]", table).get("description") if isinstance(table, dict) else None
        yield key, description if isinstance(description, str) else ""


def _known_jobs(address: str | None) -> list[tuple[str, str, str]]:
    from ..client.locations import data_folder, make_private, write_private

    data = data_folder()
    settings = [os.environ.get(name) for name in _PLACE]
    place = hashlib.sha256(repr((address, settings)).encode()).hexdigest()[:16]
    cache = data.root / "completion" / f"{place}.json"
    with suppress(OSError, ValueError):
        if 0 <= time.time() - cache.stat().st_mtime < FRESH_SECONDS:
            return [(str(job_id), str(status), str(text)) for job_id, status, text in json.loads(cache.read_bytes())]
    found = _ask(address)
    with suppress(OSError):
        if data.root.is_dir():
            write_private(make_private(cache.parent) / cache.name, json.dumps(found).encode())
    return found


def _ask(address: str | None) -> list[tuple[str, str, str]]:
    # Temporal's library takes longer to load than all the rest.
    import asyncio

    from ..client.connection import DEFAULT_NAMESPACE, ServerInfo, connect, load_profile
    from ..client.embedded import running_server
    from ..client.jobs import Jobs
    from ..client.locations import data_folder
    from ..client.storage.driver import PayloadDriver
    from ..client.storage.folder import FolderStorage

    data = data_folder()
    profile = load_profile()
    target = address or profile.address
    namespace = profile.namespace or DEFAULT_NAMESPACE
    info = ServerInfo(target, None, namespace, is_embedded=False, version=None) if target else running_server(data)
    if info is None:
        return []

    async def ask() -> list[tuple[str, str, str]]:
        async with asyncio.timeout(LONGEST_SECONDS):
            # A list holds no payload that lies in a storage.
            client = await connect(info, storage=PayloadDriver(FolderStorage(data.storage)))
            return [
                (job.job_id, job.status, _words(f"{job.expert_key} {job.query}"))
                async for job in Jobs(client).list(take=TAKE)
            ]

    return asyncio.run(ask())


def _words(text: str) -> str:
    """A text from outside as words alone: shells evaluate what they show beside an offer."""
    return " ".join(re.sub(r"[^\w .,/-]", " ", text).split())[:_LONGEST_WORDS]
