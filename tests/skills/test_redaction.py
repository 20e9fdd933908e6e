"""What never leaves the worker, and what does."""

import base64
import json
import random
import re
import string
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perstack.activities.redaction import MASK, Redactor, secrets_of_run
from perstack.core.expert import McpStdioSkill
from perstack.core.messages import FileInlinePart, ImageInlinePart, Source, TextPart
from perstack.core.tools import AddSkill, ToolOutcome, ToolSpec, text_outcome

KEY = "sk-live-Zq81/+xY=mW0"
PASSWORD = 'pä"ss\\wörd'
PEM = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ\n-----END KEY-----"
REDACTOR = Redactor([KEY, PASSWORD, PEM, "short"])
SMALL = st.text("ab", min_size=8, max_size=11)


@pytest.mark.parametrize("secret", [KEY, PASSWORD, PEM, PEM.splitlines()[1]])
def test_a_secret_is_replaced_wherever_it_stands(secret: str) -> None:
    assert REDACTOR.text(secret) == MASK
    assert REDACTOR.text(f"a{secret}b {secret}") == f"a{MASK}b {MASK}"


@pytest.mark.parametrize("secret", [KEY, PASSWORD, PEM])
def test_a_secret_is_replaced_in_the_forms_that_json_urls_and_base64_give_it(secret: str) -> None:
    forms = [json.dumps({"x": secret}), json.dumps({"x": secret}, ensure_ascii=False)]
    if secret.isprintable():
        forms += [f"q={quote(secret)}&", f"q={quote(secret, safe='')}&", f"q={quote_plus(secret)}&"]
        forms += [re.sub("%..", lambda match: match[0].lower(), quote(secret))]
    for form in forms:
        assert MASK in REDACTOR.text(form)
        assert secret not in REDACTOR.text(form)


@given(st.binary(max_size=7), st.binary(max_size=7), st.sampled_from([KEY, PASSWORD]), st.booleans())
def test_a_secret_in_base64_is_found_at_every_place_of_a_group(
    before: bytes, after: bytes, secret: str, is_for_urls: bool
) -> None:
    encode = base64.urlsafe_b64encode if is_for_urls else base64.b64encode
    assert MASK in REDACTOR.text(f"Authorization: Basic {encode(before + secret.encode() + after).decode()}")


def test_text_without_a_secret_stays_the_same_object() -> None:
    text = "short, sk-live-Zq81, -----BEGIN KEY-----"
    assert REDACTOR.text(text) is text
    assert Redactor([]).text(text) is text
    outcome = ToolOutcome(result=(TextPart(text=text), ImageInlinePart(encoded_data="aGk=", mime_type="image/png")))
    assert REDACTOR.outcome(outcome) is outcome


def test_secrets_that_overlap_leave_nothing_of_either() -> None:
    redactor = Redactor(["abcdefghij", "fghijklmnop", "abcdefghijklmnopqrst"])
    assert redactor.text("-abcdefghijklmnop-") == f"-{MASK}-"
    assert redactor.text("-abcdefghijklmnopqrst-") == f"-{MASK}-"
    assert redactor.text("abcdefghijabcdefghij") == MASK * 2


@given(st.lists(SMALL, min_size=1, max_size=4), st.text("abc", max_size=60))
def test_no_secret_is_left_whatever_overlaps(secrets: list[str], text: str) -> None:
    clean = Redactor(secrets).text(text)
    assert not any(secret in piece for secret in secrets for piece in clean.split(MASK))
    assert (clean == text) == (not any(secret in text for secret in secrets))


@given(st.lists(SMALL, min_size=1, max_size=4), st.lists(st.text("abc", max_size=9), max_size=12))
def test_a_stream_says_what_the_whole_text_would(secrets: list[str], pieces: list[str]) -> None:
    redactor = Redactor(secrets)
    stream = redactor.stream()
    given = [stream.feed(piece) for piece in pieces]
    whole = "".join((*given, stream.flush()))
    assert whole == redactor.text("".join(pieces))
    assert stream.flush() == ""


@pytest.mark.parametrize("secret", [KEY, PEM])
def test_a_stream_replaces_a_secret_that_comes_in_single_characters(secret: str) -> None:
    stream = REDACTOR.stream()
    shown = "".join([*(stream.feed(letter) for letter in f"key: {secret}, done"), stream.flush()])
    assert shown == f"key: {MASK}, done"


def test_a_stream_holds_back_nothing_but_the_possible_start_of_a_secret() -> None:
    stream = REDACTOR.stream()
    assert stream.feed("Hello, wor") == "Hello, wor"
    assert stream.feed("ld sk-li") == "ld "
    assert stream.feed("ke a …") == "sk-like a …"
    assert stream.feed(" sk-live-Zq81") == " "
    assert stream.flush() == "sk-live-Zq81"


@given(st.lists(SMALL, min_size=1, max_size=3), st.text("ab", max_size=80))
def test_a_stream_holds_back_less_than_one_secret(secrets: list[str], text: str) -> None:
    stream = Redactor(secrets).stream()
    for letter in text:
        stream.feed(letter)
    assert len(stream.flush()) < max(map(len, secrets)) + len(MASK)


