import asyncio
import json
import socket
import time
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Literal

import pytest
from perstack.activities.providers.failures import ProviderError
from perstack.core.messages import TextPart
from perstack.core.usage import Usage
from support.model_requests import API_KEY, Heard, azure, openai, request
from support.model_server import Answer, ModelServer, Script

STREAM = "text/event-stream"


def always(answer: Answer) -> Script:
    return lambda _: answer


async def failure(answer: Answer, *, heard: Heard | None = None, **fields: Any) -> ProviderError:
    """What a call to a server that gives `answer` raises."""
    async with ModelServer(always(answer)) as server:
        return await failure_at(f"{server.url}/v1", heard=heard, **fields)


async def failure_at(url: str, *, heard: Heard | None = None, proxy: str = "", **fields: Any) -> ProviderError:
    provider = openai(None, env={"OPENAI_BASE_URL": url, "PERSTACK_PROXY_URL": proxy})
    with pytest.raises(ProviderError) as caught:
        await provider.generate(request(provider="openai", model="gpt-6-luna", **fields), heard or Heard())
    await provider.close()
    return caught.value


class TestStatuses:
    @pytest.mark.parametrize(
        ("status", "error_type", "error_code", "message", "code", "is_retryable"),
        [
            (400, "invalid_request_error", "", "Missing required parameter", "provider.bad_request", False),
            (400, "invalid_request_error", "unknown_parameter", "Unknown: 'x'", "provider.bad_request", False),
            (400, "invalid_request_error", "context_length_exceeded", "Too long", "provider.context_overflow", False),
            (400, "", "", "Your input exceeds the context window of this model.", "provider.context_overflow", False),
            (400, "", "content_filter", "The response was filtered", "provider.content_refused", False),
            (400, "", "invalid_prompt", "flagged as potentially violating our usage policy", "provider.content_refused",
             False),
            (400, "", "invalid_prompt", "Invalid Responses API request", "provider.bad_request", False),
            (400, "", "image_content_policy_violation", "no", "provider.content_refused", False),
            (401, "invalid_request_error", "invalid_api_key", "Incorrect API key", "provider.auth", False),
            (401, "", "401", "Access denied due to invalid subscription key", "provider.auth", False),
            (402, "", "", "Insufficient Balance", "provider.quota", False),
            (403, "", "unsupported_country_region_territory", "Not here", "provider.auth", False),
            (404, "invalid_request_error", "model_not_found", "no such model", "provider.not_found", False),
            (408, "", "", "slow", "provider.overloaded", True),
            (409, "", "", "again", "provider.overloaded", True),
            (413, "", "", "too large", "provider.bad_request", False),
            (422, "", "", "odd", "provider.bad_request", False),
            (429, "requests", "rate_limit_exceeded", "Rate limit reached", "provider.rate_limited", True),
            (429, "tokens", "rate_limit_exceeded", "Rate limit reached", "provider.rate_limited", True),
            (429, "insufficient_quota", "insufficient_quota", "You exceeded your quota", "provider.quota", False),
            (429, "insufficient_quota", "project_spend_limit_exceeded", "limit", "provider.quota", False),
            (429, "insufficient_quota", "a_new_code", "limit", "provider.quota", False),
            (429, "", "429", "Requests have exceeded the call rate limit", "provider.rate_limited", True),
            (500, "server_error", "", "The server had an error", "provider.overloaded", True),
            (502, "", "", "bad gateway", "provider.overloaded", True),
            (503, "service_unavailable_error", "server_is_overloaded", "busy", "provider.overloaded", True),
            (504, "", "", "too slow", "provider.overloaded", True),
            (529, "", "", "too slow", "provider.overloaded", True),
        ],
    )  # fmt: skip
    async def test_each_error_has_one_meaning(
        self, status: int, error_type: str, error_code: str, message: str, code: str, is_retryable: bool
    ) -> None:
        error = await failure(Answer(status=status, error_type=error_type, error_code=error_code, message=message))
        assert (error.code, error.is_retryable, error.status_code) == (code, is_retryable, status)
        assert message in error.message
        assert error.message.startswith("OpenAI ")

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ('{"error":"model not loaded"}', "model not loaded"),
            ('{"detail":"Not authorised"}', "Not authorised"),
            ('{"message":"plain"}', "plain"),
            ("upstream broke", "upstream broke"),
            ('["odd"]', "OpenAI refused the request (400): Scripted"),
            ('{"error":{"code":7}}', "OpenAI refused the request (400): Scripted"),
        ],
    )
    async def test_errors_of_gateways_are_read_too(self, body: str, words: str) -> None:
        error = await failure(Answer(status=400, raw_body=body))
        assert words in error.message
        assert error.code == "provider.bad_request"

    async def test_an_error_page_is_not_quoted(self) -> None:
        error = await failure(Answer(status=502, raw_body="<html>secret</html>", content_type="text/html"))
        assert (error.code, "html" in error.message) == ("provider.overloaded", False)

    async def test_the_request_is_sent_once(self) -> None:
        async with ModelServer(always(Answer(status=503))) as server:
            await failure_at(f"{server.url}/v1")
        assert len(server.requests) == 1

    async def test_the_request_id_is_kept_for_support(self) -> None:
        error = await failure(Answer(status=500, headers={"x-request-id": "req_1"}))
        assert error.details == {"requestId": "req_1"}

    async def test_the_hint_names_the_variable_of_the_provider(self) -> None:
        assert (await failure(Answer(status=401))).hint == "Check OPENAI_API_KEY."
        async with ModelServer(always(Answer(status=401))) as server:
            provider = azure(server)
            with pytest.raises(ProviderError) as caught:
                await provider.generate(request(provider="azure-openai", model="gpt-6-luna"), Heard())
            await provider.close()
        assert caught.value.hint == "Check AZURE_API_KEY."


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("headers", "message", "seconds"),
        [
            ({"retry-after-ms": "1500", "retry-after": "9"}, "", 1.5),
            ({"retry-after": "2.5", "x-ratelimit-reset-requests": "9s"}, "Please try again in 7s.", 2.5),
            ({"retry-after": "tomorrow"}, "", None),
            ({}, "Limit 3, Used 3. Please try again in 20s. Visit the site", 20.0),
            ({}, "Please try again in 1m1.5s.", 61.5),
            ({}, "Please retry after 6 seconds.", 6.0),
            ({}, "Please try again in 250ms.", 0.25),
            ({}, "Please try again in 2 fortnights.", None),
            ({"x-ratelimit-reset-requests": "12ms", "x-ratelimit-reset-tokens": "6m0s"}, "", 300.0),
            (
                {
                    "x-ratelimit-remaining-requests": "0",
                    "x-ratelimit-reset-requests": "8.64s",
                    "x-ratelimit-remaining-tokens": "900",
                    "x-ratelimit-reset-tokens": "1m0s",
                },
                "",
                8.64,
            ),
            ({"x-ratelimit-reset-tokens": "45"}, "", 45.0),
            ({"x-ratelimit-reset-tokens": "0", "x-ratelimit-reset-requests": "soon"}, "", None),
            ({}, "", None),
        ],
    )
    async def test_the_wish_of_the_provider_is_read(
        self, headers: dict[str, str], message: str, seconds: float | None
    ) -> None:
        error = await failure(Answer(status=429, message=message, headers=headers))
        assert error.retry_after_seconds == seconds

    async def test_a_date_counts_from_now(self) -> None:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
        error = await failure(Answer(status=429, headers={"retry-after": date}))
        assert error.retry_after_seconds is not None
        assert 50 < error.retry_after_seconds <= 60

    @pytest.mark.parametrize(("status", "told", "is_retryable"), [(503, "false", False), (400, "true", True)])
    async def test_the_provider_decides_whether_to_repeat(self, status: int, told: str, is_retryable: bool) -> None:
        error = await failure(Answer(status=status, headers={"x-should-retry": told}))
        assert error.is_retryable is is_retryable


