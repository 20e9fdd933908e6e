"""Reading, writing and editing files: literal, guarded by size and by what the content is."""

import base64
import os
import zlib
from pathlib import Path

import pytest
from perstack.activities.skills.base import files
from perstack.activities.skills.base.workspace import Workspace
from perstack.activities.skills.results import TEXT_LIMIT, ToolFailure, json_text

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PDF = b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n"


def test_lines_are_counted_from_zero_and_the_end_is_not_included(workspace: Workspace, root: Path) -> None:
    (root / "f.txt").write_text("zero\none\ntwo\nthree\n")
    assert files.read_text_file(workspace, "f.txt", start=1, end=3) == {
        "path": "f.txt",
        "content": "one\ntwo",
        "from": 1,
        "to": 3,
    }


@pytest.mark.parametrize(
    ("start", "end", "content", "shown"),
    [(0, None, "a\nb\n", (0, 3)), (-5, 99, "a\nb\n", (0, 3)), (9, None, "", (3, 3)), (2, 1, "", (2, 2))],
)
def test_a_range_beyond_the_file_is_clamped(
    workspace: Workspace, root: Path, start: int, end: int | None, content: str, shown: tuple[int, int]
) -> None:
    (root / "f.txt").write_text("a\nb\n")
    result = files.read_text_file(workspace, "f.txt", start=start, end=end)
    assert (result["content"], (result["from"], result["to"])) == (content, shown)


def test_the_path_is_given_back_as_it_was_given(workspace: Workspace, root: Path) -> None:
    (root / "f.txt").write_text("x")
    assert files.read_text_file(workspace, "./f.txt")["path"] == "./f.txt"


def test_a_missing_file_is_named(workspace: Workspace) -> None:
    with pytest.raises(ToolFailure, match=r"no file.*missing\.txt"):
        files.read_text_file(workspace, "missing.txt")


@pytest.mark.parametrize("content", [PNG, b"a\0b", b"\xff\xfe\x41\x00", "grün".encode("latin-1")])
def test_content_that_is_not_text_is_refused(workspace: Workspace, root: Path, content: bytes) -> None:
    (root / "data").write_bytes(content)
    with pytest.raises(ToolFailure, match="not UTF-8 text"):
        files.read_text_file(workspace, "data")
    with pytest.raises(ToolFailure, match="not UTF-8 text"):
        files.edit_text_file(workspace, "data", new_text="x", old_text="a")
    assert (root / "data").read_bytes() == content


def test_a_text_file_above_the_cap_is_refused_by_size(workspace: Workspace, root: Path) -> None:
    with (root / "big.txt").open("wb") as file:
        file.truncate(files.MAX_TEXT_BYTES + 1)
    with pytest.raises(ToolFailure, match=str(files.MAX_TEXT_BYTES)):
        files.read_text_file(workspace, "big.txt")


def test_three_megabytes_of_text_are_cut_with_head_and_tail_kept(workspace: Workspace, root: Path) -> None:
    (root / "big.txt").write_text("BEGIN\n" + 'some "quoted" text\n' * 160_000 + "END\n")
    text = json_text(files.read_text_file(workspace, "big.txt"))
    assert len(text.encode()) <= TEXT_LIMIT
    assert len(text.encode()) > TEXT_LIMIT * 0.9
    assert '"content":"BEGIN\\n' in text
    assert 'END\\n"' in text
    assert "bytes cut" in text


def test_writing_creates_and_replaces_and_may_write_nothing(workspace: Workspace, root: Path) -> None:
    assert files.write_text_file(workspace, "a/b.txt", "grün") == {"path": "a/b.txt", "text": "grün"}
    assert (root / "a/b.txt").read_text() == "grün"
    files.write_text_file(workspace, "a/b.txt", "")
    assert (root / "a/b.txt").read_bytes() == b""
    assert os.listdir(root / "a") == ["b.txt"]


def test_text_that_cannot_be_encoded_is_refused_before_anything_is_made(workspace: Workspace, root: Path) -> None:
    with pytest.raises(ToolFailure, match="surrogate"):
        files.write_text_file(workspace, "a/b.txt", "\ud800")
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("new_text", ["$&", "$1 $$ $`", r"\1 \g<0> \n", "{0}", "%s"])
def test_new_text_is_taken_literally(workspace: Workspace, root: Path, new_text: str) -> None:
    (root / "f.txt").write_text("before OLD after")
    files.edit_text_file(workspace, "f.txt", new_text=new_text, old_text="OLD")
    assert (root / "f.txt").read_text() == f"before {new_text} after"


def test_old_text_is_no_pattern(workspace: Workspace, root: Path) -> None:
    (root / "f.txt").write_text("aXb a.b")
    files.edit_text_file(workspace, "f.txt", new_text="!", old_text="a.b")
    assert (root / "f.txt").read_text() == "aXb !"


def test_an_edit_answers_with_what_it_was_given(workspace: Workspace, root: Path) -> None:
    (root / "f.txt").write_text("old")
    result = files.edit_text_file(workspace, "f.txt", new_text="new", old_text="old")
    assert result == {"path": "f.txt", "newText": "new", "oldText": "old"}


@pytest.mark.parametrize(("content", "old", "count"), [("ab ab ab", "ab", 3), ("aaa", "aa", 2), ("x\r\nx\n", "x\n", 2)])
def test_old_text_that_occurs_more_than_once_is_refused_with_the_count(
    workspace: Workspace, root: Path, content: str, old: str, count: int
) -> None:
    (root / "f.txt").write_bytes(content.encode())
    with pytest.raises(ToolFailure, match=f"occurs {count} times") as caught:
        files.edit_text_file(workspace, "f.txt", new_text="x", old_text=old)
    assert caught.value.details == {"occurrences": count}
    assert (root / "f.txt").read_bytes() == content.encode()


