import asyncio
import json
import socket
import ssl
import subprocess
import sys
import time
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Literal

import pytest
from perstack.activities.providers.base import Provider
from perstack.activities.providers.cassette import CassetteProvider
from perstack.activities.providers.failures import ProviderError, retry_after_seconds
from perstack.activities.providers.registry import ProviderRegistry, require_credentials
from perstack.core.cassette import Cassette
from perstack.core.failures import CredentialError, DefinitionError
from perstack.core.messages import TextPart
from perstack.core.usage import Usage
from support.certificates import untrusted
from support.model_requests import API_KEY, Heard, anthropic, request
from support.model_server import Answer, ModelServer, Script


def always(answer: Answer) -> Script:
    return lambda _: answer


async def failure(
    answer: Answer, *, heard: Heard | None = None, timeout_seconds: float = 20, tls: ssl.SSLContext | None = None
) -> ProviderError:
    """What a call to a server that gives `answer` raises."""
    async with ModelServer(always(answer), tls=tls) as server:
        return await failure_at(server.url, heard=heard, timeout_seconds=timeout_seconds)


async def failure_at(
    url: str, *, heard: Heard | None = None, timeout_seconds: float = 20, proxy: str = ""
) -> ProviderError:
    provider = anthropic(None, env={"ANTHROPIC_BASE_URL": url, "PERSTACK_PROXY_URL": proxy})
    with pytest.raises(ProviderError) as caught:
        await provider.generate(request(timeout_seconds=timeout_seconds), heard or Heard())
    await provider.close()
    return caught.value


class TestStatuses:
    @pytest.mark.parametrize(
        ("status", "error_type", "message", "code", "is_retryable"),
        [
            (400, "invalid_request_error", "messages: field required", "provider.bad_request", False),
            (400, "invalid_request_error", "prompt is too long: 2 > 1 maximum", "provider.context_overflow", False),
            (
                400,
                "invalid_request_error",
                "input length and `max_tokens` exceed context limit: 9 + 9 > 10",
                "provider.context_overflow",
                False,
            ),
            (400, "invalid_request_error", "Your credit balance is too low", "provider.quota", False),
            (400, "invalid_request_error", "You have reached your API usage limits", "provider.quota", False),
            (400, "invalid_request_error", "Blocked by content filtering", "provider.content_refused", False),
            (401, "authentication_error", "invalid x-api-key", "provider.auth", False),
            (402, "billing_error", "payment failed", "provider.quota", False),
            (403, "permission_error", "no access", "provider.auth", False),
            (403, "billing_error", "no money", "provider.quota", False),
            (404, "not_found_error", "model: claude-none", "provider.not_found", False),
            (408, "timeout_error", "slow", "provider.overloaded", True),
            (409, "conflict_error", "try again", "provider.overloaded", True),
            (413, "request_too_large", "Request exceeds the maximum size", "provider.bad_request", False),
            (422, "invalid_request_error", "odd", "provider.bad_request", False),
            (429, "rate_limit_error", "too fast", "provider.rate_limited", True),
            (500, "api_error", "Internal server error", "provider.overloaded", True),
            (502, "api_error", "bad gateway", "provider.overloaded", True),
            (503, "api_error", "unavailable", "provider.overloaded", True),
            (504, "timeout_error", "too slow", "provider.overloaded", True),
            (529, "overloaded_error", "Overloaded", "provider.overloaded", True),
        ],
    )
    async def test_each_status_has_one_meaning(
        self, status: int, error_type: str, message: str, code: str, is_retryable: bool
    ) -> None:
        error = await failure(Answer(status=status, error_type=error_type, message=message))
        assert (error.code, error.is_retryable, error.status_code) == (code, is_retryable, status)
        assert message in error.message
        assert error.failure.model_dump() == {
            "name": code,
            "message": error.message,
            "statusCode": status,
            "isRetryable": is_retryable,
        }

    async def test_a_spending_limit_is_not_a_rate_limit(self) -> None:
        error = await failure(
            Answer(status=429, error_type="rate_limit_error", error_code="enforced_spend_limit_reached")
        )
        assert (error.code, error.is_retryable) == ("provider.quota", False)

    async def test_an_error_page_is_not_quoted(self) -> None:
        error = await failure(Answer(status=502, raw_body="<html>secret</html>", content_type="text/html"))
        assert (error.code, "html" in error.message) == ("provider.overloaded", False)

    async def test_the_request_is_sent_once(self) -> None:
        async with ModelServer(always(Answer(status=529))) as server:
            await failure_at(server.url)
        assert len(server.requests) == 1

    async def test_the_request_id_is_kept_for_support(self) -> None:
        error = await failure(Answer(status=500, headers={"request-id": "req_1"}))
        assert error.details == {"requestId": "req_1"}


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"retry-after-ms": "1500"}, 1.5),
            ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
            ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
            ({"retry-after": "2.5"}, 2.5),
            ({"retry-after": "86400"}, 300.0),
            ({"retry-after": "-3"}, 0.0),
            ({"retry-after": "nan"}, None),
            ({"retry-after": "inf"}, None),
            ({"retry-after": "tomorrow"}, None),
            ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
            ({}, None),
        ],
    )
    async def test_the_wish_of_the_provider_is_read(self, headers: dict[str, str], seconds: float | None) -> None:
        error = await failure(Answer(status=429, error_type="rate_limit_error", headers=headers))
        assert error.retry_after_seconds == seconds

    @pytest.mark.parametrize("zone", ["GMT", "-0000"])
    def test_a_date_counts_from_now(self, zone: str) -> None:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True).replace("GMT", zone)
        wanted = retry_after_seconds({"retry-after": date})
        assert wanted is not None
        assert 50 < wanted <= 60

    @pytest.mark.parametrize(("status", "told", "is_retryable"), [(529, "false", False), (400, "true", True)])
    async def test_the_provider_decides_whether_to_repeat(self, status: int, told: str, is_retryable: bool) -> None:
        error = await failure(Answer(status=status, headers={"x-should-retry": told}))
        assert error.is_retryable is is_retryable


