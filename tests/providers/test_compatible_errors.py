import asyncio
import json
import socket
import ssl
import time
import traceback
from pathlib import Path
from typing import Literal

import pytest
from perstack.activities.providers.failures import ProviderError
from perstack.activities.providers.registry import ProviderRegistry, require_credentials
from perstack.core.failures import CredentialError
from perstack.core.messages import TextPart
from perstack.core.profiles.providers import PROVIDERS
from perstack.core.usage import Usage
from support.certificates import untrusted
from support.model_requests import API_KEY, Heard, compatible, request
from support.model_server import Answer, ModelServer, Script

everybody = pytest.mark.parametrize("name", ["fireworks", "deepseek", "ollama"])


def always(answer: Answer) -> Script:
    return lambda _: answer


async def failure(
    answer: Answer,
    name: str = "deepseek",
    *,
    heard: Heard | None = None,
    timeout_seconds: float = 20,
    tls: ssl.SSLContext | None = None,
) -> ProviderError:
    """What a call to a server that gives `answer` raises."""
    async with ModelServer(always(answer), tls=tls) as server:
        return await failure_at(server.url, name, heard=heard, timeout_seconds=timeout_seconds)


async def failure_at(
    url: str, name: str = "deepseek", *, heard: Heard | None = None, timeout_seconds: float = 20, proxy: str = ""
) -> ProviderError:
    env = {PROVIDERS[name].base_url_env: url, "PERSTACK_PROXY_URL": proxy}
    provider = compatible(name, None, env=env)
    with pytest.raises(ProviderError) as caught:
        await provider.generate(request(provider=name, timeout_seconds=timeout_seconds), heard or Heard())
    await provider.close()
    return caught.value


class TestStatuses:
    @pytest.mark.parametrize(
        ("name", "status", "error_type", "error_code", "message", "code", "is_retryable"),
        [
            # https://api-docs.deepseek.com/quick_start/error_codes
            ("deepseek", 400, "invalid_request_error", "invalid_request_error", "Invalid format", "bad_request", False),
            (
                "deepseek", 400, "invalid_request_error", "invalid_request_error",
                "This model's maximum context length is 1048576 tokens. However, you requested 2000000 tokens",
                "context_overflow", False,
            ),
            ("deepseek", 401, "authentication_error", "invalid_request_error", "no such key", "auth", False),
            ("deepseek", 402, "unknown_error", "invalid_request_error", "Insufficient Balance", "quota", False),
            ("deepseek", 422, "invalid_request_error", "", "Invalid parameters", "bad_request", False),
            ("deepseek", 429, "rate_limit_error", "", "Rate limit reached", "rate_limited", True),
            ("deepseek", 500, "api_error", "", "Server error", "overloaded", True),
            ("deepseek", 503, "service_unavailable_error", "", "Server overloaded", "overloaded", True),
            ("fireworks", 400, "invalid_request_error", "", "Input validation error", "bad_request", False),
            (
                "fireworks", 400, "invalid_request_error", "",
                "The prompt is too long: 1200012, model maximum context length: 1048573", "context_overflow", False,
            ),
            ("fireworks", 401, "error", "UNAUTHORIZED", "The API key is invalid.", "auth", False),
            ("fireworks", 402, "error", "", "Spending limit reached", "quota", False),
            ("fireworks", 403, "error", "", "no access", "auth", False),
            (
                "fireworks", 412, "error", "PRECONDITION_FAILED",
                "Account x is suspended, possibly due to reaching the monthly spending limit", "quota", False,
            ),
            (
                "fireworks", 404, "error", "NOT_FOUND",
                "Model not found, inaccessible, and/or not deployed", "not_found", False,
            ),
            ("fireworks", 408, "error", "", "Request timeout", "overloaded", True),
            ("fireworks", 409, "error", "", "try again", "overloaded", True),
            ("fireworks", 413, "error", "", "payload too large", "bad_request", False),
            ("fireworks", 429, "error", "", "too fast", "rate_limited", True),
            ("fireworks", 500, "error", "", "Internal error", "overloaded", True),
            ("fireworks", 502, "error", "", "Bad gateway", "overloaded", True),
            ("fireworks", 504, "error", "", "too slow", "overloaded", True),
            ("fireworks", 520, "error", "", "what?", "overloaded", True),
            ("ollama", 400, "invalid_request_error", "", '"gemma3" does not support tools', "bad_request", False),
            (
                "ollama", 400, "exceed_context_size_error", "",
                "the request exceeds the available context size", "context_overflow", False,
            ),
            ("ollama", 401, "api_error", "", "unauthorized", "auth", False),
            ("ollama", 404, "not_found_error", "", "model 'mine' not found", "not_found", False),
            ("ollama", 500, "api_error", "", "llama runner process has terminated", "overloaded", True),
            ("ollama", 503, "api_error", "", "server busy, please try again", "overloaded", True),
        ],
    )  # fmt: skip
    async def test_each_status_has_one_meaning(
        self, name: str, status: int, error_type: str, error_code: str, message: str, code: str, is_retryable: bool
    ) -> None:
        answer = Answer(status=status, error_type=error_type, error_code=error_code, message=message)
        error = await failure(answer, name)
        assert (error.code, error.is_retryable, error.status_code) == (f"provider.{code}", is_retryable, status)
        assert message in error.message
        assert error.message.startswith(PROVIDERS[name].title)

    @pytest.mark.parametrize(
        "body",
        [
            '{"error": "model \'mine\' not found"}',
            '{"error": {"message": "model \'mine\' not found"}}',
            '{"message": "model \'mine\' not found"}',
            '{"detail": "model \'mine\' not found"}',
        ],
    )
    @everybody
    async def test_the_words_of_an_error_are_found_wherever_they_are(self, name: str, body: str) -> None:
        error = await failure(Answer(status=404, raw_body=body), name)
        assert error.code == "provider.not_found"
        assert "model 'mine' not found" in error.message

    async def test_an_error_page_is_not_quoted(self) -> None:
        error = await failure(Answer(status=502, raw_body="<html>secret</html>", content_type="text/html"))
        assert (error.code, "html" in error.message) == ("provider.overloaded", False)

    @pytest.mark.parametrize("status", [400, 429, 503])
    @everybody
    async def test_the_request_is_sent_once(self, name: str, status: int) -> None:
        async with ModelServer(always(Answer(status=status))) as server:
            await failure_at(server.url, name)
        assert len(server.requests) == 1

    async def test_the_request_id_is_kept_for_support(self) -> None:
        error = await failure(Answer(status=500, headers={"x-request-id": "req_1"}))
        assert error.details == {"requestId": "req_1"}

    @pytest.mark.parametrize(
        ("name", "hint"),
        [("fireworks", "Check FIREWORKS_API_KEY."), ("deepseek", "Check DEEPSEEK_API_KEY."), ("ollama", None)],
    )
    async def test_refused_credentials_name_the_variable(self, name: str, hint: str | None) -> None:
        error = await failure(Answer(status=401), name)
        assert (error.code, error.hint) == ("provider.auth", hint)

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"retry-after-ms": "1500"}, 1.5),
            ({"retry-after": "9"}, 9.0),
            ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
            ({}, None),
        ],
    )
    async def test_the_wish_of_the_provider_is_read(self, headers: dict[str, str], seconds: float | None) -> None:
        error = await failure(Answer(status=429, headers=headers), "fireworks")
        assert error.retry_after_seconds == seconds


