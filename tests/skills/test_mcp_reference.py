"""The reference servers of the protocol's makers, over every transport and in both eras."""

import asyncio
from pathlib import Path

from perstack.core.expert import McpSseSkill
from perstack.core.messages import FileInlinePart, ImageInlinePart
from support.mcp_servers import (
    OpenMcpSkill,
    call,
    everything_over_http,
    leftovers,
    modern_over_http,
    node_server,
    npx_server,
    python_server,
    text_of,
)
from support.skills import WAIT_SECONDS, bounded


async def test_the_filesystem_server_works_in_the_workspace(open_mcp: OpenMcpSkill, root: Path) -> None:
    (root / "note.txt").write_text("remember")
    skill = open_mcp(
        node_server("server-filesystem", str(root), pick=("read_text_file", "write_file", "list_directory"))
    )
    async with bounded():
        start = await skill.start()
        tools = {tool.name: tool for tool in await skill.tools()}
    assert (start.server_name, start.args[1:]) == ("secure-filesystem-server", (str(root),))
    assert set(tools) == {"read_text_file", "write_file", "list_directory"}
    assert tools["read_text_file"].is_repeatable
    assert text_of(await call(skill, "read_text_file", path=str(root / "note.txt"))) == "remember"
    await call(skill, "write_file", path="new.txt", content="kept")
    assert (root / "new.txt").read_text() == "kept"
    refused = await call(skill, "read_text_file", path="/etc/hostname")
    assert refused.is_error
    assert "outside allowed directories" in text_of(refused)


async def test_npx_starts_a_server_and_leaves_nothing_of_its_chain_of_processes(
    open_mcp: OpenMcpSkill, root: Path, skill_env: dict[str, str]
) -> None:
    skill = open_mcp(npx_server("mcp-server-filesystem", str(root)))
    (root / "note.txt").write_text("remember")
    assert text_of(await call(skill, "read_text_file", path=str(root / "note.txt"))) == "remember"
    start = await skill.start()
    assert (start.command, start.args[0]) == ("npx", "-y")
    assert len(leftovers(skill_env["HOME"])) >= 2
    async with asyncio.timeout(5):
        await skill.close()
    assert not leftovers(skill_env["HOME"])


async def test_the_timings_of_a_start_are_told(open_mcp: OpenMcpSkill) -> None:
    skill = open_mcp(python_server("--local-timezone", "Etc/UTC"))
    async with bounded():
        start = await skill.start()
    assert all(value is not None and value > 0 for value in (start.spawn_ms, start.handshake_ms, start.discovery_ms))
    assert start.name == "time"


async def test_a_python_server_of_the_newest_protocol_works(open_mcp: OpenMcpSkill) -> None:
    skill = open_mcp(python_server("--local-timezone", "Etc/UTC"))
    converted = await call(skill, "convert_time", source_timezone="Asia/Tokyo", time="12:00", target_timezone="Etc/UTC")
    assert not converted.is_error
    assert "T03:00:00+00:00" in text_of(converted)
    assert (await call(skill, "get_current_time", timezone="No/Where")).is_error


async def test_every_kind_of_content_arrives(open_mcp: OpenMcpSkill) -> None:
    skill = open_mcp(node_server("server-everything", "stdio"))
    assert text_of(await call(skill, "echo", message="hello")) == "Echo: hello"
    image = await call(skill, "get-tiny-image")
    assert any(isinstance(part, ImageInlinePart) and part.mime_type == "image/png" for part in image.result)
    structured = text_of(await call(skill, "get-structured-content", location="New York"))
    assert "temperature" in structured
    blob = await call(skill, "get-resource-reference", resourceType="Blob", resourceId=1)
    assert any(isinstance(part, FileInlinePart) for part in blob.result)
    links = text_of(await call(skill, "get-resource-links", count=2))
    assert "Resource" in links


