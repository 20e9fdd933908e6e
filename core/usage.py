"""Token arithmetic. `input_tokens` always includes the cached ones; `total` is input plus output."""

from .wire import Wire


class Usage(Wire):
    """Tokens of one generation or of many (contract §4.6); a value a provider does not report counts as 0."""

    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    total_tokens: int = 0
    cached_input_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage.trusted(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
            cached_input_tokens=self.cached_input_tokens + other.cached_input_tokens,
        )


NO_USAGE = Usage()


def context_ratio(last_call: Usage, context_window: int | None) -> float | None:
    """How full the context window was after one generation; `None` when the window is unknown."""
    if not context_window:
        return None
    return (last_call.input_tokens + last_call.output_tokens) / context_window