class TestSecrets:
    @pytest.mark.parametrize(
        "text",
        [f"invalid key {API_KEY}", "got Authorization: Bearer abcdefghijkl", "header said blue-team-password"],
    )
    @pytest.mark.parametrize("status", [200, 401])
    async def test_an_error_never_repeats_a_secret(self, status: int, text: str) -> None:
        answer = Answer(status=status, message=text, text="x", after_events=1, then="error")
        async with ModelServer(always(answer)) as server:
            provider = compatible("fireworks", server, setting={"headers": {"x-team": "blue-team-password"}})
            with pytest.raises(ProviderError) as caught:
                await provider.generate(request(), Heard())
            await provider.close()
        shown = "".join(traceback.format_exception(caught.value)) + json.dumps(caught.value.details)
        for secret in (API_KEY, "abcdefghijkl", "blue-team-password"):
            assert secret not in shown
        assert "***" in caught.value.message

    async def test_a_header_that_cannot_be_sent_is_not_quoted(self) -> None:
        async with ModelServer(always(Answer())) as server:
            provider = compatible("ollama", server, setting={"headers": {"x-team": "blue\nteam"}})
            with pytest.raises(ProviderError) as caught:
                await provider.generate(request(), Heard())
            await provider.close()
        assert (caught.value.code, caught.value.is_retryable) == ("provider.bad_request", False)
        assert "blue" not in "".join(traceback.format_exception(caught.value))


