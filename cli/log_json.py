"""A job and its events as one JSON object in the contract's shape (§6.5)."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from .log_view import LogView, first_run_id, segments_of
from .output import EventEncoder


def log_json(view: LogView, *, is_pretty: bool) -> bytes:
    """One line, or indented lines, with a newline at the end."""
    encoder = EventEncoder()
    page = view.page
    fields: dict[str, bytes] = {
        "job": view.follower.job().wire_json().encode(),
        "events": _array(encoder.encode(event) for event in page.events),
        "summary": view.summary.wire_json().encode(),
    }
    if view.checkpoint is not None:
        fields["checkpoint"] = encoder.encode_checkpoint(view.checkpoint)
    if not view.source.is_latest:
        fields["checkpoints"] = _array(map(encoder.encode_checkpoint, view.checkpoints))
    fields["runs"] = json.dumps(_runs(view)).encode()
    if view.source.is_latest:
        fields["isLatestJob"] = b"true"
    if view.source.storage is not None:
        fields["storagePath"] = json.dumps(view.source.storage).encode()
    fields["totalEventsBeforeLimit"] = str(page.matched).encode()
    fields["matchedAfterPagination"] = str(page.shown).encode()
    line = b"{" + b",".join(b'"%b":%b' % (name.encode(), value) for name, value in fields.items()) + b"}"
    if is_pretty:
        line = json.dumps(json.loads(line), indent=2, ensure_ascii=False).encode()
    return line + b"\n"


def _array(items: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(item.rstrip(b"\n") for item in items) + b"]"


def _runs(view: LogView) -> Sequence[dict[str, Any]]:
    """Every run of the job, oldest first; what it ran with is in the history's input."""
    runs: list[dict[str, Any]] = []
    for reader in view.follower.readers:
        if reader.fold is None:
            continue
        start, checkpoint = reader.fold.start, reader.fold.state.checkpoint
        runs.append(
            {
                "jobId": start.job_id,
                "runId": first_run_id(reader),
                "segments": segments_of(reader),
                "expertKey": start.expert_key,
                "model": start.expert.model.model,
                "status": checkpoint.status,
                "stepNumber": checkpoint.step_number,
                "startedAt": reader.started_at,
                "updatedAt": reader.ended_at,
            }
        )
    return runs
