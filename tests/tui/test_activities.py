"""Every kind of activity as a row of the log: what it says, how it folds, and that nothing in it can do harm."""

import time
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
from perstack.cli.plain import plain
from perstack.cli.tui.app import THEME
from perstack.cli.tui.widgets.activities import ActivityRow, activity_widget
from perstack.core.activity import (
    Activity,
    ActivityParent,
    AppendTextFileActivity,
    AttemptCompletionActivity,
    ClearTodoActivity,
    CompleteActivity,
    CreateDirectoryActivity,
    DelegateActivity,
    DelegationCompleteActivity,
    DeleteDirectoryActivity,
    DeleteFileActivity,
    DirectoryItem,
    EditTextFileActivity,
    ErrorActivity,
    ExecActivity,
    FileInfo,
    GeneralToolActivity,
    GetFileInfoActivity,
    InteractiveToolActivity,
    ListDirectoryActivity,
    MoveFileActivity,
    QueryActivity,
    ReadImageFileActivity,
    ReadPdfFileActivity,
    ReadTextFileActivity,
    RetryActivity,
    TodoActivity,
    TodoItem,
    WriteTextFileActivity,
)
from perstack.core.messages import ImageInlinePart, TextPart
from perstack.core.view_state import Entry, RunView
from rich.cells import cell_len
from textual.app import App, ComposeResult
from textual.containers import VerticalScroll

AT = 1_790_000_000_042
RUN = RunView("run-1", "@team/writer", "claude-sonnet-4-5", AT)
TODOS = (
    TodoItem(id=0, title="Read the sources", completed=True),
    TodoItem(id=1, title="Write the notes", completed=False),
)
NUMBERED = "\n".join(f"line {number}" for number in range(1, 31))


def _lines_read(from_: int, to: int | None, *, content: str | None = None) -> ReadTextFileActivity:
    """Of some lines; by their names on the wire, one of which is no name in Python."""
    return ReadTextFileActivity.model_validate({"path": "a.py", "from": from_, "to": to, "content": content})


