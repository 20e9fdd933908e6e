import asyncio
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Literal

import pytest
from perstack.activities.providers import chains
from perstack.activities.providers.chains import aws_problem
from perstack.activities.providers.failures import ProviderError
from perstack.activities.providers.registry import ProviderRegistry, require_credentials
from perstack.core.failures import CredentialError
from perstack.core.messages import TextPart
from perstack.core.usage import NO_USAGE
from support.certificates import untrusted
from support.model_requests import API_KEY, Heard, bedrock, request
from support.model_server import Answer, Json, ModelServer, Script
from support.protocols.converse import event, frame

CLAUDE = "global.anthropic.claude-sonnet-5-5"
STREAM = "application/vnd.amazon.eventstream"


def always(answer: Answer) -> Script:
    return lambda _: answer


async def failure(
    answer: Answer, *, heard: Heard | None = None, timeout_seconds: float = 20, tls: ssl.SSLContext | None = None
) -> ProviderError:
    """What a call to a server that gives `answer` raises."""
    async with ModelServer(always(answer), tls=tls) as server:
        return await failure_at(server.url, heard=heard, timeout_seconds=timeout_seconds)


async def failure_at(
    url: str, *, heard: Heard | None = None, timeout_seconds: float = 20, env: dict[str, str] | None = None
) -> ProviderError:
    provider = bedrock(None, env={"AWS_ENDPOINT_URL_BEDROCK_RUNTIME": url, **(env or {})})
    one = request(provider="amazon-bedrock", model=CLAUDE, timeout_seconds=timeout_seconds)
    with pytest.raises(ProviderError) as caught:
        await provider.generate(one, heard or Heard())
    await provider.close()
    async with asyncio.timeout(5):
        while any(thread.name.startswith("bedrock") for thread in threading.enumerate()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return caught.value


async def failure_of_bytes(*pieces: bytes) -> ProviderError:
    """What a call to a server that streams `pieces`, and then ends the body properly, raises."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {STREAM}\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        for piece in (*pieces, b""):
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        left.set()

    left = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        return await failure_at(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    finally:
        server.close()
        async with asyncio.timeout(5):
            await left.wait()


class TestStatuses:
    @pytest.mark.parametrize(
        ("status", "error_type", "message", "code", "is_retryable"),
        [
            (400, "ValidationException", "messages: field required", "provider.bad_request", False),
            (400, "ValidationException", "Input is too long for requested model.", "provider.context_overflow", False),
            (400, "ValidationException", "prompt is too long: 9 > 1 maximum", "provider.context_overflow", False),
            (400, "ValidationException", "Blocked by content filter", "provider.content_refused", False),
            (400, "ServiceQuotaExceededException", "quota", "provider.quota", False),
            (403, "AccessDeniedException", "no access to the model", "provider.auth", False),
            (403, "UnrecognizedClientException", "The security token is invalid", "provider.auth", False),
            (403, "ExpiredTokenException", "The security token has expired", "provider.auth", False),
            (403, "InvalidSignatureException", "Signature expired", "provider.auth", False),
            (404, "ResourceNotFoundException", "Could not resolve the model", "provider.not_found", False),
            (408, "ModelTimeoutException", "slow", "provider.overloaded", True),
            (409, "ConflictException", "again", "provider.overloaded", True),
            (413, "RequestEntityTooLargeException", "too large", "provider.bad_request", False),
            (422, "OddException", "odd", "provider.bad_request", False),
            (424, "ModelErrorException", "the model failed", "provider.overloaded", True),
            (424, "ModelStreamErrorException", "the stream failed", "provider.stream_broken", True),
            (429, "ThrottlingException", "Too many requests", "provider.rate_limited", True),
            (429, "ModelNotReadyException", "not ready", "provider.overloaded", True),
            (500, "InternalServerException", "internal", "provider.overloaded", True),
            (503, "ServiceUnavailableException", "unavailable", "provider.overloaded", True),
            (529, "BrandNewException", "new", "provider.overloaded", True),
        ],
    )
    async def test_each_error_has_one_meaning(
        self, status: int, error_type: str, message: str, code: str, is_retryable: bool
    ) -> None:
        error = await failure(Answer(status=status, error_type=error_type, message=message))
        assert (error.code, error.is_retryable, error.status_code) == (code, is_retryable, status)
        assert message in error.message
        assert (error.hint is not None and "AWS_ACCESS_KEY_ID" in error.hint) == (code == "provider.auth")

    async def test_the_name_of_an_error_may_come_in_a_header(self) -> None:
        headers = {"x-amzn-errortype": "ServiceQuotaExceededException", "x-amzn-requestid": "r1", "retry-after": "9"}
        error = await failure(Answer(status=400, raw_body='{"message":"no"}', headers=headers))
        assert (error.code, error.details, error.retry_after_seconds) == ("provider.quota", {"requestId": "r1"}, 9.0)

    async def test_an_error_page_is_not_quoted(self) -> None:
        error = await failure(Answer(status=502, raw_body="<html>secret</html>", content_type="text/html"))
        assert (error.code, "html" in error.message) == ("provider.overloaded", False)

    @pytest.mark.parametrize("status", [429, 500, 503])
    async def test_the_request_is_sent_once(self, status: int) -> None:
        async with ModelServer(always(Answer(status=status, error_type="ThrottlingException"))) as server:
            await failure_at(server.url)
        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        "text", [f"invalid key {API_KEY}", "got Authorization: Bearer abcdefghijkl", "token temporary-token-1 expired"]
    )
    async def test_an_error_never_repeats_a_secret(self, text: str) -> None:
        answer = Answer(status=403, error_type="AccessDeniedException", message=text)
        async with ModelServer(always(answer)) as server:
            error = await failure_at(server.url, env={"AWS_SESSION_TOKEN": "temporary-token-1"})
        shown = "".join(traceback.format_exception(error)) + json.dumps(error.details)
        for secret in (API_KEY, "abcdefghijkl", "temporary-token-1"):
            assert secret not in shown
        assert "***" in error.message


class TestBrokenStreams:
    @pytest.mark.parametrize(
        ("error_type", "message", "code", "is_retryable"),
        [
            ("InternalServerException", "internal", "provider.overloaded", True),
            ("ModelStreamErrorException", "broken", "provider.stream_broken", True),
            ("ThrottlingException", "too fast", "provider.rate_limited", True),
            ("ServiceUnavailableException", "away", "provider.overloaded", True),
            ("ValidationException", "prompt is too long: 9 > 1", "provider.context_overflow", False),
            ("ValidationException", "odd", "provider.bad_request", False),
            ("BrandNewException", "what?", "provider.stream_broken", True),
        ],
    )
    async def test_an_exception_inside_the_stream_fails_the_call(
        self, error_type: str, message: str, code: str, is_retryable: bool
    ) -> None:
        answer = Answer(text="half", after_events=2, then="error", error_type=error_type, message=message)
        error = await failure(answer)
        assert (error.code, error.is_retryable, error.status_code) == (code, is_retryable, None)

    @pytest.mark.parametrize("then", ["end", "die"])
    @pytest.mark.parametrize("after_events", [1, 2, 3])
    async def test_a_stream_without_its_end_is_never_half_an_answer(
        self, then: Literal["end", "die"], after_events: int
    ) -> None:
        error = await failure(Answer(text="hello", after_events=after_events, then=then))
        assert (error.code, error.is_retryable, error.usage) == ("provider.stream_broken", True, NO_USAGE)

    @pytest.mark.parametrize("then", ["end", "die"])
    async def test_an_answer_counts_although_the_count_of_its_tokens_is_lost(self, then: Literal["end", "die"]) -> None:
        async with ModelServer(always(Answer(text="hello", after_events=4, then=then))) as server:
            provider = bedrock(server)
            generation = await provider.generate(request(provider="amazon-bedrock", model=CLAUDE), Heard())
            await provider.close()
        assert (generation.contents, generation.finish_reason) == ((TextPart(text="hello"),), "stop")

    async def test_a_connection_that_dies_before_the_answer_is_overload(self) -> None:
        error = await failure(Answer(after_events=0, then="die"))
        assert (error.code, error.is_retryable) == ("provider.overloaded", True)

    async def test_a_frame_cut_short_breaks_the_stream(self) -> None:
        stop = event("messageStop", {"stopReason": "end_turn"})
        error = await failure_of_bytes(event("messageStart", {"role": "assistant"}), stop[:-7])
        assert (error.code, error.is_retryable) == ("provider.stream_broken", True)

    @pytest.mark.parametrize("at", [3, 9, 40, -1])
    async def test_a_frame_with_a_wrong_checksum_breaks_the_stream(self, at: int) -> None:
        damaged = bytearray(event("messageStop", {"stopReason": "end_turn"}))
        damaged[at] ^= 1
        error = await failure_of_bytes(event("messageStart", {"role": "assistant"}), bytes(damaged))
        assert (error.code, error.is_retryable) == ("provider.stream_broken", True)

    @pytest.mark.parametrize(
        "payload",
        [b"not json", b"[]", b'{"contentBlockIndex":0}', b'{"delta":{"text":"x"}}', b"{}"],
    )
    async def test_an_event_that_cannot_be_read_breaks_the_stream(self, payload: bytes) -> None:
        headers = {":event-type": "contentBlockDelta", ":content-type": "application/json", ":message-type": "event"}
        error = await failure_of_bytes(frame(headers, payload))
        assert (error.code, error.is_retryable) == ("provider.stream_broken", True)

    async def test_an_event_of_a_later_release_is_passed_over(self) -> None:
        error = await failure_of_bytes(event("brandNew", {"x": 1}))
        assert error.message.endswith("ended its answer in the middle.")

    async def test_a_page_instead_of_a_stream_is_called_that(self) -> None:
        error = await failure(Answer(raw_body="<html>" * 10, content_type="text/html"))
        assert (error.code, "text/html" in error.message) == ("provider.stream_broken", True)

    async def test_a_failing_listener_is_not_taken_for_a_broken_stream(self) -> None:
        class Deaf(Heard):
            def text(self, delta: str) -> None:
                raise KeyError(delta)

        async with ModelServer(always(Answer(text="hello"))) as server:
            provider = bedrock(server)
            with pytest.raises(KeyError):
                await provider.generate(request(provider="amazon-bedrock", model=CLAUDE), Deaf())
            await provider.close()


class TestConnections:
    async def test_a_refused_connection_is_worth_repeating(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            error = await failure_at(f"http://127.0.0.1:{port}")
        assert (error.code, error.is_retryable) == ("provider.overloaded", True)
        assert f"127.0.0.1:{port} cannot be reached" in error.message

    async def test_an_unknown_host_is_worth_repeating(self) -> None:
        error = await failure_at("http://no-such-host.invalid")
        assert (error.code, error.is_retryable) == ("provider.overloaded", True)
        assert "no-such-host.invalid" in error.message

    @pytest.mark.parametrize("after_events", [0, 2])
    async def test_the_time_limit_holds_for_the_whole_answer(self, after_events: int) -> None:
        started = time.monotonic()
        error = await failure(Answer(text="hello", after_events=after_events, then="hang"), timeout_seconds=0.3)
        assert time.monotonic() - started < 3
        assert (error.code, error.is_retryable) == ("provider.overloaded", True)
        assert "0.3 s" in error.message or "in time" in error.message

    async def test_a_stranger_s_certificate_is_final(self, tmp_path: Path) -> None:
        error = await failure(Answer(), tls=untrusted(tmp_path))
        assert (error.code, error.is_retryable) == ("provider.tls", False)
        assert error.hint is not None

    async def test_https_to_a_plain_port_is_final(self) -> None:
        async with ModelServer(always(Answer())) as server:
            error = await failure_at(server.url.replace("http:", "https:"))
        assert (error.code, error.is_retryable) == ("provider.tls", False)

    @pytest.mark.parametrize(("status", "is_retryable"), [(407, False), (503, True)])
    async def test_a_proxy_that_refuses_is_named(self, status: int, is_retryable: bool) -> None:
        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 %d No\r\ncontent-length: 0\r\n\r\n" % status)
            writer.close()

        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        proxy = f"http://user:hunter22@127.0.0.1:{port}"
        error = await failure_at("https://bedrock.test", env={"PERSTACK_PROXY_URL": proxy})
        server.close()
        assert (error.code, error.is_retryable) == ("provider.proxy", is_retryable)
        assert str(status) in error.message
        assert "hunter22" not in str(error)

    async def test_a_profile_nobody_wrote_is_named(self, tmp_path: Path) -> None:
        env = {"AWS_PROFILE": "nobody", "AWS_CONFIG_FILE": str(tmp_path / "config")}
        error = await failure_at("http://127.0.0.1:1", env=env)
        assert (error.code, "nobody" in error.message) == ("provider.auth", True)
        assert error.hint is not None
        assert "AWS_PROFILE" in error.hint

    async def test_a_region_that_is_none_is_named(self) -> None:
        error = await failure_at("", env={"AWS_REGION": "eu_central_1!"})
        assert (error.code, error.is_retryable) == ("provider.bad_request", False)
        assert error.hint == "Check AWS_REGION."


KEYS = {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "s"}
NOWHERE = {"HOME": "/nonexistent", "AWS_EC2_METADATA_DISABLED": "true"}


class TestCheckBeforeTheStart:
    @pytest.mark.parametrize(
        ("env", "setting", "missing"),
        [
            ({}, {}, "AWS_ACCESS_KEY_ID"),
            ({"AWS_REGION": "eu-test-1"}, {}, "AWS_ACCESS_KEY_ID"),
            ({"AWS_ACCESS_KEY_ID": "k", "AWS_REGION": "eu-test-1"}, {}, "AWS_SECRET_ACCESS_KEY"),
            ({"AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "eu-test-1"}, {}, "AWS_ACCESS_KEY_ID"),
            (KEYS, {}, "AWS_REGION"),
            ({"AWS_BEARER_TOKEN_BEDROCK": "t"}, {}, "AWS_REGION"),
            ({**KEYS, "AWS_REGION": "eu-test-1"}, {}, None),
            ({**KEYS, "AWS_DEFAULT_REGION": "eu-test-1"}, {}, None),
            (KEYS, {"region": "eu-test-1"}, None),
            ({"AWS_BEARER_TOKEN_BEDROCK": "t"}, {"region": "eu-test-1"}, None),
            ({"AWS_PROFILE": "team"}, {"region": "eu-test-1"}, None),
            ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/token"}, {"region": "eu-test-1"}, None),
            ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/keys"}, {"region": "eu-test-1"}, None),
        ],
    )
    def test_what_is_missing_is_named(self, env: dict[str, str], setting: Json, missing: str | None) -> None:
        if missing is None:
            require_credentials("amazon-bedrock", {**NOWHERE, **env}, setting)
            return
        with pytest.raises(CredentialError, match=f"{missing} is not set"):
            require_credentials("amazon-bedrock", {**NOWHERE, **env}, setting)

    def test_the_shared_files_count_and_bring_a_region(self, tmp_path: Path) -> None:
        (tmp_path / ".aws").mkdir()
        (tmp_path / ".aws" / "config").write_text("[default]\nregion=eu-home-1\n[profile team]\nregion=eu-team-1\n")
        env = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
        assert aws_problem(env, {}) is None
        assert chains.aws_region(env, {}) == "eu-home-1"
        assert chains.aws_region({**env, "AWS_PROFILE": "team"}, {}) == "eu-team-1"

    @pytest.mark.parametrize(("vendor", "is_found"), [("Amazon EC2\n", True), ("QEMU\n", False)])
    def test_an_amazon_machine_may_have_a_role(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vendor: str, is_found: bool
    ) -> None:
        (tmp_path / "sys_vendor").write_text(vendor)
        monkeypatch.setattr(chains, "_AMAZON_MACHINE", ((str(tmp_path / "sys_vendor"), "amazon ec2"),))
        problem = aws_problem({"HOME": "/nonexistent", "AWS_REGION": "eu-test-1"}, {})
        assert (problem is None) == is_found

    def test_the_check_imports_no_sdk(self) -> None:
        program = (
            "import sys\n"
            "from perstack.activities.providers.registry import require_credentials\n"
            f"require_credentials('amazon-bedrock', {KEYS!r}, {{'region': 'eu-test-1'}})\n"
            "sys.exit(any(name in sys.modules for name in ('boto3', 'botocore', 'httpx2')))\n"
        )
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

    async def test_one_provider_serves_one_full_configuration(self) -> None:
        env = {**KEYS, "AWS_REGION": "eu-test-1"}
        registry = ProviderRegistry()
        first = registry.provider("amazon-bedrock", env=env, setting={})
        assert registry.provider("amazon-bedrock", env={**env, "SHELL": "x"}, setting={}) is first
        others = [
            registry.provider("amazon-bedrock", env={**env, "AWS_SESSION_TOKEN": "t"}, setting={}),
            registry.provider("amazon-bedrock", env={**env, "AWS_CONFIG_FILE": "/other"}, setting={}),
            registry.provider("amazon-bedrock", env=env, setting={"region": "eu-test-2"}),
        ]
        assert len({id(provider) for provider in (first, *others)}) == 4
        await registry.close()

    @pytest.mark.parametrize("address", ["bedrock.test", "ftp://bedrock.test", "http://"])
    def test_an_address_that_is_none_is_refused_at_once(self, address: str) -> None:
        with pytest.raises(CredentialError, match="Not a URL"):
            bedrock(None, env={"AWS_ENDPOINT_URL_BEDROCK_RUNTIME": address})
