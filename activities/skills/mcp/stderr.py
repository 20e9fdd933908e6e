"""What a skill's process writes to stderr: told in bounded pieces, its end kept for errors, secrets taken out."""

import asyncio
from collections.abc import Callable

from ..results import clip_text

TAIL_BYTES = 4 * 1024
"""Of stderr in an error."""
PIECE_BYTES = 4 * 1024
"""Of one report; longer ones are cut in the middle."""
BURST_BYTES = 64 * 1024
REFILL_BYTES = 2 * 1024
"""Per second; what a server writes beyond burst and refill is counted, not told."""
_GATHER_SECONDS = 0.1
# Secrets are looked for in more than is shown, so that none escapes by lying across the cut.
_KEPT_BYTES = 4 * TAIL_BYTES
_QUOTED_BYTES = 64 * 1024


class StderrLog:
    """Takes bytes, tells text: what comes within a tenth of a second together, so that a secret of several lines is
    seen whole."""

    def __init__(self, scrub: Callable[[str], str], tell: Callable[[str], None]) -> None:
        self._scrub = scrub
        self._tell = tell
        self._kept = bytearray()
        self._is_cut = False
        self._waiting = bytearray()
        self._is_overfull = False
        self._left_out = 0
        self._allowance = float(BURST_BYTES)
        self._refilled_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def add(self, data: bytes) -> None:
        """Take the next bytes; memory stays bounded whatever their number."""
        self._is_cut |= len(self._kept) + len(data) > _KEPT_BYTES
        self._kept += data[-_KEPT_BYTES:]
        del self._kept[: max(0, len(self._kept) - _KEPT_BYTES)]
        room = max(0, _KEPT_BYTES - len(self._waiting))
        self._waiting += data[:room]
        self._left_out += max(0, len(data) - room)
        self._is_overfull |= len(data) > room
        self._set_timer()

    def flush(self) -> None:
        """Tell everything that waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting = bytes(self._waiting)
        self._waiting.clear()
        if self._is_overfull:
            # The last line is a fragment, perhaps of a secret.
            self._is_overfull = False
            end = waiting.rfind(b"\n")
            kept = waiting[: end if end >= 0 else len(waiting) // 2]
            self._left_out += len(waiting) - len(kept)
            waiting = kept
        self._tell_of(waiting)

    def finish(self) -> None:
        """Tell what waits and how much was not told."""
        self.flush()
        if self._left_out:
            self._tell(self._left_out_notice())

    def _flush_lines(self) -> None:
        """Tell the whole lines that wait; a line gets a second tenth of a second to become whole."""
        self._timer = None
        end = self._waiting.rfind(b"\n") + 1
        if self._is_overfull or end in (0, len(self._waiting)):
            self.flush()
            return
        lines = bytes(self._waiting[:end])
        del self._waiting[:end]
        self._tell_of(lines)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._flush_lines)

    def _tell_of(self, waiting: bytes) -> None:
        text = self._scrub(waiting.decode(errors="replace")).strip()
        if not text:
            return
        text = clip_text(text, PIECE_BYTES)
        if not self._may_tell(len(text.encode())):
            self._left_out += len(waiting)
            return
        self._tell(f"{text}\n{self._left_out_notice()}" if self._left_out else text)

    def _left_out_notice(self) -> str:
        count, self._left_out = self._left_out, 0
        return f"(… {count} more bytes of stderr left out)"

    def quoted(self, line: bytes, limit: int) -> str:
        """The first `limit` bytes of a line from elsewhere; secrets are looked for in more than is shown."""
        return clip_text(self._scrub(line[:_QUOTED_BYTES].decode(errors="replace"))[:limit], limit)

    def tail(self) -> str:
        """The end of everything written so far."""
        kept = bytes(self._kept)
        if self._is_cut:
            # The first line is a fragment, perhaps of a secret.
            start = kept.find(b"\n") + 1
            kept = kept[start if 0 < start < len(kept) else len(kept) // 2 :]
        text = self._scrub(kept.decode(errors="replace")).strip()
        return text.encode()[-TAIL_BYTES:].decode(errors="ignore")

    def _may_tell(self, size: int) -> bool:
        now = asyncio.get_running_loop().time()
        elapsed = 0.0 if self._refilled_at is None else now - self._refilled_at
        self._refilled_at = now
        self._allowance = min(float(BURST_BYTES), self._allowance + elapsed * REFILL_BYTES)
        if size > self._allowance:
            return False
        self._allowance -= size
        return True