FAMILIES: dict[str, tuple[Activity, ...]] = {
    "texts": (
        QueryActivity(text="Write the notes for **1.4**:\n\n- read `CHANGELOG.md`\n- leave `__init__.py` alone"),
        CompleteActivity(
            text="# Done\n\nSee [the page](https://example.com/p).\n\n| file | lines |\n|---|---|\n| NOTES.md | 8 |\n\n"
            "```python\nprint('x')\n```\n\n> quoted\n> twice",
            reasoning="First the sources.\nThen the notes.\nThe version, too.\nAnd the date.\nThat is all.",
        ),
        AttemptCompletionActivity(),
        AttemptCompletionActivity(remaining_todos=TODOS[1:]),
        AttemptCompletionActivity(error="other calls are open"),
    ),
    "files": (
        _lines_read(1, 30, content=NUMBERED),
        ReadTextFileActivity(path="src/nope.py", error="NotFound: there is no such file"),
        ReadImageFileActivity(path="shot.png", mime_type="image/png", size=48_231),
        ReadPdfFileActivity(path="paper.pdf", mime_type="application/pdf", size=1_200_345),
        ListDirectoryActivity(
            path="src",
            items=(
                DirectoryItem(name="lib", path="src/lib", type="directory", size=0, modified=""),
                DirectoryItem(name="app.py", path="src/app.py", type="file", size=34_567, modified=""),
            ),
        ),
        GetFileInfoActivity(
            path="NOTES.md",
            info=FileInfo(
                exists=True,
                name="NOTES.md",
                directory="/w",
                extension=".md",
                type="file",
                mime_type="text/markdown",
                size=12,
                size_formatted="12 B",
                created="2026-01-02",
                modified="2026-01-02T03:04:05Z",
                accessed="2026-01-02",
            ),
        ),
        MoveFileActivity(source="a.txt", destination="b.txt"),
        DeleteFileActivity(path="old.txt"),
        CreateDirectoryActivity(path="out"),
        DeleteDirectoryActivity(path="tmp", recursive=True),
    ),
    "edits": (
        EditTextFileActivity(
            path="src/app.py", old_text="a\nb\nc\nd\ne\nf\ng\nh\n", new_text="a\nB\nc\nd\ne\nf\ng\nh\ni\n"
        ),
        WriteTextFileActivity(path="NOTES.md", text=NUMBERED),
        AppendTextFileActivity(path="NOTES.md", text="one more\n"),
    ),
    "commands": (
        ExecActivity(command="npm", args=("test", "--", "a b"), cwd="site", output=NUMBERED),
        ExecActivity(
            command="false", cwd=".", error="The command ended with exit code 1.", stdout="begun\n", stderr="no luck\n"
        ),
    ),
    "teams-and-people": (
        TodoActivity(new_todos=("Read the sources", "Write the notes"), completed_todos=(0,), todos=TODOS),
        ClearTodoActivity(),
        DelegateActivity(delegate_expert_key="@team/writer", query="Write the notes.\nIn English."),
        DelegationCompleteActivity(count=2),
        InteractiveToolActivity(skill_name="people", tool_name="askUser", args={"question": "May I delete `old.txt`?"}),
    ),
    "tools-and-errors": (
        GeneralToolActivity(
            skill_name="web",
            tool_name="search",
            args={"q": "temporal", "n": 3},
            result=(TextPart(text=NUMBERED), ImageInlinePart(encoded_data="aaaa", mime_type="image/png")),
        ),
        GeneralToolActivity(skill_name="web", tool_name="search", args={}, error="Error: no network"),
        RetryActivity(error='{"error":"RateLimited","message":"too many requests"}', message="too many requests"),
        ErrorActivity(error="The key was refused.", error_name="provider.auth", is_retryable=False),
        ErrorActivity(error="Try later.", error_name="provider.overloaded", is_retryable=True),
    ),
}
EVERY = [activity for family in FAMILIES.values() for activity in family]
NASTY = {
    "nothing": "",
    "spaces": "  \n\n \t ",
    "markup": "[red]no[/red] [bold]x [/] $primary [@click=app.quit]go[/]",
    "colours": "\x1b[31mred\x1b[0m \x9b1mbold\x9b0m",
    "terminal title and clipboard": "a\x1b]0;owned\x07b\x1b]52;c;ZXZpbA==\x1b\\c\x9d8;;http://evil\x9cd",
    "screen": "\x1b[2J\x1b[H\x1bc\x1b(0 gone \x1b",
    "controls": "a\x00b\x07c\x08d\x0be\x0cf\x7fg\x85h\u2028i\u2029j",
    "carriage returns": "10%\r50%\r100%\r\ndone",
    "directions": "\u202eevil\u202c \u2066x\u2069 \u200eltr\u200f \u05e9\u05dc\u05d5\u05dd",
    "wide and combining": "日本語のテキスト" * 30 + " e\u0301e\u0308" * 40 + " 👩\u200d👩\u200d👧 " * 20,
    "many marks": "z" + "\u0334\u0321\u0325" * 400,
    "half a surrogate": "a\ud83d b\udc80",
    "one huge line": "x" * 300_000,
    "many lines": "\n" * 50_000 + "end",
    "deep quotations": "> " * 500 + "deep",
    "open brackets": "[" * 5_000 + "](" * 2_000,
    "stars": "*a " * 3_000,
    "table": "|" + " x |" * 60 + "\n|" + "---|" * 60 + "\n|" + " y |" * 60,
}


class Page(App[None]):
    """Rows below each other, as the log has them."""

    def __init__(self, activities: tuple[Activity, ...]) -> None:
        super().__init__(ansi_color=True)
        self.register_theme(THEME)
        self.theme = THEME.name
        self._activities = activities

    def compose(self) -> ComposeResult:
        with VerticalScroll(can_focus=False):
            for number, activity in enumerate(self._activities):
                yield row(activity, at=AT + number * 137, is_delegate=number % 2 == 1)


def row(activity: Activity, *, at: int = AT, is_delegate: bool = False) -> ActivityRow:
    above = ActivityParent(expert_key="team", run_id="run-0") if is_delegate else None
    key = "@team/writer" if is_delegate else "team"
    return activity_widget(Entry(activity.model_copy(update={"expert_key": key, "delegated_by": above}), at, RUN))


def shown(activity: Activity, *, width: int = 80, is_unfolded: bool = False) -> str:
    """What a row says below its header."""
    widget = row(activity)
    widget.set_reactive(ActivityRow.is_unfolded, is_unfolded)
    return "\n".join(line.plain.rstrip() for line in widget.rows(width)[1:])