class TestSecrets:
    @pytest.mark.parametrize(
        "text",
        [
            f"invalid key {API_KEY}",
            "got Authorization: Bearer abcdefghijkl",
            "your key sk-ant-api03-ABCDEFGH was revoked",
            "header said blue-team-password",
        ],
    )
    async def test_an_error_never_repeats_a_secret(self, text: str) -> None:
        async with ModelServer(always(Answer(status=401, error_type="authentication_error", message=text))) as server:
            provider = anthropic(server, setting={"headers": {"x-team": "blue-team-password"}})
            with pytest.raises(ProviderError) as caught:
                await provider.generate(request(), Heard())
            await provider.close()
        shown = "".join(traceback.format_exception(caught.value)) + json.dumps(caught.value.details)
        for secret in (API_KEY, "abcdefghijkl", "ABCDEFGH", "blue-team-password"):
            assert secret not in shown
        assert "***" in caught.value.message

    async def test_a_header_that_cannot_be_sent_is_not_quoted(self) -> None:
        async with ModelServer(always(Answer())) as server:
            provider = anthropic(server, setting={"headers": {"x-team": "blue\nteam"}})
            with pytest.raises(ProviderError) as caught:
                await provider.generate(request(), Heard())
            await provider.close()
        assert (caught.value.code, caught.value.is_retryable) == ("provider.bad_request", False)
        assert "blue" not in "".join(traceback.format_exception(caught.value))

    async def test_a_long_error_is_cut(self) -> None:
        error = await failure(Answer(status=400, message="x" * 10_000))
        assert len(error.message) < 800