def test_nested_values_and_their_keys_are_scrubbed() -> None:
    value: Any = {KEY: [1, None, True, {"deep": f"<{KEY}>"}, (KEY,)], "n": 1.5}
    assert REDACTOR.value(value) == {MASK: [1, None, True, {"deep": f"<{MASK}>"}, [MASK]], "n": 1.5}


def test_an_outcome_keeps_what_it_is_and_loses_its_secrets() -> None:
    parts = (
        TextPart(id="1", text=f"key {KEY}", sources=(Source(url=f"https://x.test/?key={quote(KEY)}"),)),
        TextPart(id="2", text="plain"),
        ImageInlinePart(id="3", encoded_data=base64.b64encode(b"PNG" + KEY.encode()).decode(), mime_type="image/png"),
        FileInlinePart(id="4", encoded_data=base64.b64encode(b"%PDF").decode(), mime_type="application/pdf"),
    )
    skill = McpStdioSkill(name="far", command="npx", package_name="far")
    spec = ToolSpec(name="t", skill_name="far", description=f"uses {KEY}", input_schema={"default": KEY})
    change = AddSkill(skill=skill, tools=(spec,))
    clean = REDACTOR.outcome(ToolOutcome(result=parts, is_error=True, change=change, is_draining=True))
    assert KEY not in clean.model_dump_json()
    assert quote(KEY) not in clean.model_dump_json()
    assert (clean.is_error, clean.is_draining) == (True, True)
    assert isinstance(clean.change, AddSkill)
    assert clean.change.skill == skill
    assert clean.change.tools[0].description == f"uses {MASK}"
    assert [part.id for part in clean.result] == ["1", "2", "3", "4"]
    assert clean.result[1] == parts[1]
    assert isinstance(clean.result[2], TextPart)
    assert "left out" in clean.result[2].text
    assert clean.result[3] == parts[3]


def test_an_error_of_a_tool_is_scrubbed() -> None:
    assert REDACTOR.outcome(text_outcome(f"401 for {KEY}", is_error=True)) == text_outcome(
        f"401 for {MASK}", is_error=True
    )


def test_the_search_for_many_secrets_finds_each_of_them_and_nothing_else() -> None:
    chance = random.Random(1)
    letters = string.ascii_letters + string.digits + "+/=_-. "
    secrets = ["".join(chance.choices(letters, k=chance.randint(8, 60))).strip() for _ in range(60)]
    secrets += ["abababa!", "eeeeeeeee?", "ÄÖÜäöüßß", "\U0001f600" * 8]
    redactor = Redactor(secrets)
    for secret in secrets:
        assert redactor.text(f"{secret[1:]}|{secret}|{secret[:-1]}") == f"{secret[1:]}|{MASK}|{secret[:-1]}"
    text = "".join(chance.choices(letters, k=100_000))
    assert redactor.text(text) is text


HOST = {
    "PATH": "/usr/local/bin:/usr/bin",
    "HOME": "/home/someone",
    "HTTPS_PROXY": "http://me:proxy-password@proxy.example.com:3128",
    "ANTHROPIC_API_KEY": "host-anthropic-key",
    "GITHUB_TOKEN": "host-github-token",
    "EDITOR": "some-long-editor",
}


def test_credentials_required_variables_and_all_of_the_env_files_are_secret() -> None:
    files = {
        "OPENAI_API_KEY": "file-openai-key",
        "MODE": "production",
        "TINY": "1234567",
        "DB": "postgres://u:db%2Dpassword@h/d",
    }
    assert secrets_of_run(files, HOST, required_env=["GITHUB_TOKEN", "ABSENT"], workspace="/work/space") == {
        "host-anthropic-key",
        "host-github-token",
        "file-openai-key",
        "production",
        "postgres://u:db%2Dpassword@h/d",
        "db%2Dpassword",
        "db-password",
        "proxy-password",
    }


def test_the_workspace_and_what_the_safe_list_says_are_no_secrets() -> None:
    files = {
        "ROOT": "/work/space",
        "HOME": "/home/elsewhere",
        "SOME_HOME": "/home/someone",
        "LANG": "some-locale.UTF-8",
    }
    env = {"PATH": "/usr/local/bin:/usr/bin", "HOME": "/home/someone"}
    assert secrets_of_run(files, env, required_env=["PATH"], workspace="/work/space") == frozenset()


def test_a_credential_counts_even_where_it_equals_something_harmless() -> None:
    env = {"HOME": "/home/someone", "GOOGLE_APPLICATION_CREDENTIALS": "/home/someone"}
    assert secrets_of_run({}, env) == {"/home/someone"}


def test_both_values_of_a_credential_count_where_host_and_file_differ() -> None:
    found = secrets_of_run({"ANTHROPIC_API_KEY": "file-anthropic-key"}, HOST)
    assert {"file-anthropic-key", "host-anthropic-key"} <= found