class TestSecrets:
    @pytest.mark.parametrize(
        "text",
        [
            f"Incorrect API key provided: {API_KEY}",
            "got Authorization: Bearer abcdefghijkl",
            "your key sk-proj-ABCDEFGH was revoked",
            "header said blue-team-password",
        ],
    )
    async def test_an_error_never_repeats_a_secret(self, text: str) -> None:
        async with ModelServer(always(Answer(status=401, message=text))) as server:
            provider = openai(server, setting={"headers": {"x-team": "blue-team-password"}})
            with pytest.raises(ProviderError) as caught:
                await provider.generate(request(provider="openai", model="gpt-6-luna"), Heard())
            await provider.close()
        shown = "".join(traceback.format_exception(caught.value)) + json.dumps(caught.value.details)
        for secret in (API_KEY, "abcdefghijkl", "ABCDEFGH", "blue-team-password"):
            assert secret not in shown
        assert "***" in caught.value.message

    @pytest.mark.parametrize("then", ["error", "failed"])
    async def test_nor_does_one_inside_a_stream(self, then: str) -> None:
        message = f"the key {API_KEY} is no good"
        answer = (
            Answer(text="x", message=message, after_events=4, then="error")
            if then == "error"
            else Answer(text="x", message=message, stop_reason="failed")
        )
        assert API_KEY not in (await failure(answer)).message

    async def test_a_header_that_cannot_be_sent_is_not_quoted(self) -> None:
        async with ModelServer(always(Answer())) as server:
            provider = openai(server, setting={"headers": {"x-team": "blue\nteam"}})
            with pytest.raises(ProviderError) as caught:
                await provider.generate(request(provider="openai", model="gpt-6-luna"), Heard())
            await provider.close()
        assert (caught.value.code, caught.value.is_retryable) == ("provider.bad_request", False)
        assert "blue" not in "".join(traceback.format_exception(caught.value))

    async def test_a_long_error_is_cut(self) -> None:
        assert len((await failure(Answer(status=400, message="x" * 10_000))).message) < 800