class TestBrokenStreams:
    @pytest.mark.parametrize(
        ("error_type", "message", "code"),
        [
            ("overloaded_error", "Overloaded", "provider.overloaded"),
            ("api_error", "Internal server error", "provider.overloaded"),
            ("timeout_error", "slow", "provider.overloaded"),
            ("rate_limit_error", "too fast", "provider.rate_limited"),
            ("brand_new_error", "what?", "provider.stream_broken"),
            ("brand_new_error", "Service Unavailable", "provider.overloaded"),
        ],
    )
    async def test_an_error_event_fails_the_call_for_a_while(self, error_type: str, message: str, code: str) -> None:
        error = await failure(
            Answer(text="half an answer", after_events=5, then="error", error_type=error_type, message=message)
        )
        assert (error.code, error.is_retryable, error.status_code) == (code, True, None)
        assert message in error.message

    async def test_an_error_event_may_be_final(self) -> None:
        answer = Answer(text="half", after_events=5, then="error", message="prompt is too long: 9 > 1")
        error = await failure(answer)
        assert (error.code, error.is_retryable) == ("provider.context_overflow", False)

    async def test_an_error_event_that_cannot_be_read_breaks_the_stream(self) -> None:
        stream = "event: error\ndata: not json\n\n"
        error = await failure(Answer(raw_body=stream, content_type="text/event-stream"))
        assert (error.code, error.is_retryable) == ("provider.stream_broken", True)

    @pytest.mark.parametrize("then", ["end", "die"])
    @pytest.mark.parametrize(("after_events", "output_tokens"), [(1, 1), (3, 1), (5, 1), (6, 8)])
    async def test_a_stream_without_its_end_is_never_half_an_answer(
        self, then: Literal["end", "die"], after_events: int, output_tokens: int
    ) -> None:
        usage = {"input_tokens": 40, "output_tokens": 8}
        answer = Answer(text="hello", usage=usage, after_events=after_events, then=then)
        error = await failure(answer)
        assert (error.code, error.is_retryable) == ("provider.stream_broken", True)
        assert error.usage == Usage(input_tokens=40, output_tokens=output_tokens, total_tokens=40 + output_tokens)

    async def test_a_connection_that_dies_before_the_answer_is_overload(self) -> None:
        error = await failure(Answer(after_events=0, then="die"))
        assert (error.code, error.is_retryable) == ("provider.overloaded", True)

    @pytest.mark.parametrize(
        "data",
        [
            "not json",
            "[]",
            "{}",
            '{"type":"content_block_delta","index":7,"delta":{"type":"text_delta","text":"x"}}',
            '{"type":"message_start","message":7}',
        ],
    )
    async def test_an_event_that_cannot_be_read_breaks_the_stream(self, data: str) -> None:
        stream = f"event: any\ndata: {data}\n\n"
        error = await failure(Answer(raw_body=stream, content_type="text/event-stream"))
        assert (error.code, error.is_retryable) == ("provider.stream_broken", True)

    async def test_a_page_instead_of_a_stream_is_called_that(self) -> None:
        error = await failure(Answer(raw_body="<html>", content_type="text/html"))
        assert (error.code, "text/html" in error.message) == ("provider.stream_broken", True)

    async def test_an_answer_counts_although_the_connection_breaks_behind_it(self) -> None:
        async with ModelServer(always(Answer(text="hello", after_events=7, then="die"))) as server:
            provider = anthropic(server)
            generation = await provider.generate(request(), Heard())
            await provider.close()
        assert (generation.contents, generation.finish_reason) == ((TextPart(text="hello"),), "stop")

    async def test_a_failing_listener_is_not_taken_for_a_broken_stream(self) -> None:
        class Deaf(Heard):
            def text(self, delta: str) -> None:
                raise KeyError(delta)

        async with ModelServer(always(Answer(text="hello"))) as server:
            provider = anthropic(server)
            with pytest.raises(KeyError):
                await provider.generate(request(), Deaf())
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

    @pytest.mark.parametrize("after_events", [0, 5])
    async def test_the_time_limit_holds_for_the_whole_answer(self, after_events: int) -> None:
        heard = Heard()
        answer = Answer(text="hello", after_events=after_events, then="hang")
        started = time.monotonic()
        error = await failure(answer, timeout_seconds=0.3, heard=heard)
        assert time.monotonic() - started < 3
        assert (error.code, error.is_retryable) == ("provider.overloaded", True)
        assert "0.3 s" in error.message or "in time" in error.message
        assert error.usage.input_tokens == (10 if after_events else 0)

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
        error = await failure_at("https://api.test", proxy=proxy)
        server.close()
        assert (error.code, error.is_retryable) == ("provider.proxy", is_retryable)
        assert str(status) in error.message
        assert "hunter22" not in str(error)


