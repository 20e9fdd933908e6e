"""A job and its events as one JSON object in the contract's shape (§6.5)."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .log_view import LogView
from .output import EventEncoder


def log_json(view: LogView, *, is_pretty: bool) -> list[bytes]:
    """The pieces of one line, or of indented lines, with a newline at the end."""
    encoder = EventEncoder()
    page = view.page
    fields: dict[str, Iterable[bytes]] = {
        "job": [view.follower.job().wire_json().encode()],
        "events": _array(map(encoder.pieces, page.events)),
        "summary": [view.summary.wire_json().encode()],
    }
    if view.checkpoint is not None:
        fields["checkpoint"] = encoder.checkpoint_pieces(view.checkpoint)
    if not view.source.is_latest:
        fields["checkpoints"] = _array(map(encoder.checkpoint_pieces, view.checkpoints))
    fields["runs"] = [json.dumps(_runs(view)).encode()]
    if view.source.is_latest:
        fields["isLatestJob"] = [b"true"]
    if view.source.storage is not None:
        fields["storagePath"] = [json.dumps(view.source.storage).encode()]
    fields["totalEventsBeforeLimit"] = [str(page.matched).encode()]
    fields["matchedAfterPagination"] = [str(page.shown).encode()]
    named = ([f'"{name}":'.encode(), *value] for name, value in fields.items())
    pieces = [b"{", *_separated(named), b"}\n"]
    if is_pretty:
        return [json.dumps(json.loads(b"".join(pieces)), indent=2, ensure_ascii=False).encode(), b"\n"]
    return pieces


def _array(items: Iterable[Iterable[bytes]]) -> list[bytes]:
    return [b"[", *_separated(items), b"]"]


def _separated(items: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    for number, item in enumerate(items):
        if number:
            yield b","
        yield from item


def _runs(view: LogView) -> Sequence[dict[str, Any]]:
    """Every run of the job, oldest first; what it ran with is in the history's input."""
    runs: list[dict[str, Any]] = []
    for reader in view.follower.readers:
        if reader.fold is None:
            continue
        start, checkpoint = reader.fold.start, reader.fold.state.checkpoint
        run = view.follower.view.run_of(start.run_id)
        runs.append(
            {
                "jobId": start.job_id,
                "runId": start.run_id,
                "segments": [segment.run_id for segment in run.segments] if run is not None else [],
                "expertKey": start.expert_key,
                "model": start.expert.model.model,
                "status": checkpoint.status,
                "stepNumber": checkpoint.step_number,
                "startedAt": reader.started_at,
                "updatedAt": reader.changed_at or reader.started_at,
            }
        )
    return runs
