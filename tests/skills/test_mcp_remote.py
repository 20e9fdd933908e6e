"""Endpoints that refuse, forget, redirect, hang and flood; real HTTP on loopback."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from perstack.activities.skills import endpoints
from perstack.activities.skills.mcp.remote import SSE_STATUSES
from perstack.core.expert import McpSseSkill
from perstack.core.failures import PerstackError
from support.mcp_servers import OpenMcpSkill, allowing, call, text_of
from support.skills import bounded

Message = dict[str, Any]


@dataclass
class Reply:
    """One HTTP answer."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict[str, str])


Answerer = Callable[["Endpoint", str, Message], Awaitable[Reply | None]]


@dataclass
class Endpoint:
    """An HTTP server that answers as its script says; `None` breaks the connection."""

    answer: Answerer
    port: int = 0
    seen: list[str] = field(default_factory=list[str])
    """HTTP methods with the protocol's methods."""
    sessions: int = 0

    @property
    def skill(self) -> McpSseSkill:
        return McpSseSkill(name="remote", endpoint=f"http://127.0.0.1:{self.port}/mcp")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                message: Message = json.loads(body) if body else {}
                self.seen.append(f"{lines[0].split()[0]} {message.get('method', '')}".strip())
                reply = await self.answer(self, lines[0].split()[0], message)
                if reply is None:
                    break
                fields = {"content-length": str(len(reply.body)), **reply.headers}
                text = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
                writer.write(f"HTTP/1.1 {reply.status} X\r\n{text}\r\n".encode() + reply.body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def result(message: Message, value: Message, **headers: str) -> Reply:
    body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": value}).encode()
    return Reply(body=body, headers={"content-type": "application/json", **headers})


async def well_behaved(endpoint: Endpoint, verb: str, message: Message) -> Reply | None:
    """A small server of the older era that keeps sessions."""
    if verb != "POST":
        return Reply(405 if verb == "GET" else 204)
    match message.get("method"):
        case "server/discover":
            return Reply(400)
        case "initialize":
            endpoint.sessions += 1
            info = {"name": "small", "version": "1"}
            value: Message = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
            return result(message, value, **{"mcp-session-id": f"s{endpoint.sessions}"})
        case "tools/list":
            return result(message, {"tools": [{"name": "work", "inputSchema": {}}]})
        case "tools/call":
            return result(message, {"content": [{"type": "text", "text": f"worked in s{endpoint.sessions}"}]})
        case _:
            return Reply(202)


@asynccontextmanager
async def serving(answer: Answerer) -> AsyncGenerator[Endpoint]:
    endpoint = Endpoint(answer)
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0)
    endpoint.port = server.sockets[0].getsockname()[1]
    try:
        yield endpoint
    finally:
        server.close()
        others = [task for task in asyncio.all_tasks() if "Endpoint.serve" in repr(task.get_coro())]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


async def failed_start(skill: Any) -> PerstackError:
    with pytest.raises(PerstackError) as caught:
        async with bounded():
            await skill.start()
    return caught.value


async def test_a_small_server_without_streams_works(open_mcp: OpenMcpSkill) -> None:
    async with serving(well_behaved) as endpoint:
        skill = open_mcp(endpoint.skill, endpoints=allowing(endpoint.port))
        assert text_of(await call(skill, "work")) == "worked in s1"
        async with bounded():
            await skill.close()
    assert "DELETE" in endpoint.seen


@pytest.mark.parametrize("status", [401, 403, 500, 503])
async def test_a_refusal_is_no_sign_of_the_older_transport(open_mcp: OpenMcpSkill, status: int) -> None:
    async def refuse(endpoint: Endpoint, verb: str, message: Message) -> Reply | None:
        return Reply(status)

    async with serving(refuse) as endpoint:
        error = await failed_start(open_mcp(endpoint.skill, endpoints=allowing(endpoint.port)))
    assert f"HTTP status {status}" in error.message
    assert endpoint.seen == ["POST server/discover", "POST initialize"]


@pytest.mark.parametrize("status", sorted(SSE_STATUSES))
async def test_the_older_transport_is_tried_where_the_protocol_says_so(open_mcp: OpenMcpSkill, status: int) -> None:
    async def refuse(endpoint: Endpoint, verb: str, message: Message) -> Reply | None:
        return Reply(status)

    async with serving(refuse) as endpoint:
        error = await failed_start(open_mcp(endpoint.skill, endpoints=allowing(endpoint.port)))
    assert error.code == "skill.not_started"
    assert endpoint.seen == ["POST server/discover", "POST initialize", "GET"]