class TestRegistry:
    @pytest.mark.parametrize("value", [None, "", "  "])
    def test_a_missing_key_is_named(self, value: str | None) -> None:
        env = {} if value is None else {"ANTHROPIC_API_KEY": value}
        with pytest.raises(CredentialError, match="ANTHROPIC_API_KEY is not set"):
            require_credentials("anthropic", env, {})

    def test_a_key_no_header_can_carry_is_refused_without_quoting_it(self) -> None:
        with pytest.raises(CredentialError, match="ANTHROPIC_API_KEY holds characters") as caught:
            require_credentials("anthropic", {"ANTHROPIC_API_KEY": "sk-“quoted”"}, {})
        assert "quoted" not in str(caught.value)

    def test_a_provider_we_do_not_speak_to_is_refused_by_name(self) -> None:
        with pytest.raises(DefinitionError, match="Provider `mistral` is not supported"):
            require_credentials("mistral", {}, {})

    async def test_one_provider_serves_one_full_configuration(self) -> None:
        env = {"ANTHROPIC_API_KEY": API_KEY}
        registry = ProviderRegistry()
        first = registry.provider("anthropic", env=env, setting={})
        assert registry.provider("anthropic", env={**env, "HOME": "/"}, setting={}) is first
        others = [
            registry.provider("anthropic", env={"ANTHROPIC_API_KEY": "another"}, setting={}),
            registry.provider("anthropic", env={**env, "ANTHROPIC_BASE_URL": "http://a.test"}, setting={}),
            registry.provider("anthropic", env={**env, "PERSTACK_PROXY_URL": "http://p.test"}, setting={}),
            registry.provider("anthropic", env=env, setting={"headers": {"x": "1"}}),
        ]
        assert len({id(provider) for provider in (first, *others)}) == 5
        assert API_KEY not in repr(vars(registry))
        await registry.close()
        assert registry.provider("anthropic", env=env, setting={}) is not first
        await registry.close()

    @pytest.mark.parametrize(
        "env", [{"ANTHROPIC_BASE_URL": "api.test"}, {"ANTHROPIC_BASE_URL": "ftp://a.test"}, {"PERSTACK_PROXY_URL": "x"}]
    )
    def test_an_address_that_is_none_is_refused_at_once(self, env: dict[str, str]) -> None:
        with pytest.raises(CredentialError, match="Not a URL"):
            ProviderRegistry().provider("anthropic", env={"ANTHROPIC_API_KEY": API_KEY, **env}, setting={})

    def test_checking_credentials_imports_no_sdk(self) -> None:
        program = (
            "import sys\n"
            "from perstack.activities.providers import cassette, failures\n"
            "from perstack.activities.providers.registry import ProviderRegistry, require_credentials\n"
            "require_credentials('anthropic', {'ANTHROPIC_API_KEY': 'k'}, {})\n"
            "ProviderRegistry()\n"
            "sys.exit(any(name in sys.modules for name in ('anthropic', 'httpx2', 'temporalio')))\n"
        )
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

    def test_the_sdk_can_be_imported_in_the_background(self) -> None:
        program = (
            "import sys, threading\n"
            "from perstack.activities.providers.registry import warm_up\n"
            "warm_up('anthropic')\n"
            "[thread.join() for thread in threading.enumerate() if thread.daemon]\n"
            "sys.exit('perstack.activities.providers.anthropic' not in sys.modules)\n"
        )
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

    async def test_every_provider_speaks_the_same_protocol(self) -> None:
        providers: list[Provider] = [anthropic(None), CassetteProvider(Cassette(expert_key="team"))]
        for provider in providers:
            await provider.close()
