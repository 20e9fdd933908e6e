"""What is wrong with the arguments of a call, in words short enough for the model."""

from jsonschema.exceptions import ValidationError

SHOWN_CHARACTERS = 300
"""Of one complaint: a validator may quote the whole value."""


def shown_problem(error: ValidationError) -> str:
    """Where, and what."""
    message = error.message
    if len(message) > SHOWN_CHARACTERS:
        message = message[:SHOWN_CHARACTERS] + "…"
    where = error.json_path.removeprefix("$").removeprefix(".")
    return f"{where}: {message}" if where else message
