"""A list of rows: only what is seen is drawn, the cursor keeps its row, and everything goes with keys."""

from collections.abc import Sequence

import pytest
from perstack.cli.tui.widgets.columns import Column, Columns
from perstack.cli.tui.widgets.rows import Row, RowList, TextRow
from textual.app import App, ComposeResult
from textual.content import Content

HEIGHT = 10


class Listed(App[None]):
    """Nothing but a list."""

    def __init__(self) -> None:
        super().__init__()
        self.chosen: list[str] = []

    def compose(self) -> ComposeResult:
        yield RowList()

    def on_mount(self) -> None:
        self.rows.focus()

    def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        self.chosen.append(event.row.key)

    @property
    def rows(self) -> RowList:
        return self.query_one(RowList)

    @property
    def lines(self) -> list[str]:
        return [self.rows.render_line(at).text.rstrip() for at in range(self.rows.size.height)]

    @property
    def key(self) -> str | None:
        return self.rows.row.key if self.rows.row else None


class CountedRow(Row):
    """Remembers that it was drawn."""

    drawn: set[str] = set()

    def line(self, width: int, at: int) -> Content:
        self.drawn.add(self.key)
        return Content(self.key)


class HighRow(Row):
    """A row of several lines."""

    def __init__(self, key: str, lines: int) -> None:
        super().__init__(key)
        self._lines = lines

    def height(self, width: int) -> int:
        return self._lines

    def line(self, width: int, at: int) -> Content:
        return Content(f"{self.key}.{at}")


def named(*keys: str, pictures: Sequence[str] = ()) -> list[Row]:
    return [TextRow(key, lambda _, key=key: Content(key), can_stand=key not in pictures) for key in keys]


def numbered(count: int) -> list[Row]:
    return named(*(f"row {at}" for at in range(count)))


async def test_of_ten_thousand_rows_only_the_visible_ones_are_drawn() -> None:
    app = Listed()
    CountedRow.drawn.clear()
    async with app.run_test(size=(40, HEIGHT)) as pilot:
        app.rows.fill([CountedRow(str(at)) for at in range(10_000)])
        await pilot.pause()
        await pilot.press("end")
        await pilot.pause()
        assert app.key == "9999"
        assert len(CountedRow.drawn) <= 2 * HEIGHT


async def test_the_cursor_keeps_its_row_and_the_row_its_place_on_the_screen_when_others_come_above() -> None:
    app = Listed()
    async with app.run_test(size=(40, HEIGHT)) as pilot:
        app.rows.fill(numbered(100))
        await pilot.press(*["down"] * 30)
        before = app.lines.index("› row 30")
        app.rows.fill([*named("new 1", "new 2", "new 3"), *numbered(100)])
        await pilot.pause()
        assert app.key == "row 30"
        assert app.lines.index("› row 30") == before


async def test_the_cursor_stays_near_where_its_row_was_when_that_is_gone() -> None:
    app = Listed()
    async with app.run_test(size=(40, HEIGHT)) as pilot:
        app.rows.fill(named("a", "b", "c", "d"))
        await pilot.press("down", "down")
        app.rows.fill(named("a", "b", "d"))
        assert app.key == "d"
        app.rows.fill(named("a"))
        assert app.key == "a"
        app.rows.fill(())
        assert app.key is None
        app.rows.fill(named("z"))
        assert app.key == "z"


async def test_the_cursor_passes_lines_that_belong_to_the_picture_only() -> None:
    app = Listed()
    async with app.run_test(size=(40, HEIGHT)) as pilot:
        app.rows.fill(named("|1", "a", "|2", "|3", "b", "|4", pictures=("|1", "|2", "|3", "|4")))
        assert app.key == "a"
        await pilot.press("j")
        assert app.key == "b"
        await pilot.press("j", "j")
        assert app.key == "b"
        await pilot.press("k")
        assert app.key == "a"
        await pilot.press("G")
        assert app.key == "b"
        await pilot.press("g")
        assert app.key == "a"
        assert app.lines[0] == "  |1"


@pytest.mark.parametrize(
    ("keys", "row"),
    [
        ("down,down,up", "row 1"),
        ("pagedown", "row 9"),
        ("space,pageup", "row 0"),
        ("end", "row 99"),
        ("end,home", "row 0"),
    ],
)
async def test_keys_move_the_cursor(keys: str, row: str) -> None:
    app = Listed()
    async with app.run_test(size=(40, HEIGHT)) as pilot:
        app.rows.fill(numbered(100))
        await pilot.press(*keys.split(","))
        assert app.key == row
        assert f"› {row}" in app.lines


async def test_a_row_that_is_higher_than_the_list_is_read_to_its_end_before_the_next() -> None:
    app = Listed()
    async with app.run_test(size=(40, HEIGHT)) as pilot:
        app.rows.fill([HighRow("long", HEIGHT + 3), *named("next")])
        await pilot.press("down", "down", "down")
        assert app.key == "long"
        assert app.lines[-1] == f"  long.{HEIGHT + 2}"
        await pilot.press("down")
        assert app.key == "next"
        await pilot.press("up")
        assert app.key == "long"
        assert app.lines[0] == "› long.0"


async def test_enter_and_a_click_choose_a_row() -> None:
    app = Listed()
    async with app.run_test(size=(40, HEIGHT)) as pilot:
        app.rows.fill(named("a", "|", "c", pictures=("|",)))
        await pilot.pause()
        await pilot.press("enter")
        await pilot.click(RowList, offset=(4, 2))
        await pilot.click(RowList, offset=(4, 1))
        await pilot.pause()
        assert app.chosen == ["a", "c"]


async def test_the_row_of_the_cursor_stays_in_sight_when_the_list_gets_smaller() -> None:
    app = Listed()
    async with app.run_test(size=(40, 40)) as pilot:
        app.rows.fill(numbered(100))
        await pilot.press(*["down"] * 35)
        await pilot.resize_terminal(40, 8)
        await pilot.pause()
        assert "› row 35" in app.lines


@pytest.mark.parametrize("width", [30, 60, 200])
def test_cells_stand_under_their_titles_whatever_signs_they_hold(width: int) -> None:
    columns = Columns(Column("one", 6, narrow_width=3), Column("two"), Column("three", 5, from_width=60, is_right=True))
    cells = ("ab", "研究者研究者", "e\u0301e\u0301", "")
    rows = [columns.line(width, (cell, "x" * 300, "12")) for cell in cells]
    assert {_cells_before(row, "x") for row in rows} == {_cells_before(columns.heading(width), "two")}
    assert {row.cell_length for row in rows} == {width}


def _cells_before(content: Content, text: str) -> int:
    return Content(str(content).partition(text)[0]).cell_length