@pytest.mark.parametrize(("old", "message"), [("nowhere", "does not occur"), ("", "empty")])
def test_old_text_that_names_no_place_is_refused(workspace: Workspace, root: Path, old: str, message: str) -> None:
    (root / "f.txt").write_text("text")
    with pytest.raises(ToolFailure, match=message):
        files.edit_text_file(workspace, "f.txt", new_text="x", old_text=old)


@pytest.mark.parametrize(
    ("before", "old", "new", "after"),
    [
        ("a\r\nb\r\nc\r\n", "a\nb", "x\ny", "x\r\ny\r\nc\r\n"),
        ("a\r\nb\r\nc\r\n", "a\r\nb", "x\r\ny", "x\r\ny\r\nc\r\n"),
        ("a\r\nb\r\nc\r\n", "b\n", "", "a\r\nc\r\n"),
        ("a\r\nb\r\nc\r\n", "\nb", "", "a\r\nc\r\n"),
        ("a\r\nb\r\nc", "c", "d\n", "a\r\nb\r\nd\r\n"),
        ("a\nb\nc\n", "a\r\nb", "x\r\ny", "x\ny\nc\n"),
        ("a\r\nb\nc\nd\n", "b\nc", "x\ny", "a\r\nx\ny\nd\n"),
        ("a\rb\n", "b", "c", "a\rc\n"),
    ],
)
def test_a_file_keeps_its_line_ends(
    workspace: Workspace, root: Path, before: str, old: str, new: str, after: str
) -> None:
    (root / "f.txt").write_bytes(before.encode())
    files.edit_text_file(workspace, "f.txt", new_text=new, old_text=old)
    assert (root / "f.txt").read_bytes() == after.encode()


@pytest.mark.parametrize(
    ("name", "content", "mime_type"),
    [
        ("a.png", PNG, "image/png"),
        ("looks-like.txt", PNG, "image/png"),
        ("b", b"\xff\xd8\xff\xe0\x00\x10JFIF\0" + bytes(50), "image/jpeg"),
        ("c", b"GIF89a" + bytes(50), "image/gif"),
        ("d", b"RIFF\x10\0\0\0WEBPVP8 " + bytes(50), "image/webp"),
    ],
)
def test_an_image_is_told_by_its_content(
    workspace: Workspace, root: Path, name: str, content: bytes, mime_type: str
) -> None:
    (root / name).write_bytes(content)
    assert files.read_image_file(workspace, name) == files.InlineFile(name, mime_type, content)


@pytest.mark.parametrize(
    "content", [b"no image", PDF, b"BM" + bytes(60), b"<svg xmlns='http://www.w3.org/2000/svg'/>", b""]
)
def test_a_file_that_only_has_the_name_of_an_image_is_refused(workspace: Workspace, root: Path, content: bytes) -> None:
    (root / "a.png").write_bytes(content)
    with pytest.raises(ToolFailure, match="not a PNG"):
        files.read_image_file(workspace, "a.png")


def test_a_pdf_is_told_by_its_content(workspace: Workspace, root: Path) -> None:
    (root / "report").write_bytes(PDF)
    assert files.read_pdf_file(workspace, "report").mime_type == "application/pdf"
    (root / "report.pdf").write_bytes(PNG)
    with pytest.raises(ToolFailure, match="not a PDF"):
        files.read_pdf_file(workspace, "report.pdf")


def test_images_and_pdfs_above_their_limit_are_refused(workspace: Workspace, root: Path) -> None:
    for name, start, limit in (("a.png", PNG, files.MAX_IMAGE_BYTES), ("a.pdf", PDF, files.MAX_PDF_BYTES)):
        with (root / name).open("wb") as file:
            file.write(start)
            file.truncate(limit + 1)
    with pytest.raises(ToolFailure, match=str(files.MAX_IMAGE_BYTES)):
        files.read_image_file(workspace, "a.png")
    with pytest.raises(ToolFailure, match=str(files.MAX_PDF_BYTES)):
        files.read_pdf_file(workspace, "a.pdf")


def test_no_file_tool_follows_a_link_to_the_outside(workspace: Workspace, root: Path, outside: Path) -> None:
    (outside / "image.png").write_bytes(PNG)
    (outside / "file.pdf").write_bytes(PDF)
    (root / "out").symlink_to(outside)
    (root / "secret.txt").symlink_to(outside / "secret.txt")
    (root / "image.png").symlink_to(outside / "image.png")
    attempts = (
        lambda: files.read_text_file(workspace, "secret.txt"),
        lambda: files.read_text_file(workspace, "out/secret.txt"),
        lambda: files.write_text_file(workspace, "secret.txt", "x"),
        lambda: files.edit_text_file(workspace, "secret.txt", new_text="x", old_text="secret"),
        lambda: files.read_image_file(workspace, "image.png"),
        lambda: files.read_image_file(workspace, "out/image.png"),
        lambda: files.read_pdf_file(workspace, "out/file.pdf"),
    )
    for attempt in attempts:
        with pytest.raises(ToolFailure, match="outside the workspace"):
            attempt()
    assert (outside / "secret.txt").read_text() == "secret"


def test_the_sample_image_is_a_real_one() -> None:
    chunk = PNG[PNG.index(b"IDAT") - 4 :]
    size = int.from_bytes(chunk[:4], "big")
    assert len(zlib.decompress(chunk[8 : 8 + size])) == 5
