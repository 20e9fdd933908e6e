import asyncio
import json
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Literal

import pytest
from perstack.activities.providers import chains
from perstack.activities.providers.failures import ProviderError
from perstack.activities.providers.registry import ProviderRegistry, require_credentials
from perstack.core.failures import CredentialError
from perstack.core.messages import TextPart
from perstack.core.usage import Usage
from support.certificates import untrusted
from support.google_requests import FLASH, credentials, gemini, token_server, vertex
from support.model_requests import API_KEY, Heard, request
from support.model_server import Answer, Json, ModelServer, Script


def always(answer: Answer) -> Script:
    return lambda _: answer


async def failure(answer: Answer, *, heard: Heard | None = None, timeout_seconds: float = 20) -> ProviderError:
    """What a call to a server that gives `answer` raises."""
    async with ModelServer(always(answer)) as server:
        error = await failure_at(server.url, heard=heard, timeout_seconds=timeout_seconds)
        assert len(server.requests) == 1
        return error


async def failure_at(
    url: str, *, heard: Heard | None = None, timeout_seconds: float = 20, setting: Json | None = None
) -> ProviderError:
    provider = gemini(None, env={"GOOGLE_GENERATIVE_AI_BASE_URL": url}, setting=setting)
    with pytest.raises(ProviderError) as caught:
        await provider.generate(
            request(provider="google", model=FLASH, timeout_seconds=timeout_seconds), heard or Heard()
        )
    await provider.close()
    return caught.value


def refusal(status: int, name: str, message: str, *details: Json) -> Answer:
    error = {"code": status, "message": message, "status": name, "details": list(details)}
    return Answer(status=status, raw_body=json.dumps({"error": error}, indent=2))


def streamed(*events: str) -> Answer:
    return Answer(raw_body="".join(events), content_type="text/event-stream")


def quota(quota_id: str) -> Json:
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota_id}]}


def retry(delay: str) -> Json:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


def info(reason: str) -> Json:
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}


PER_DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
PER_MINUTE = "GenerateContentInputTokensPerModelPerMinute-FreeTier"