class TestBrokenStreams:
    @pytest.mark.parametrize(
        ("error_type", "error_code", "message", "code", "is_retryable"),
        [
            ("server_error", "", "Internal server error", "provider.overloaded", True),
            ("service_unavailable_error", "", "busy", "provider.overloaded", True),
            ("rate_limit_error", "", "too fast", "provider.rate_limited", True),
            ("brand_new_error", "", "what?", "provider.stream_broken", True),
            ("api_error", "", "Service Unavailable", "provider.overloaded", True),
            ("x", "context_length_exceeded", "too long", "provider.context_overflow", False),
            ("x", "content_filter", "not this", "provider.content_refused", False),
            ("x", "insufficient_quota", "no money", "provider.quota", False),
        ],
    )
    @everybody
    async def test_an_error_inside_the_stream_fails_the_call(
        self, name: str, error_type: str, error_code: str, message: str, code: str, is_retryable: bool
    ) -> None:
        answer = Answer(
            text="half an answer", after_events=2, then="error",
            error_type=error_type, error_code=error_code, message=message,
        )  # fmt: skip
        error = await failure(answer, name)
        assert (error.code, error.is_retryable, error.status_code) == (code, is_retryable, None)
        assert message in error.message

    @pytest.mark.parametrize(
        "event",
        [
            'data: {"error": "out of memory"}',
            'data: {"error": {"message": "out of memory", "code": 500}}',
            'event: error\ndata: {"message": "out of memory"}',
            'data: {"object": "error", "message": "out of memory", "code": 40303}',
        ],
    )
    async def test_an_error_inside_the_stream_comes_in_many_forms(self, event: str) -> None:
        error = await failure(Answer(raw_body=f"{event}\n\n", content_type="text/event-stream"))
        assert (error.code, error.is_retryable) == ("provider.stream_broken", True)
        assert "out of memory" in error.message

    @pytest.mark.parametrize("reason", ["insufficient_system_resource", "error", "abort"])
    async def test_an_answer_that_the_server_gave_up_is_worth_repeating(self, reason: str) -> None:
        error = await failure(Answer(text="half", stop_reason=reason))
        assert (error.code, error.is_retryable) == ("provider.stream_broken", True)
        assert reason in error.message
        assert error.usage == Usage(input_tokens=10, output_tokens=5, total_tokens=15)

    @pytest.mark.parametrize("then", ["end", "die"])
    @pytest.mark.parametrize("after_events", [1, 2])
    @everybody
    async def test_a_stream_without_its_end_is_never_half_an_answer(
        self, name: str, after_events: int, then: Literal["end", "die"]
    ) -> None:
        answer = Answer(text="hello", delta_size=2, after_events=after_events, then=then)
        error = await failure(answer, name)
        assert (error.code, error.is_retryable) == ("provider.stream_broken", True)

    async def test_usage_that_came_before_the_break_is_kept(self) -> None:
        usage = {"prompt_tokens": 40, "completion_tokens": 8}
        chunk = {"choices": [{"index": 0, "delta": {"content": "x"}}], "usage": usage}
        error = await failure(Answer(blocks=(chunk, {"content": "y"}), after_events=1, then="die"))
        assert error.usage == Usage(input_tokens=40, output_tokens=8, total_tokens=48)

    async def test_a_connection_that_dies_behind_the_finish_reason_has_not_told_the_usage(self) -> None:
        error = await failure(Answer(text="hello", after_events=3, then="die"))
        assert error.code == "provider.stream_broken"

    @pytest.mark.parametrize("after_events", [3, 4])
    async def test_a_server_may_end_without_a_last_word(self, after_events: int) -> None:
        async with ModelServer(always(Answer(text="hello", after_events=after_events, then="end"))) as server:
            provider = compatible("fireworks", server)
            generation = await provider.generate(request(), Heard())
            await provider.close()
        assert (generation.contents, generation.finish_reason) == ((TextPart(text="hello"),), "stop")

    async def test_a_last_word_alone_is_no_answer(self) -> None:
        error = await failure(Answer(raw_body="data: [DONE]\n\n", content_type="text/event-stream"))
        assert (error.code, error.is_retryable) == ("provider.stream_broken", True)

    async def test_an_answer_counts_although_the_connection_breaks_behind_it(self) -> None:
        async with ModelServer(always(Answer(text="hello", after_events=5, then="die"))) as server:
            provider = compatible("deepseek", server)
            generation = await provider.generate(request(), Heard())
            await provider.close()
        assert generation.usage.total_tokens == 15

    async def test_a_connection_that_dies_before_the_answer_is_overload(self) -> None:
        error = await failure(Answer(after_events=0, then="die"))
        assert (error.code, error.is_retryable) == ("provider.overloaded", True)

    @pytest.mark.parametrize(
        "data",
        [
            "not json",
            "[]",
            "7",
            '{"choices": 7}',
            '{"choices": [7]}',
            '{"choices": [{"delta": []}, {"delta": [1]}]}',
            '{"choices": [{"delta": {"tool_calls": [7]}}]}',
            '{"choices": [], "usage": 7}',
            '{"choices": [{"delta": {"content": 7}}]}',
            '{"choices": [{"delta": {"content": [{"type": "text"}]}}]}',
            '{"choices": [{"delta": {"tool_calls": [{"index": 0, "id": 7}]}}]}',
            '{"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": {"x": 1}}}]}}]}',
            '{"choices": [{"delta": {}, "finish_reason": 7}]}',
            '{"model": 7}',
        ],
    )
    async def test_an_event_that_cannot_be_read_breaks_the_stream(self, data: str) -> None:
        end = 'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
        error = await failure(Answer(raw_body=f"data: {data}\n\n{end}", content_type="text/event-stream"))
        assert (error.code, error.is_retryable) == ("provider.stream_broken", True)

    async def test_signs_of_life_are_passed_over(self) -> None:
        stream = (
            ": keep-alive\n\n: keep-alive\n\ndata:\n\n"
            'data: {"choices": [{"delta": {"content": "hello"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
        )
        async with ModelServer(always(Answer(raw_body=stream, content_type="text/event-stream"))) as server:
            provider = compatible("deepseek", server)
            generation = await provider.generate(request(), Heard())
            await provider.close()
        assert generation.contents == (TextPart(text="hello"),)

    async def test_a_page_instead_of_a_stream_is_called_that(self) -> None:
        error = await failure(Answer(raw_body="<html>", content_type="text/html"))
        assert (error.code, "text/html" in error.message) == ("provider.stream_broken", True)

    async def test_a_failing_listener_is_not_taken_for_a_broken_stream(self) -> None:
        class Deaf(Heard):
            def text(self, delta: str) -> None:
                raise KeyError(delta)

        async with ModelServer(always(Answer(text="hello"))) as server:
            provider = compatible("fireworks", server)
            with pytest.raises(KeyError):
                await provider.generate(request(), Deaf())
            await provider.close()


