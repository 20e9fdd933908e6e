"""Text from outside made harmless: nothing in it may steer a terminal, or reorder what a person reads."""

import re

_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, the cursor, the screen
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS …: titles, links, clipboard
    r"|\x1b[ -/]*[0-~]"
)
_SPECIAL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff\ud800-\udfff]"
)
_BREAKS = frozenset("\r\x85\u2028\u2029")
_UNSEEN = frozenset("\u00ad\u061c\u200e\u200f\u2060\ufeff")
_TAB = 4


def plain(text: str) -> str:
    """`text` with no more than lines and signs in it: escape sequences are left out, other controls made visible."""
    if "\x1b" in text or "\x9b" in text or "\x9d" in text:
        text = _SEQUENCE.sub("", text)
    if _SPECIAL.search(text):
        text = _SPECIAL.sub(_visible, text.replace("\r\n", "\n"))
    return text.expandtabs(_TAB) if "\t" in text else text


def one_line(text: str) -> str:
    """`text` made harmless and put on one line."""
    return " ".join(plain(text).split())


def _visible(found: re.Match[str]) -> str:
    sign = found[0]
    code = ord(sign)
    if sign in _BREAKS:
        return "\n"
    if sign in _UNSEEN:
        return ""
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if 0x202A <= code <= 0x2069:
        return f"<U+{code:04X}>"  # changes the direction of what follows
    return "\ufffd"