class TestBrokenStreams:
    @pytest.mark.parametrize(
        ("error_code", "message", "code", "is_retryable"),
        [
            ("server_error", "Something broke", "provider.overloaded", True),
            ("rate_limit_exceeded", "Rate limit reached", "provider.rate_limited", True),
            ("vector_store_timeout", "slow", "provider.overloaded", True),
            ("invalid_prompt", "violating our usage policy", "provider.content_refused", False),
            ("context_length_exceeded", "too long", "provider.context_overflow", False),
            ("insufficient_quota", "no money", "provider.quota", False),
            ("invalid_image", "no image", "provider.bad_request", False),
            ("brand_new", "Service Unavailable", "provider.overloaded", True),
        ],
    )
    @pytest.mark.parametrize("then", ["error", "failed"])
    async def test_an_error_inside_a_stream_has_the_same_meaning(
        self, error_code: str, message: str, code: str, is_retryable: bool, then: str
    ) -> None:
        usage = {"input_tokens": 40, "output_tokens": 8}
        if then == "error":
            answer = Answer(text="half", after_events=5, then="error", error_code=error_code, message=message)
        else:
            answer = Answer(text="half", stop_reason="failed", error_code=error_code, message=message, usage=usage)
        error = await failure(answer)
        assert (error.code, error.is_retryable, error.status_code) == (code, is_retryable, None)
        assert message in error.message
        assert error.usage.total_tokens == (48 if then == "failed" else 0)

    async def test_a_failed_answer_reports_its_price(self) -> None:
        seen: list[Usage] = []
        await failure(Answer(stop_reason="failed"), on_usage=seen.append)
        assert seen == [Usage(input_tokens=10, output_tokens=5, total_tokens=15)]

    async def test_an_error_inside_a_stream_may_say_when_to_come_back(self) -> None:
        answer = Answer(stop_reason="failed", error_code="rate_limit_exceeded", message="Please try again in 11s.")
        assert (await failure(answer)).retry_after_seconds == 11

    async def test_an_error_in_an_object_of_its_own_is_read(self) -> None:
        stream = 'data: {"type":"error","error":{"type":"server_error","message":"gateway"}}\n\n'
        error = await failure(Answer(raw_body=stream, content_type=STREAM))
        assert (error.code, "gateway" in error.message) == ("provider.overloaded", True)

    @pytest.mark.parametrize("then", ["end", "die"])
    @pytest.mark.parametrize("after_events", [1, 2, 3, 5, 8])
    async def test_a_stream_without_its_end_is_never_half_an_answer(
        self, then: Literal["end", "die"], after_events: int
    ) -> None:
        error = await failure(Answer(text="hello", after_events=after_events, then=then))
        assert (error.code, error.is_retryable) == ("provider.stream_broken", True)

    async def test_a_connection_that_dies_before_the_answer_is_overload(self) -> None:
        error = await failure(Answer(after_events=0, then="die"))
        assert (error.code, error.is_retryable) == ("provider.overloaded", True)

    @pytest.mark.parametrize(
        "data",
        [
            "not json",
            "[]",
            "{}",
            "[DONE]",
            '{"type":"response.output_text.delta"}',
            '{"type":"response.output_item.added","output_index":0,"item":7}',
            '{"type":"response.completed","response":{"usage":{"input_tokens":"many"}}}',
            '{"type":"response.completed","response":{"output":[{"type":"function_call"}]}}',
        ],
    )
    async def test_an_event_that_cannot_be_read_breaks_the_stream(self, data: str) -> None:
        error = await failure(Answer(raw_body=f"event: any\ndata: {data}\n\n", content_type=STREAM))
        assert (error.code, error.is_retryable) == ("provider.stream_broken", True)
        assert "cannot be read" in error.message

    async def test_bytes_that_are_no_text_break_the_stream(self) -> None:
        async def garble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: \xff\xfe\n\n")
            writer.close()

        async with await asyncio.start_server(garble, "127.0.0.1", 0) as server:
            error = await failure_at(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        assert (error.code, error.is_retryable) == ("provider.stream_broken", True)

    async def test_a_page_instead_of_a_stream_is_called_that(self) -> None:
        error = await failure(Answer(raw_body="<html>", content_type="text/html"))
        assert (error.code, "text/html" in error.message) == ("provider.stream_broken", True)

    async def test_an_answer_counts_although_the_connection_breaks_behind_it(self) -> None:
        async with ModelServer(always(Answer(text="hello", after_events=9, then="die"))) as server:
            provider = openai(server)
            generation = await provider.generate(request(provider="openai", model="gpt-6-luna"), Heard())
            await provider.close()
        assert (generation.contents, generation.finish_reason) == ((TextPart(text="hello"),), "stop")

    async def test_a_failing_listener_is_not_taken_for_a_broken_stream(self) -> None:
        class Deaf(Heard):
            def text(self, delta: str) -> None:
                raise KeyError(delta)

        async with ModelServer(always(Answer(text="hello"))) as server:
            provider = openai(server)
            with pytest.raises(KeyError):
                await provider.generate(request(provider="openai", model="gpt-6-luna"), Deaf())
            await provider.close()


class TestConnections:
    async def test_a_refused_connection_is_worth_repeating(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            error = await failure_at(f"http://127.0.0.1:{port}/v1")
        assert (error.code, error.is_retryable) == ("provider.overloaded", True)
        assert f"127.0.0.1:{port} cannot be reached" in error.message

    @pytest.mark.parametrize("after_events", [0, 5])
    async def test_the_time_limit_holds_for_the_whole_answer(self, after_events: int) -> None:
        started = time.monotonic()
        error = await failure(Answer(text="hello", after_events=after_events, then="hang"), timeout_seconds=0.3)
        assert time.monotonic() - started < 3
        assert (error.code, error.is_retryable) == ("provider.overloaded", True)

    async def test_https_to_a_plain_port_is_final(self) -> None:
        async with ModelServer(always(Answer())) as server:
            error = await failure_at(server.url.replace("http:", "https:"))
        assert (error.code, error.is_retryable) == ("provider.tls", False)

    async def test_calls_go_through_the_proxy(self) -> None:
        async with ModelServer(always(Answer(text="hello"))) as proxy:
            provider = openai(None, env={"OPENAI_BASE_URL": "http://api.invalid/v1", "PERSTACK_PROXY_URL": proxy.url})
            generation = await provider.generate(request(provider="openai", model="gpt-6-luna"), Heard())
            await provider.close()
        assert proxy.requests[-1].target == "http://api.invalid/v1/responses"
        assert generation.contents == (TextPart(text="hello"),)