def every_text_as(text: str) -> Iterator[Activity]:
    """Each kind of activity with `text` wherever something comes from outside."""
    todos = (TodoItem(id=0, title=text, completed=True),)
    item = DirectoryItem(name=text, path=text, type="file", size=1, modified=text)
    info = FileInfo.model_construct(
        exists=True, type="file", name=text, mime_type=text, size=1, size_formatted=text, modified=text
    )
    yield QueryActivity(text=text, reasoning=text)
    yield CompleteActivity(text=text)
    yield RetryActivity(error=text, message=text)
    yield ErrorActivity(error=text, error_name=text)
    yield AttemptCompletionActivity(error=text)
    yield AttemptCompletionActivity(remaining_todos=todos)
    yield TodoActivity(todos=todos)
    yield ClearTodoActivity(error=text)
    yield ReadImageFileActivity(path=text, mime_type=text)
    yield ReadPdfFileActivity(path=text, error=text)
    yield ReadTextFileActivity(path=text, content=text)
    yield EditTextFileActivity(path=text, old_text=text, new_text=f"{text}!\nmore")
    yield AppendTextFileActivity(path=text, text=text)
    yield WriteTextFileActivity(path=text, text=text)
    yield DeleteFileActivity(path=text)
    yield CreateDirectoryActivity(path=text)
    yield DeleteDirectoryActivity(path=text)
    yield MoveFileActivity(source=text, destination=text)
    yield GetFileInfoActivity(path=text, info=info)
    yield ListDirectoryActivity(path=text, items=(item,))
    yield ExecActivity(command=text, args=(text,), cwd=text, stdout=text, stderr=text)
    yield DelegateActivity(delegate_expert_key=text, query=text)
    yield DelegationCompleteActivity(count=1)
    yield InteractiveToolActivity(skill_name=text, tool_name=text, args={"question": text})
    yield InteractiveToolActivity(skill_name=text, tool_name=text, args={text: [text], "b": text})
    yield GeneralToolActivity(skill_name=text, tool_name=text, args={text: text}, result=(TextPart(text=text),))


def kinds() -> set[str]:
    return {kind.model_fields["type"].default for kind in get_args(get_args(Activity)[0])}


