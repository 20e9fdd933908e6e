"""Times, durations and amounts as a person reads them, in the time zone of the terminal."""

from datetime import UTC, datetime

_TOKEN_UNITS = ((1_000_000, "M"), (1_000, "k"))
_BYTE_UNITS = ((1_000_000, "MB"), (1_000, "kB"))


def local(seconds: float) -> datetime:
    """A moment in seconds since the epoch, in local time."""
    return datetime.fromtimestamp(seconds, UTC).astimezone()


def moment(at: datetime, present: datetime) -> str:
    """When something was: `today 12:03`, `Nov 21 08:15`, `2025 Nov 21`; no longer than twelve cells."""
    local = at.astimezone(present.tzinfo)
    if local.date() == present.date():
        return f"today {local:%H:%M}"
    if local.year == present.year:
        return f"{local:%b} {local.day:2} {local:%H:%M}"
    return f"{local:%Y} {local:%b} {local.day:2}"


def duration(milliseconds: int) -> str:
    """How long something took: `240ms`, `3.1s`, `4m 06s`, `2h 05m`."""
    if milliseconds < 1_000:
        return f"{max(0, milliseconds)}ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f}s"
    minutes, seconds = divmod(milliseconds // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {seconds:02}s"


def tokens(count: int) -> str:
    """An amount of tokens: `812`, `46.2k`, `2.9M`."""
    for limit, unit in _TOKEN_UNITS:
        if count >= limit:
            return f"{count / limit:.1f}{unit}"
    return str(count)


def size(count: int) -> str:
    """An amount of bytes: `812 bytes`, `46.2 kB`."""
    for limit, unit in _BYTE_UNITS:
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return f"{count} byte{'' if count == 1 else 's'}"