async def test_a_forgotten_session_is_opened_anew_and_the_call_repeated(open_mcp: OpenMcpSkill) -> None:
    forgotten = asyncio.Event()

    async def forget(endpoint: Endpoint, verb: str, message: Message) -> Reply | None:
        if message.get("method") == "tools/call" and forgotten.is_set() and endpoint.sessions == 1:
            return Reply(404)
        return await well_behaved(endpoint, verb, message)

    async with serving(forget) as endpoint:
        skill = open_mcp(endpoint.skill, endpoints=allowing(endpoint.port))
        assert text_of(await call(skill, "work")) == "worked in s1"
        forgotten.set()
        assert text_of(await call(skill, "work")) == "worked in s2"
        async with bounded():
            await skill.close()


async def test_an_endpoint_that_forgets_every_session_is_given_up(open_mcp: OpenMcpSkill) -> None:
    async def forget(endpoint: Endpoint, verb: str, message: Message) -> Reply | None:
        if message.get("method") == "tools/call":
            return Reply(404)
        return await well_behaved(endpoint, verb, message)

    async with serving(forget) as endpoint:
        skill = open_mcp(endpoint.skill, endpoints=allowing(endpoint.port))
        outcome = await call(skill, "work")
        assert outcome.is_error
        assert endpoint.seen.count("POST tools/call") == 2
        async with bounded():
            await skill.close()


async def test_a_redirect_to_another_origin_is_not_followed(open_mcp: OpenMcpSkill) -> None:
    async with serving(well_behaved) as other:

        async def redirect(endpoint: Endpoint, verb: str, message: Message) -> Reply | None:
            return Reply(307, headers={"location": f"http://127.0.0.1:{other.port}/mcp"})

        async with serving(redirect) as endpoint:
            policy = endpoints.EndpointPolicy.from_env(
                {endpoints.ALLOW_VARIABLE: f"127.0.0.1:{endpoint.port},127.0.0.1:{other.port}"}
            )
            error = await failed_start(open_mcp(endpoint.skill, endpoints=policy))
    assert "not followed" in error.message
    assert other.seen == []


async def test_an_endpoint_that_never_answers_is_given_up(open_mcp: OpenMcpSkill) -> None:
    async def hang(endpoint: Endpoint, verb: str, message: Message) -> Reply | None:
        await asyncio.Event().wait()
        return None

    async with serving(hang) as endpoint:
        skill = open_mcp(endpoint.skill, endpoints=allowing(endpoint.port), start_timeout_seconds=0.3)
        assert "not ready within 0.3 s" in (await failed_start(skill)).message


async def test_a_call_whose_connection_breaks_is_an_error_and_the_next_one_connects_anew(
    open_mcp: OpenMcpSkill,
) -> None:
    async def break_once(endpoint: Endpoint, verb: str, message: Message) -> Reply | None:
        if message.get("method") == "tools/call" and endpoint.sessions == 1:
            return None
        return await well_behaved(endpoint, verb, message)

    async with serving(break_once) as endpoint:
        skill = open_mcp(endpoint.skill, endpoints=allowing(endpoint.port))
        broken = await call(skill, "work")
        assert broken.is_error
        assert "The skill remote was lost during the call of work" in text_of(broken)
        assert "disconnected" in text_of(broken)
        assert text_of(await call(skill, "work")) == "worked in s2"
        async with bounded():
            await skill.close()


async def test_an_endless_answer_is_cut_off(open_mcp: OpenMcpSkill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "MAX_RESPONSE_BYTES", 100_000)

    async def flood(endpoint: Endpoint, verb: str, message: Message) -> Reply | None:
        if message.get("method") == "tools/call":
            return result(message, {"content": [{"type": "text", "text": "x" * 200_000}]})
        return await well_behaved(endpoint, verb, message)

    async with serving(flood) as endpoint:
        skill = open_mcp(endpoint.skill, endpoints=allowing(endpoint.port))
        outcome = await call(skill, "work")
        assert outcome.is_error
        assert "more than 100000 bytes" in text_of(outcome)
        async with bounded():
            await skill.close()


async def test_a_host_outside_of_the_allowed_domains_is_not_reached(open_mcp: OpenMcpSkill) -> None:
    async with serving(well_behaved) as endpoint:
        skill = endpoint.skill.replaced(allowed_domains=("example.com",))
        error = await failed_start(open_mcp(skill, endpoints=allowing(endpoint.port)))
    assert "allowedDomains" in error.message
    assert endpoint.seen == []


async def test_an_endpoint_that_hangs_at_its_end_does_not_hold_up_the_close(open_mcp: OpenMcpSkill) -> None:
    async def hang_at_the_end(endpoint: Endpoint, verb: str, message: Message) -> Reply | None:
        if verb == "DELETE":
            await asyncio.Event().wait()
        return await well_behaved(endpoint, verb, message)

    async with serving(hang_at_the_end) as endpoint:
        skill = open_mcp(endpoint.skill, endpoints=allowing(endpoint.port))
        await skill.start()
        async with asyncio.timeout(5):
            await skill.close()
        assert not skill.is_open
        assert not [task for task in asyncio.all_tasks() if "Connection._own" in repr(task.get_coro())]