@pytest.fixture(autouse=True)
def local_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two hours east of Greenwich, whatever the machine says."""
    monkeypatch.setenv("TZ", "XST-2")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_the_samples_have_every_kind_of_activity() -> None:
    assert {activity.type for activity in EVERY} == kinds()
    assert {activity.type for activity in every_text_as("x")} == kinds()


@pytest.mark.requirement("interface.tui")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_of_rows_looks_as_it_did(family: str, snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(Page(FAMILIES[family]), terminal_size=(80, 40))


def test_rows_look_as_they_did_in_forty_columns(snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(Page((*FAMILIES["texts"][:2], *FAMILIES["commands"])), terminal_size=(40, 60))


def test_the_header_says_when_who_and_for_whom() -> None:
    assert row(DelegationCompleteActivity(count=1)).rows(80)[0].plain == "16:13:20.042 team"
    delegated = row(DelegationCompleteActivity(count=1), is_delegate=True)
    assert delegated.rows(80)[0].plain == "16:13:20.042 @team/writer ⎇ team"
    assert delegated.rows(20)[0].plain == "16:13:20.042 @team/…"


@pytest.mark.parametrize(
    ("activity", "text"),
    [
        (QueryActivity(text="What *is* it?"), "● Query  What is it?"),
        (CompleteActivity(text="It is 42."), "✓ Run results  It is 42."),
        (CompleteActivity(text=""), "✓ Run results"),
        (AttemptCompletionActivity(), "● Completion accepted"),
        (
            AttemptCompletionActivity(remaining_todos=TODOS[1:]),
            "✗ Completion blocked (1 remaining)\n    ☐ Write the notes",
        ),
        (AttemptCompletionActivity(error="busy"), "✗ Completion failed\n    busy"),
        (
            TodoActivity(new_todos=("a", "b"), completed_todos=(0,), todos=TODOS),
            "● Todo  added 2, completed 1\n    ☑ Read the sources\n    ☐ Write the notes",
        ),
        (TodoActivity(), "● Todo  no changes"),
        (TodoActivity(error="no such todo"), "✗ Todo  no changes\n    no such todo"),
        (ClearTodoActivity(), "● Todo cleared"),
        (_lines_read(3, 9, content="x\ny\n"), "● Read  a.py#3-9\n    x\n    y"),
        (_lines_read(3, None), "● Read  a.py#3-"),
        (ReadTextFileActivity(path="a.py", error="gone"), "✗ Read  a.py\n    gone"),
        (
            ReadImageFileActivity(path="a.png", mime_type="image/png", size=812),
            "● Image  a.png (image/png, 812 bytes)",
        ),
        (ReadPdfFileActivity(path="a.pdf"), "● PDF  a.pdf"),
        (
            EditTextFileActivity(path="a", old_text="1\n2\n3\n4\n", new_text="1\n3\n4\n5\n6"),
            "● Edit  a −1 +2\n      1\n    − 2\n      3\n      4\n    + 5\n    + 6",
        ),
        (EditTextFileActivity(path="a", old_text="x", new_text=""), "● Edit  a −1 +0\n    − x"),
        (WriteTextFileActivity(path="a", text="x\n\ny\n"), "● Write  a +3\n    + x\n    +\n    + y"),
        (WriteTextFileActivity(path="a", text=""), "● Write  a +0"),
        (AppendTextFileActivity(path="a", text="x", error="full"), "✗ Append  a +1\n    full\n    + x"),
        (DeleteFileActivity(path="a"), "● Delete  a"),
        (DeleteFileActivity(path="#a"), "● Delete  #a"),
        (CreateDirectoryActivity(path="a/b"), "● Make folder  a/b"),
        (DeleteDirectoryActivity(path="a"), "● Delete folder  a"),
        (DeleteDirectoryActivity(path="a", recursive=True), "● Delete folder with all in it  a"),
        (MoveFileActivity(source="a", destination="b"), "● Move  a → b"),
        (ListDirectoryActivity(path="a", items=()), "● List  a\n    (empty)"),
        (
            ExecActivity(command="git", args=("commit", "-m", "it's done"), cwd="site", output="ok\n"),
            "● Exec  git commit -m 'it'\"'\"'s done' (in site)\n    ok",
        ),
        (
            ExecActivity(command="x", cwd=".", error="exit code 1", stdout="out\n", stderr="err\n"),
            "✗ Exec  x\n    exit code 1\n    out\n  ! err",
        ),
        (
            DelegateActivity(delegate_expert_key="@team/a", query="Do it.\nNow."),
            "⎇ @team/a\n    Do it.\n    Now.",
        ),
        (DelegationCompleteActivity(count=3), "● Delegation complete (3)"),
        (
            InteractiveToolActivity(skill_name="people", tool_name="ask", args={"question": "May I?"}),
            "⏸ Asks  ask\n    May I?",
        ),
        (
            InteractiveToolActivity(skill_name="people", tool_name="ask", args={"question": "Which?", "of": ["a", 1]}),
            '⏸ Asks  ask\n    question: Which?\n    of: ["a", 1]',
        ),
        (
            GeneralToolActivity(skill_name="web", tool_name="get", args={"n": 1}, result=(TextPart(text="a\nb"),)),
            '● [web] get  {"n": 1}\n    a\n    b',
        ),
        (
            GeneralToolActivity(
                skill_name="web", tool_name="get", args={}, error="error: x", result=(TextPart(text="error: x"),)
            ),
            "✗ [web] get\n    error: x",
        ),
        (
            RetryActivity(error='{"error":"RateLimited","message":"slow down"}', message="slow down"),
            "↻ Retry  RateLimited\n    slow down",
        ),
        (RetryActivity(error="No tool call", message=""), "↻ Retry\n    No tool call"),
        (ErrorActivity(error="m", error_name="N", is_retryable=False), "✗ Error  N\n    m"),
        (
            ErrorActivity(error="m", error_name="N", is_retryable=True),
            "✗ Error  N (may pass: worth another try)\n    m",
        ),
        (ErrorActivity(), "✗ Error\n    The run failed without a message."),
    ],
)
def test_a_row_says_what_was_done(activity: Activity, text: str) -> None:
    assert shown(activity) == text


def test_reasoning_stands_above_what_it_led_to_and_is_folded_to_three_rows() -> None:
    activity = DeleteFileActivity(path="a", reasoning="one\ntwo\nthree\nfour\nfive")
    assert shown(activity) == "∴ Reasoning  one\n  two\n  three\n  … +2 more lines\n● Delete  a"
    assert shown(activity, is_unfolded=True) == "∴ Reasoning  one\n  two\n  three\n  four\n  five\n● Delete  a"
    assert shown(DeleteFileActivity(path="a", reasoning=" \n")) == "● Delete  a"


def test_of_a_commands_output_the_end_is_shown() -> None:
    activity = ExecActivity(command="make", cwd="", output=NUMBERED)
    assert shown(activity) == ("● Exec  make\n    … +26 more lines\n    line 27\n    line 28\n    line 29\n    line 30")
    assert shown(activity, is_unfolded=True).count("line ") == 30


def test_a_single_line_is_not_folded_away_for_a_line_that_says_so() -> None:
    five = ReadTextFileActivity(path="a", content="1\n2\n3\n4\n5\n")
    assert shown(five).endswith("\n    4\n    5")
    six = ReadTextFileActivity(path="a", content="1\n2\n3\n4\n5\n6\n")
    assert shown(six).endswith("\n    4\n    … +2 more lines")


def test_folding_counts_rows_not_lines_so_a_huge_line_stays_small() -> None:
    activity = ReadTextFileActivity(path="a", content="word " * 50_000)
    for width in (40, 80, 200):
        assert len(shown(activity, width=width).split("\n")) == 6
    assert len(shown(activity, width=80, is_unfolded=True)) > 250_000


def test_an_edit_far_apart_shows_where_it_leaves_lines_out() -> None:
    old = [f"line {number}" for number in range(20)]
    new = ["first", *old[1:19], "last"]
    text = shown(EditTextFileActivity(path="a", old_text="\n".join(old), new_text="\n".join(new)))
    assert text.startswith(
        "● Edit  a −2 +2\n    − line 0\n    + first\n      line 1\n      line 2\n    ⋯\n      line 17"
    )


def test_an_edit_of_thousands_of_lines_is_shown_without_comparing_them() -> None:
    old, new = "same\n" * 3_000, "same\n" * 3_001
    assert shown(EditTextFileActivity(path="a", old_text=old, new_text=new)).startswith("● Edit  a −3000 +3001\n")


def test_a_folder_lists_its_entries_with_their_sizes_and_how_many_there_are_more() -> None:
    items = [DirectoryItem(name="lib", path="lib", type="directory", size=0, modified="")]
    items += [DirectoryItem(name=f"f{n}", path=f"f{n}", type="file", size=n * 700, modified="") for n in range(9)]
    assert shown(ListDirectoryActivity(path=".", items=tuple(items))) == (
        "● List  .\n    lib/\n    f0  0 bytes\n    f1  700 bytes\n    f2  1.4 kB\n    f3  2.1 kB\n    f4  2.8 kB\n"
        "    … +4 more lines"
    )


def test_information_on_a_file_says_whether_it_is_there() -> None:
    info = FileInfo.model_construct(exists=False)
    assert shown(GetFileInfoActivity(path="a", info=info)) == "● Info  a\n    does not exist"
    found = next(one for one in FAMILIES["files"] if isinstance(one, GetFileInfoActivity))
    assert shown(found).endswith("file, text/markdown, 12 B, changed 2026-01-02T03:04:05Z")


def test_markdown_reads_well_as_text() -> None:
    source = (
        "# Title\n\nOne *two* **three** ~~four~~ `five`\nnext line\n\n- a\n- b\n  1. c\n  2. d\n\n> quote\n\n---\n\n"
        "```sh\nls  -l\n```\n\n[page](https://x.y) <https://z.y> ![alt](i.png)\n\n| a | bb |\n|---|---|\n| ccc | d |\n"
    )
    assert shown(CompleteActivity(text=source), is_unfolded=True) == (
        "✓ Run results\n  Title\n\n  One two three four `five`\n  next line\n\n  • a\n  • b\n    1. c\n    2. d\n\n"
        "  ▎ quote\n\n  ────────────────────\n\n    ls  -l\n\n  page (https://x.y) https://z.y [image: alt] (i.png)\n\n"
        "  a    bb\n  ───  ──\n  ccc  d"
    )


def test_markdown_keeps_names_and_tags_that_only_look_like_mark_up() -> None:
    text = "Leave __init__.py, snake_case_name, <b>this</b> and 2 * 3 * 4 as they are; a_b _c_ d."
    assert shown(QueryActivity(text=text), width=120) == f"● Query  {text}"


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("width", [10, 40, 80])
def test_nothing_from_outside_leaves_its_row(name: str, width: int) -> None:
    for activity in every_text_as(NASTY[name]):
        for line in row(activity).rows(width):
            assert line.cell_length <= width, (activity.type, line.plain)
            assert all(sign.isprintable() or sign in "\u200d\u200b" for sign in line.plain), (activity.type, line.plain)
            line.plain.encode()


@pytest.mark.parametrize("name", NASTY)
async def test_a_screen_shows_every_kind_with_it_folded_and_unfolded(name: str) -> None:
    app = Page(tuple(every_text_as(NASTY[name])))
    async with app.run_test(size=(60, 30)) as pilot:
        await pilot.pause()
        rows = list(app.query(ActivityRow))
        for row in rows[:3]:
            row.is_unfolded = True
        await _settled(pilot, lambda: all(row.size.height == len(row.rows(row.content_size.width)) for row in rows))
        assert app.export_screenshot().startswith("<svg")


@pytest.mark.parametrize(
    ("text", "harmless"),
    [
        (NASTY["markup"], NASTY["markup"]),
        (NASTY["colours"], "red bold"),
        (NASTY["terminal title and clipboard"], "abcd"),
        (NASTY["screen"], " gone ␛"),
        (NASTY["controls"], "a␀b␇c␈d␋e␌f␡g\nh\ni\nj"),
        (NASTY["carriage returns"], "10%\n50%\n100%\ndone"),
        (NASTY["directions"], "<U+202E>evil<U+202C> <U+2066>x<U+2069> ltr \u05e9\u05dc\u05d5\u05dd"),
        (NASTY["half a surrogate"], "a\ufffd b\ufffd"),
        ("a\tb\n\tc", "a   b\n    c"),
        ("\x1b]0;no end to this title", "0;no end to this title"),
        ("plain \u00e9 日本 👩\u200d👧", "plain \u00e9 日本 👩\u200d👧"),
    ],
)
def test_what_steers_a_terminal_is_taken_out_or_shown(text: str, harmless: str) -> None:
    assert plain(text) == harmless


def test_mark_up_of_the_screen_is_shown_as_it_is() -> None:
    markup = NASTY["markup"]
    result = GeneralToolActivity(skill_name="s", tool_name="t", args={}, result=(TextPart(text=markup),))
    assert shown(result) == f"● [s] t\n    {markup}"
    assert markup in shown(QueryActivity(text=markup))


async def test_a_row_unfolds_and_folds_with_enter_and_with_a_click() -> None:
    app = Page((DeleteFileActivity(path="a"), FAMILIES["commands"][0]))
    async with app.run_test(size=(60, 45)) as pilot:
        await pilot.pause()
        short, long = app.query(ActivityRow)
        assert (short.can_focus, long.can_focus) == (False, True)
        assert long.size.height == 7
        await pilot.press("tab", "enter")
        assert app.focused is long
        await _settled(pilot, lambda: long.size.height == 32)
        assert long.can_focus
        await pilot.press("enter")
        await _settled(pilot, lambda: long.size.height == 7)
        await pilot.click(long)
        await _settled(pilot, lambda: long.size.height == 32)
        await pilot.click(short)
        assert not short.is_unfolded


async def test_what_fits_wide_can_be_unfolded_where_it_is_narrow() -> None:
    text = "a thought of two hundred cells that is said in one breath " * 4
    app = Page((DeleteFileActivity(path="a", reasoning=text),))
    async with app.run_test(size=(120, 20)) as pilot:
        await pilot.pause()
        (only,) = app.query(ActivityRow)
        assert not only.can_focus
        await pilot.resize_terminal(36, 20)
        await _settled(pilot, lambda: only.can_focus)
        await pilot.press("tab", "enter")
        await _settled(pilot, lambda: only.is_unfolded)
        assert all(cell_len(line.plain) <= 36 for line in only.rows(only.content_size.width))


async def _settled(pilot: Any, condition: Callable[[], bool]) -> None:
    for _ in range(100):
        if condition():
            return
        await pilot.pause()
    raise AssertionError("the screen never came to show it")
