"""What people and models say: queries, reasoning, results."""

from collections.abc import Iterator

from .....core.activity import AttemptCompletionActivity, CompleteActivity, QueryActivity
from .block import BAD, CARE, DIM, GOOD, Block
from .marks import failure, head
from .todos import todo_list

QUERY_ROWS = 8
RESULT_ROWS = 20
REASONING_ROWS = 3


def query(activity: QueryActivity) -> Iterator[Block]:
    yield Block(activity.text, label="Query", lead="● ", rows=QUERY_ROWS, is_markdown=True)


def reasoning(text: str) -> Iterator[Block]:
    """What was thought before an activity."""
    if text.strip():
        yield Block(
            text, label="Reasoning", lead="∴ ", rows=REASONING_ROWS, style=DIM, lead_style=DIM, is_markdown=True
        )


def complete(activity: CompleteActivity) -> Iterator[Block]:
    yield Block(activity.text, label="Run results", lead="✓ ", lead_style=GOOD, rows=RESULT_ROWS, is_markdown=True)


def attempt_completion(activity: AttemptCompletionActivity) -> Iterator[Block]:
    remaining = activity.remaining_todos
    if activity.error is not None:
        yield head("Completion failed", mark="✗", tone=BAD)
        yield from failure(activity.error)
    elif remaining:
        yield head(f"Completion blocked ({len(remaining)} remaining)", mark="✗", tone=CARE)
        yield todo_list(remaining)
    else:
        yield head("Completion accepted", tone=GOOD)
