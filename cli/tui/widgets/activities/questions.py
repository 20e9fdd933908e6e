"""What a job asks people."""

from collections.abc import Iterator

from .....core.activity import InteractiveToolActivity
from ....plain import one_line
from .block import CARE, Block
from .general import args_text
from .marks import INDENT, head

QUESTION_ROWS = 8


def question(activity: InteractiveToolActivity) -> Iterator[Block]:
    yield head("Asks", one_line(activity.tool_name), mark="⏸", tone=CARE)
    yield Block(_text(activity), lead=INDENT, rows=QUESTION_ROWS, is_markdown=True)


def _text(activity: InteractiveToolActivity) -> str:
    """The question itself; with other arguments beside it, all of them by name."""
    values = list(activity.args.values())
    if len(values) == 1 and isinstance(values[0], str):
        return values[0]
    lines = [
        f"{name}: {value if isinstance(value, str) else args_text(value)}" for name, value in activity.args.items()
    ]
    return "\n".join(lines)
