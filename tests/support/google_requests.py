"""Providers of Gemini that talk to servers on loopback, and a server that gives tokens."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from perstack.activities.providers.google import GoogleProvider, create_provider

from .model_requests import API_KEY
from .model_server import Json, ModelServer
from .provider_rows import service_account

FLASH = "gemini-3.8-flash"
FLASH_2_5 = "gemini-2.5-flash"


def gemini(
    server: ModelServer | None, *, setting: dict[str, Any] | None = None, env: dict[str, str] | None = None
) -> GoogleProvider:
    """The Gemini API at `server`."""
    base = {"GOOGLE_GENERATIVE_AI_BASE_URL": server.url} if server is not None else {}
    return create_provider("google", {"GOOGLE_GENERATIVE_AI_API_KEY": API_KEY, **base, **(env or {})}, setting or {})


def vertex(
    server: ModelServer | None,
    folder: Path,
    *,
    tokens: str = "",
    setting: dict[str, Any] | None = None,
    env: dict[str, str] | None = None,
) -> GoogleProvider:
    """Vertex AI at `server`, with a service account whose tokens come from there too, or from `tokens`."""
    base = {"GOOGLE_VERTEX_BASE_URL": server.url} if server is not None else {}
    given = {"GOOGLE_APPLICATION_CREDENTIALS": str(credentials(folder, tokens or (server.url if server else "")))}
    return create_provider("google-vertex", {**given, **base, **(env or {})}, setting or {})


def credentials(folder: Path, url: str) -> Path:
    """A file with a service account whose tokens come from `url`."""
    path = folder / "credentials.json"
    path.write_text(service_account(url))
    return path


class TokenServer:
    """What was asked of it."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[dict[str, str]] = []
        """The forms of the requests for tokens."""
        self.tunnels: list[str] = []
        """Where a client wanted to be connected to."""


@asynccontextmanager
async def token_server(status: int = 200, body: Json | None = None) -> AsyncGenerator[TokenServer]:
    """A token endpoint with one answer, which as a proxy opens no tunnel to anywhere."""
    server = TokenServer()
    answer = json.dumps(body if body is not None else {"access_token": "ya29.other", "expires_in": 3599}).encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if head.startswith("CONNECT "):
            server.tunnels.append(head.split()[1])
            writer.write(b"HTTP/1.1 502 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        else:
            length = next(int(line.split(":")[1]) for line in head.lower().splitlines() if "content-length:" in line)
            form = parse_qs((await reader.readexactly(length)).decode())
            server.asked.append({name: values[0] for name, values in form.items()})
            kind = b"content-type: application/json\r\nconnection: close\r\n"
            writer.write(b"HTTP/1.1 %d Said\r\n%scontent-length: %d\r\n\r\n%s" % (status, kind, len(answer), answer))
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