class TestStatuses:
    @pytest.mark.parametrize(
        ("answer", "kind", "is_retryable"),
        [
            (refusal(400, "INVALID_ARGUMENT", "Unknown name"), "bad_request", False),
            (refusal(400, "INVALID_ARGUMENT", "API key not valid.", info("API_KEY_INVALID")), "auth", False),
            (refusal(400, "INVALID_ARGUMENT", "API key expired. Please renew it."), "auth", False),
            (refusal(400, "FAILED_PRECONDITION", "Please enable billing on project x."), "quota", False),
            (
                refusal(400, "INVALID_ARGUMENT", "The input token count is 9 but model only supports up to 1."),
                "context_overflow",
                False,
            ),
            (refusal(401, "UNAUTHENTICATED", "Request had invalid credentials."), "auth", False),
            (refusal(403, "PERMISSION_DENIED", "Vertex AI API has not been used"), "auth", False),
            (refusal(403, "PERMISSION_DENIED", "No money.", info("BILLING_DISABLED")), "quota", False),
            (refusal(404, "NOT_FOUND", "models/x is not found"), "not_found", False),
            (refusal(429, "RESOURCE_EXHAUSTED", "You exceeded your quota.", quota(PER_MINUTE)), "rate_limited", True),
            (refusal(429, "RESOURCE_EXHAUSTED", "You exceeded your quota.", quota(PER_DAY)), "quota", False),
            (refusal(429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."), "quota", False),
            (refusal(499, "CANCELLED", "The operation was cancelled."), "overloaded", True),
            (refusal(500, "INTERNAL", "An internal error has occurred."), "overloaded", True),
            (refusal(503, "UNAVAILABLE", "The model is overloaded."), "overloaded", True),
            (refusal(504, "DEADLINE_EXCEEDED", "Deadline expired."), "overloaded", True),
        ],
    )
    async def test_status_reason_and_words_tell_what_happened(
        self, answer: Answer, kind: str, is_retryable: bool
    ) -> None:
        error = await failure(answer)
        assert (error.kind, error.is_retryable, error.status_code) == (kind, is_retryable, answer.status)
        assert json.loads(answer.raw_body)["error"]["message"] in error.message
        assert error.hint == ("Check GOOGLE_GENERATIVE_AI_API_KEY." if kind == "auth" else None)

    @pytest.mark.parametrize(
        ("details", "headers", "seconds"),
        [
            ((retry("34s"),), {}, 34),
            ((quota(PER_MINUTE), retry("34.07s")), {"retry-after": "9"}, 34.07),
            ((retry("soon"),), {"retry-after": "9"}, 9),
            ((retry("100000s"),), {}, 300),
            ((), {}, None),
        ],
    )
    async def test_the_pause_is_in_the_details(
        self, details: tuple[Json, ...], headers: dict[str, str], seconds: float | None
    ) -> None:
        answer = refusal(429, "RESOURCE_EXHAUSTED", "slow down", *details)
        error = await failure(Answer(status=429, raw_body=answer.raw_body, headers=headers))
        assert (error.retry_after_seconds, error.is_retryable) == (seconds, True)

    @pytest.mark.parametrize("body", ['[{"error": {"message": "in a list", "status": "UNAVAILABLE"}}]'])
    async def test_an_error_may_come_in_a_list(self, body: str) -> None:
        error = await failure(Answer(status=503, raw_body=body))
        assert (error.kind, "in a list" in error.message) == ("overloaded", True)

    @pytest.mark.parametrize(
        ("body", "kind"),
        [("<html>hidden</html>", "text/html"), ('{"error": "hidden"}', "application/json"), ('"hidden"', ""), ("", "")],
    )
    async def test_an_error_page_is_not_quoted(self, body: str, kind: str) -> None:
        error = await failure(Answer(status=502, raw_body=body, content_type=kind))
        assert (error.code, error.status_code, "hidden" in error.message) == ("provider.overloaded", 502, False)

    async def test_an_error_in_other_letters_than_utf_8_can_be_repeated(self) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 502 No\r\ncontent-type: text/html\r\ncontent-length: 1\r\n\r\n\xfc")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        error = await failure_at(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        server.close()
        assert (error.code, error.is_retryable) == ("provider.stream_broken", True)

    async def test_the_request_id_is_kept_for_support(self) -> None:
        error = await failure(Answer(status=500, headers={"x-goog-request-id": "req_1"}))
        assert error.details == {"requestId": "req_1"}


class TestSecrets:
    @pytest.mark.parametrize("text", [f"bad key {API_KEY}", "header said blue-team-password"])
    async def test_an_error_never_repeats_a_secret(self, text: str) -> None:
        async with ModelServer(always(Answer(status=401, message=text))) as server:
            error = await failure_at(server.url, setting={"headers": {"x-team": "blue-team-password"}})
        shown = "".join(traceback.format_exception(error)) + json.dumps(error.details)
        assert API_KEY not in shown
        assert "blue-team-password" not in shown
        assert "***" in error.message


class TestRefusals:
    async def test_a_refused_prompt_is_final_and_its_cost_is_known(self) -> None:
        feedback = '"promptFeedback": {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "no"}'
        error = await failure(streamed(f'data: {{{feedback}, "usageMetadata": {{"promptTokenCount": 9}}}}\r\n\r\n'))
        assert (error.code, error.is_retryable) == ("provider.content_refused", False)
        assert "PROHIBITED_CONTENT, no" in error.message
        assert error.usage == Usage(input_tokens=9, total_tokens=9)

    @pytest.mark.parametrize(
        ("reason", "kind", "is_retryable"),
        [
            ("MALFORMED_FUNCTION_CALL", "stream_broken", True),
            ("MALFORMED_RESPONSE", "stream_broken", True),
            ("UNEXPECTED_TOOL_CALL", "stream_broken", True),
            ("MISSING_THOUGHT_SIGNATURE", "bad_request", False),
            ("PUP_LIMITED_DISABLED", "auth", False),
        ],
    )
    async def test_an_answer_that_is_worth_nothing_is_an_error(
        self, reason: str, kind: str, is_retryable: bool
    ) -> None:
        blocks: tuple[Json, ...] = ({"candidate": {"finishMessage": "call:look{"}},)
        error = await failure(Answer(blocks=blocks, stop_reason=reason))
        assert (error.kind, error.is_retryable) == (kind, is_retryable)
        assert f"({reason}): call:look{{" in error.message
        assert error.usage.total_tokens == 15


class TestBrokenStreams:
    @pytest.mark.parametrize(
        ("error_type", "message", "code", "is_retryable"),
        [
            ("UNAVAILABLE", "The model is overloaded.", "provider.overloaded", True),
            ("INTERNAL", "An internal error has occurred.", "provider.overloaded", True),
            ("RESOURCE_EXHAUSTED", "too fast", "provider.rate_limited", True),
            ("BRAND_NEW", "what?", "provider.overloaded", True),
            ("INVALID_ARGUMENT", "The input token count exceeds it", "provider.context_overflow", False),
        ],
    )
    async def test_an_error_event_fails_the_call(
        self, error_type: str, message: str, code: str, is_retryable: bool
    ) -> None:
        answer = Answer(
            text="half an answer", delta_size=5, after_events=2, then="error", error_type=error_type, message=message
        )
        error = await failure(answer)
        assert (error.code, error.is_retryable, error.status_code) == (code, is_retryable, None)
        assert message in error.message
        assert error.usage.input_tokens == 10

    @pytest.mark.parametrize(("before", "after"), [("", ""), ("[", "]"), ("\r\n", "\r\n")])
    async def test_an_error_written_behind_the_events_is_read_too(self, before: str, after: str) -> None:
        loose = json.dumps({"error": {"code": 503, "message": "gone", "status": "UNAVAILABLE"}}, indent=2)
        half = 'data: {"candidates": [{"content": {"parts": [{"text": "half"}]}}]}\r\n\r\n'
        error = await failure(streamed(half, before, loose, after))
        assert (error.code, "gone" in error.message) == ("provider.overloaded", True)

    @pytest.mark.parametrize(
        "detail", ['{"message": "what?"}', '{"code": 429, "message": "x"}', '{"message": "Service Unavailable"}']
    )
    async def test_an_error_that_says_little_is_repeated(self, detail: str) -> None:
        error = await failure(streamed(f'data: {{"error": {detail}}}\n\n'))
        assert error.is_retryable

    @pytest.mark.parametrize("then", ["end", "die"])
    @pytest.mark.parametrize(("after_events", "input_tokens"), [(1, 40), (2, 40)])
    async def test_a_stream_without_its_end_is_never_half_an_answer(
        self, then: Literal["end", "die"], after_events: int, input_tokens: int
    ) -> None:
        usage = {"promptTokenCount": 40, "candidatesTokenCount": 8}
        heard = Heard()
        answer = Answer(text="hello", delta_size=3, usage=usage, after_events=after_events, then=then)
        error = await failure(answer, heard=heard)
        assert (error.code, error.is_retryable) == ("provider.stream_broken", True)
        assert error.usage.input_tokens == input_tokens
        assert heard.pieces

    async def test_an_empty_stream_is_broken(self) -> None:
        error = await failure(streamed("\r\n"))
        assert (error.code, error.is_retryable) == ("provider.stream_broken", True)

    @pytest.mark.parametrize(
        "data", ["not json", "[]", "7", '{"candidates": 7}', '{"candidates": [{"content": {"parts": [{"text": 7}]}}]}']
    )
    async def test_an_event_that_cannot_be_read_breaks_the_stream(self, data: str) -> None:
        error = await failure(streamed(f"data: {data}\r\n\r\n"))
        assert (error.code, error.is_retryable) == ("provider.stream_broken", True)

    async def test_a_page_instead_of_a_stream_is_called_that(self) -> None:
        error = await failure(Answer(raw_body="<html>\n<p>hi", content_type="text/html"))
        assert (error.code, "text/html" in error.message) == ("provider.stream_broken", True)

    async def test_an_answer_counts_although_the_connection_breaks_behind_it(self) -> None:
        async with ModelServer(always(Answer(text="hello", after_events=2, then="die"))) as server:
            provider = gemini(server)
            generation = await provider.generate(request(provider="google", model=FLASH), Heard())
            await provider.close()
        assert (generation.contents, generation.finish_reason) == ((TextPart(text="hello"),), "stop")

    async def test_a_failing_listener_is_not_taken_for_a_broken_stream(self) -> None:
        class Deaf(Heard):
            def text(self, delta: str) -> None:
                raise KeyError(delta)

        answer = Answer(text="hello", delta_size=2, after_events=2, then="hang")
        async with ModelServer(always(answer)) as server:
            provider = gemini(server)
            with pytest.raises(KeyError):
                await provider.generate(request(provider="google", model=FLASH), Deaf())
            # And the connection is let go, though the server would go on.
            async with asyncio.timeout(5):
                while not server.abandoned:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await provider.close()


class TestConnections:
    async def test_a_refused_connection_is_worth_repeating(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            error = await failure_at(f"http://127.0.0.1:{port}")
        assert (error.code, error.is_retryable) == ("provider.overloaded", True)
        assert f"127.0.0.1:{port} cannot be reached" in error.message

    async def test_a_connection_that_dies_before_the_answer_is_repeated(self) -> None:
        error = await failure(Answer(after_events=0, then="die"))
        assert error.is_retryable

    @pytest.mark.parametrize("after_events", [0, 1])
    async def test_the_time_limit_holds_for_the_whole_answer(self, after_events: int) -> None:
        started = time.monotonic()
        answer = Answer(text="hello", after_events=after_events, then="hang")
        error = await failure(answer, timeout_seconds=0.5)
        assert time.monotonic() - started < 4
        assert (error.code, error.is_retryable) == ("provider.overloaded", True)

    async def test_a_stranger_s_certificate_is_final(self, tmp_path: Path) -> None:
        async with ModelServer(always(Answer()), tls=untrusted(tmp_path)) as server:
            error = await failure_at(server.url)
        assert (error.code, error.is_retryable) == ("provider.tls", False)


async def vertex_failure(folder: Path, **options: Any) -> ProviderError:
    provider = vertex(None, folder, **options)
    with pytest.raises(ProviderError) as caught:
        await provider.generate(request(provider="google-vertex", model=FLASH), Heard())
    await provider.close()
    return caught.value


class TestTokens:
    async def test_refused_credentials_are_final(self, tmp_path: Path) -> None:
        body = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
        async with token_server(400, body) as tokens:
            error = await vertex_failure(tmp_path, tokens=tokens.url)
        assert (error.code, error.is_retryable) == ("provider.auth", False)
        assert "Invalid JWT Signature" in error.message
        assert "GOOGLE_APPLICATION_CREDENTIALS" in (error.hint or "")
        assert len(tokens.asked) == 1

    async def test_a_token_server_out_of_order_is_worth_repeating(self, tmp_path: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
            error = await vertex_failure(tmp_path, tokens=f"http://{address}")
        assert (error.code, error.is_retryable) == ("provider.overloaded", True)
        assert f"{address} cannot be reached" in error.message

    @pytest.mark.parametrize("text", ["{}", '{"type": "service_account"}', '{"type": "authorized_user"}'])
    async def test_a_file_that_holds_something_else_is_named(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "other.json"
        path.write_text(text)
        env = {"GOOGLE_APPLICATION_CREDENTIALS": str(path), "GOOGLE_VERTEX_PROJECT": "p"}
        error = await vertex_failure(tmp_path, env=env)
        assert (error.code, error.is_retryable) == ("provider.auth", False)


class TestRegistry:
    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """No machine of Google, no developer's own credentials."""
        monkeypatch.setattr(chains, "_GOOGLE_MACHINE", str(tmp_path / "none"))
        monkeypatch.setenv("HOME", str(tmp_path))

    @pytest.mark.parametrize("value", [None, "", "  "])
    def test_a_missing_key_is_named(self, value: str | None) -> None:
        env = {} if value is None else {"GOOGLE_GENERATIVE_AI_API_KEY": value}
        with pytest.raises(CredentialError, match="GOOGLE_GENERATIVE_AI_API_KEY is not set"):
            require_credentials("google", env, {})

    def test_a_missing_chain_is_named(self) -> None:
        with pytest.raises(CredentialError, match="GOOGLE_APPLICATION_CREDENTIALS is not set") as caught:
            require_credentials("google-vertex", {"GOOGLE_VERTEX_PROJECT": "p"}, {})
        assert "gcloud auth application-default login" in (caught.value.hint or "")

    @pytest.mark.parametrize("text", [None, "not json", "[]"])
    def test_a_file_without_credentials_is_named(self, tmp_path: Path, text: str | None) -> None:
        path = tmp_path / "key.json"
        if text is not None:
            path.write_text(text)
        with pytest.raises(CredentialError, match=r"GOOGLE_APPLICATION_CREDENTIALS: `.*key\.json` is no readable"):
            require_credentials("google-vertex", {"GOOGLE_APPLICATION_CREDENTIALS": str(path)}, {})

    def test_the_project_may_come_from_five_places(self, tmp_path: Path) -> None:
        path = tmp_path / "größe.json"
        path.write_text('{"type": "authorized_user"}')
        env = {"GOOGLE_APPLICATION_CREDENTIALS": str(path)}
        with pytest.raises(CredentialError, match="GOOGLE_VERTEX_PROJECT is not set"):
            require_credentials("google-vertex", env, {})
        require_credentials("google-vertex", env, {"project": "p"})
        require_credentials("google-vertex", env, {"baseUrl": "https://a.test/v1/projects/p/locations/us"})
        require_credentials("google-vertex", {**env, "GOOGLE_VERTEX_PROJECT": "p"}, {})
        require_credentials("google-vertex", {**env, "GOOGLE_CLOUD_PROJECT": "p"}, {})
        env = {"GOOGLE_APPLICATION_CREDENTIALS": str(credentials(tmp_path, "http://a.test"))}
        require_credentials("google-vertex", env, {})

    def test_a_machine_of_google_has_credentials_and_a_project(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        require_credentials("google-vertex", {"K_SERVICE": "mine"}, {})
        product = tmp_path / "product_name"
        product.write_text("Google Compute Engine\n")
        monkeypatch.setattr(chains, "_GOOGLE_MACHINE", str(product))
        require_credentials("google-vertex", {}, {})

    async def test_one_provider_serves_one_full_configuration(self, tmp_path: Path) -> None:
        env = {"GOOGLE_APPLICATION_CREDENTIALS": str(credentials(tmp_path, "http://a.test"))}
        registry = ProviderRegistry()
        first = registry.provider("google-vertex", env=env, setting={})
        assert registry.provider("google-vertex", env={**env, "UNRELATED": "1"}, setting={}) is first
        assert registry.provider("google-vertex", env={**env, "GOOGLE_VERTEX_LOCATION": "eu"}, setting={}) is not first
        await registry.close()

    def test_an_address_that_is_none_is_refused_at_once(self) -> None:
        with pytest.raises(CredentialError, match="Not a URL"):
            gemini(None, env={"GOOGLE_GENERATIVE_AI_BASE_URL": "api.test"})

    async def test_a_variable_that_breaks_the_sdk_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GOOGLE_GENAI_HTTP_CLIENT", "httpx")
        monkeypatch.setattr("google.genai._api_client.httpx", None)
        provider = gemini(None)
        with pytest.raises(CredentialError, match="GOOGLE_GENAI_HTTP_CLIENT"):
            await provider.generate(request(provider="google", model=FLASH), Heard())
        await provider.close()

    def test_checking_credentials_imports_no_sdk(self) -> None:
        program = (
            "import sys\n"
            "from perstack.activities.providers.registry import ProviderRegistry, require_credentials\n"
            "require_credentials('google', {'GOOGLE_GENERATIVE_AI_API_KEY': 'k'}, {})\n"
            "require_credentials('google-vertex', {'K_SERVICE': 'k'}, {})\n"
            "ProviderRegistry()\n"
            "sys.exit(any(name.startswith(('google', 'httpx2')) for name in sys.modules))\n"
        )
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
