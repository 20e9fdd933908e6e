"""The signs of our texts where a stream cannot show them all."""

_ASCII = str.maketrans(
    {
        "✓": "+",
        "✗": "x",
        "⏸": "=",
        "◦": "o",
        "⎇": "<",
        "├": "|",
        "└": "`",
        "│": "|",
        "─": "-",
        "·": "-",
        "–": "-",
        "…": "~",
    }
)


def fitting(text: str, encoding: str | None) -> str:
    """`text` as it is, or its signs in ASCII where `encoding` does not have them."""
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return text.translate(_ASCII)
    return text
