"""Work given to other experts."""

from collections.abc import Iterator

from .....core.activity import DelegateActivity, DelegationCompleteActivity
from ....plain import one_line
from .block import CARE, GOOD, Block
from .marks import INDENT, TEXT_ROWS, head


def delegate(activity: DelegateActivity) -> Iterator[Block]:
    yield head(one_line(activity.delegate_expert_key), mark="⎇", tone=CARE)
    yield Block(activity.query, lead=INDENT, rows=TEXT_ROWS, is_markdown=True)


def delegation_complete(activity: DelegationCompleteActivity) -> Iterator[Block]:
    yield head(f"Delegation complete ({activity.count})", tone=GOOD)
