"""What the model sees of a tool's result: everything in it, within the limit."""

import base64
import json

import mcp_types as mcp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perstack.activities.skills.mcp.results import parts_from_mcp
from perstack.activities.skills.results import TEXT_LIMIT, clip_text, json_text
from perstack.core.messages import FileInlinePart, ImageInlinePart, ResultPart, TextPart


def parts(*content: mcp.ContentBlock, structured: object = None, limit: int = TEXT_LIMIT) -> tuple[ResultPart, ...]:
    result = mcp.CallToolResult(content=list(content), structured_content=structured)
    return parts_from_mcp(result, tool_name="fetch", args={"url": "x"}, limit=limit)


def texts(found: tuple[ResultPart, ...]) -> list[str]:
    return [part.text for part in found if isinstance(part, TextPart)]


@given(st.text(max_size=300), st.integers(0, 400))
def test_a_clipped_text_never_exceeds_its_limit(text: str, limit: int) -> None:
    clipped = clip_text(text, limit)
    assert len(clipped.encode()) <= limit
    if len(text.encode("utf-8", "replace")) <= limit:
        assert clipped.encode() == text.encode("utf-8", "replace")


def test_a_cut_keeps_head_and_tail_and_counts_what_is_gone() -> None:
    text = "H" * 50_000 + "M" * 100_000 + "T" * 50_000
    clipped = clip_text(text, 10_000)
    head, notice, tail = clipped.split("\n")
    assert set(head) == {"H"}
    assert set(tail) == {"T"}
    assert notice == f"… {200_000 - len(head) - len(tail)} bytes cut …"


def test_a_cut_never_splits_a_character() -> None:
    clipped = clip_text("€" * 1000, 500)
    assert set(clipped.replace("\n", "")) <= set("€… bytescu0123456789")


@given(st.dictionaries(st.sampled_from("abc"), st.text(alphabet='x"\\\n€', max_size=900), min_size=1))
def test_json_that_is_too_long_is_cut_in_its_strings_and_stays_json(value: dict[str, str]) -> None:
    text = json_text(value, 1000)
    assert len(text.encode()) <= 1000
    assert set(json.loads(text)) == set(value)


def test_every_kind_of_content_is_mapped() -> None:
    mcp.BlobResourceContents(uri="file:///b", blob="YQ==", mime_type="application/pdf")
    found = parts(
        mcp.TextContent(text="hello"),
        mcp.ImageContent(data="aW1n", mime_type="image/png"),
        mcp.EmbeddedResource(resource=mcp.TextResourceContents(uri="file:///a", text="inside")),
        mcp.EmbeddedResource(
            resource=mcp.BlobResourceContents(uri="file:///b", blob="YQ==", mime_type="application/pdf")
        ),
        mcp.EmbeddedResource(resource=mcp.BlobResourceContents(uri="file:///c", blob="YWJj")),
        mcp.AudioContent(data=base64.b64encode(bytes(100)).decode(), mime_type="audio/wav"),
        mcp.ResourceLink(name="doc", uri="https://x/doc", mime_type="text/html", description="The page."),
        structured={"count": 1},
    )
    assert found == (
        TextPart(text="hello"),
        ImageInlinePart(encoded_data="aW1n", mime_type="image/png"),
        TextPart(text="inside"),
        FileInlinePart(encoded_data="YQ==", mime_type="application/pdf"),
        TextPart(text="(resource file:///c, 3 bytes of unknown type, which cannot be shown)"),
        TextPart(text="(audio of type audio/wav, 100 bytes, which cannot be shown)"),
        TextPart(text="Resource doc: https://x/doc (text/html)\nThe page."),
        TextPart(text='{"count":1}'),
    )


def test_structured_content_that_a_text_repeats_is_shown_once() -> None:
    assert texts(parts(mcp.TextContent(text='{ "a": [1] }'), structured={"a": [1]})) == ['{ "a": [1] }']


def test_an_empty_result_is_a_sentence() -> None:
    assert texts(parts()) == ['The tool fetch returned nothing for the arguments {"url":"x"}.']
    assert texts(parts(mcp.TextContent(text=""))) == ["(empty text)"]


def test_the_limit_holds_for_all_texts_together_and_small_ones_are_kept() -> None:
    found = parts(
        mcp.TextContent(text="small"),
        mcp.ImageContent(data="aW1n", mime_type="image/png"),
        mcp.TextContent(text="x" * 5000),
        limit=1000,
    )
    assert texts(found)[0] == "small"
    assert "bytes cut" in texts(found)[1]
    assert sum(len(text.encode()) for text in texts(found)) <= 1000


def test_a_great_many_small_texts_are_clipped_as_one() -> None:
    found = parts(*(mcp.TextContent(text=f"line {number}") for number in range(5000)), limit=1000)
    (text,) = texts(found)
    assert text.startswith("line 0\nline 1\n")
    assert text.endswith("line 4999")
    assert "bytes cut" in text


def test_half_a_surrogate_pair_does_not_reach_the_payload() -> None:
    assert texts(parts(mcp.TextContent(text="a\ud800b"))) == ["a?b"]


@pytest.mark.parametrize(
    ("text", "structured"),
    [('{"a": 1, "b": 2}', {"a": 1, "b": 2}), ("whole text", {"content": "whole text"}), ("3", {"result": 3})],
)
def test_structured_content_that_a_text_already_says_is_not_said_twice(text: str, structured: object) -> None:
    assert texts(parts(mcp.TextContent(text=text), structured=structured)) == [text]


@pytest.mark.parametrize("structured", [{"content": "other"}, {"result": 4}, {"a": "whole text", "b": 1}])
def test_structured_content_that_says_more_than_the_text_is_kept(structured: object) -> None:
    found = texts(parts(mcp.TextContent(text="whole text"), structured=structured))
    assert found[0] == "whole text"
    assert json.loads(found[1]) == structured