class TestConnections:
    @everybody
    async def test_a_refused_connection_is_worth_repeating(self, name: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            error = await failure_at(f"http://127.0.0.1:{port}", name)
        assert (error.code, error.is_retryable) == ("provider.overloaded", True)
        assert f"{PROVIDERS[name].title} at 127.0.0.1:{port} cannot be reached" in error.message

    @pytest.mark.parametrize("after_events", [0, 2])
    async def test_the_time_limit_holds_for_the_whole_answer(self, after_events: int) -> None:
        answer = Answer(text="hello", after_events=after_events, then="hang")
        started = time.monotonic()
        error = await failure(answer, timeout_seconds=0.3)
        assert time.monotonic() - started < 3
        assert (error.code, error.is_retryable) == ("provider.overloaded", True)
        assert "0.3 s" in error.message or "in time" in error.message

    async def test_a_stranger_s_certificate_is_final(self, tmp_path: Path) -> None:
        error = await failure(Answer(), "ollama", tls=untrusted(tmp_path))
        assert (error.code, error.is_retryable) == ("provider.tls", False)

    async def test_https_to_a_plain_port_is_final(self) -> None:
        async with ModelServer(always(Answer())) as server:
            error = await failure_at(server.url.replace("http:", "https:"))
        assert (error.code, error.is_retryable) == ("provider.tls", False)

    async def test_a_proxy_that_refuses_is_named(self) -> None:
        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        proxy = f"http://user:hunter22@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        error = await failure_at("https://api.test", "fireworks", proxy=proxy)
        server.close()
        assert (error.code, error.is_retryable) == ("provider.proxy", False)
        assert "hunter22" not in str(error)


class TestRegistry:
    @pytest.mark.parametrize("name", ["fireworks", "deepseek"])
    @pytest.mark.parametrize("value", [None, "", "  "])
    def test_a_missing_key_is_named(self, name: str, value: str | None) -> None:
        variable = f"{name.upper()}_API_KEY"
        with pytest.raises(CredentialError, match=f"{variable} is not set"):
            require_credentials(name, {} if value is None else {variable: value}, {})

    def test_ollama_needs_no_key(self) -> None:
        require_credentials("ollama", {}, {})

    @everybody
    async def test_one_provider_serves_one_full_configuration(self, name: str) -> None:
        profile = PROVIDERS[name]
        env = dict.fromkeys(profile.required_env, API_KEY)
        registry = ProviderRegistry()
        first = registry.provider(name, env=env, setting={})
        assert registry.provider(name, env={**env, "HOME": "/"}, setting={}) is first
        others = [
            registry.provider(name, env={**env, profile.base_url_env: "http://a.test"}, setting={}),
            registry.provider(name, env={**env, "PERSTACK_PROXY_URL": "http://p.test"}, setting={}),
            registry.provider(name, env=env, setting={"headers": {"x": "1"}}),
        ]
        assert len({id(provider) for provider in (first, *others)}) == 4
        assert API_KEY not in repr(vars(registry))
        await registry.close()

    @everybody
    def test_an_address_that_is_none_is_refused_at_once(self, name: str) -> None:
        profile = PROVIDERS[name]
        env = {**dict.fromkeys(profile.required_env, API_KEY), profile.base_url_env: "ftp://a.test"}
        with pytest.raises(CredentialError, match=f"Not a URL for {profile.title}"):
            ProviderRegistry().provider(name, env=env, setting={})