async def test_many_calls_of_one_connection_run_at_the_same_time(open_mcp: OpenMcpSkill) -> None:
    skill = open_mcp(node_server("server-everything", "stdio"))
    await skill.start()
    clock = asyncio.get_running_loop().time
    begun = clock()
    name = "trigger-long-running-operation"
    outcomes = await asyncio.gather(*(call(skill, name, duration=0.5, steps=1) for _ in range(20)))
    assert not any(outcome.is_error for outcome in outcomes)
    assert clock() - begun < 20 * 0.5 / 2


async def test_streamable_http_is_spoken_with_an_older_server(
    open_mcp: OpenMcpSkill, skill_env: dict[str, str]
) -> None:
    async with everything_over_http("streamableHttp", skill_env) as server:
        skill = open_mcp(server.skill("/mcp"), endpoints=server.policy)
        assert text_of(await call(skill, "echo", message="over http")) == "Echo: over http"
        start = await skill.start()
        assert start.server_name == "mcp-servers/everything"
        assert (start.command, start.spawn_ms) == (None, None)
        async with bounded():
            await skill.close()


async def test_an_endpoint_that_speaks_only_sse_is_found_out(open_mcp: OpenMcpSkill, skill_env: dict[str, str]) -> None:
    async with everything_over_http("sse", skill_env) as server:
        skill = open_mcp(server.skill("/sse", pick=("echo",)), endpoints=server.policy)
        assert [tool.name for tool in await skill.tools()] == ["echo"]
        assert text_of(await call(skill, "echo", message="over sse")) == "Echo: over sse"
        async with bounded():
            await skill.close()


async def test_streamable_http_is_spoken_with_a_server_of_the_newest_protocol(
    open_mcp: OpenMcpSkill, skill_env: dict[str, str]
) -> None:
    async with modern_over_http(skill_env) as server:
        skill = open_mcp(server.skill("/mcp"), endpoints=server.policy)
        assert text_of(await call(skill, "add", a=1, b=2)) == "3"
        assert "not of type 'integer'" in text_of(await call(skill, "add", a="x", b=2))
        async with bounded():
            await skill.close()


async def test_cancelling_a_call_over_http_stops_it_at_the_server(
    open_mcp: OpenMcpSkill, skill_env: dict[str, str]
) -> None:
    async with modern_over_http(skill_env) as server:
        skill = open_mcp(server.skill("/mcp"), endpoints=server.policy)
        await skill.start()
        waiting = asyncio.create_task(call(skill, "wait", token="t1"))
        async with asyncio.timeout(WAIT_SECONDS):
            while "t1" not in text_of(await call(skill, "waiting_tokens")):
                assert not waiting.done()
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()
        async with asyncio.timeout(WAIT_SECONDS):
            while "t1" in text_of(await call(skill, "waiting_tokens")):
                pass
        late = await call(skill, "wait", timeout_seconds=0.2, token="t2")
        assert late.is_error
        assert "did not answer within 0.2 s" in text_of(late)
        async with bounded():
            await skill.close()


async def test_a_server_that_was_started_anew_is_connected_to_anew(
    open_mcp: OpenMcpSkill, skill_env: dict[str, str]
) -> None:
    async with modern_over_http(skill_env) as first:
        skill = open_mcp(first.skill("/mcp"), endpoints=first.policy)
        assert text_of(await call(skill, "add", a=1, b=2)) == "3"
        await first.end()
        lost = await call(skill, "add", a=1, b=2)
        assert lost.is_error
        assert "skill remote" in text_of(lost)
        async with modern_over_http(skill_env, port=first.port):
            assert text_of(await call(skill, "add", a=2, b=2)) == "4"
            async with bounded():
                await skill.close()


async def test_an_endpoint_beyond_the_policy_is_not_reached(open_mcp: OpenMcpSkill, skill_env: dict[str, str]) -> None:
    async with modern_over_http(skill_env) as server:
        outcome = await call(open_mcp(server.skill("/mcp")), "add", a=1, b=2)
        assert outcome.is_error
        assert "does not use HTTPS" in text_of(outcome)
        there = McpSseSkill(name="remote", endpoint=f"https://127.0.0.1:{server.port}/mcp")
        assert "private or local" in text_of(await call(open_mcp(there), "add", a=1, b=2))
