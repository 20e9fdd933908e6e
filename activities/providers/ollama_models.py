"""What an Ollama server says about its models, over its native API."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx2
from pydantic_core import from_json

from ...core.expert import Expert
from ...core.profiles.chat import server_root
from ...core.profiles.providers import PROVIDERS
from .transport import TRANSPORT_ERRORS, base_url_of, headers_of, http_client

SECONDS = 2.0
"""How long anyone waits for it: a run can do without."""


async def with_context_windows(
    experts: Mapping[str, Expert], setting: Mapping[str, Any], env: Mapping[str, str]
) -> dict[str, Expert]:
    """The experts of a job with Ollama, with what the user's server says of its models; no table can know."""
    unknown = {expert.model.model for expert in experts.values() if expert.model.context_window is None}
    lengths = await asyncio.gather(*(context_length(env, setting, model) for model in unknown))
    windows = dict(zip(unknown, lengths, strict=True))
    return {
        key: expert.replaced(
            model=expert.model.replaced(context_window=windows.get(expert.model.model, expert.model.context_window))
        )
        for key, expert in experts.items()
    }


async def context_length(env: Mapping[str, str], setting: Mapping[str, Any], model: str) -> int | None:
    """The context window of `model` in tokens; `None` when the server does not say so in time.

    Source: https://docs.ollama.com/api-reference/show-model-details. `model_info` holds what the model was trained
    for, under the name of its architecture; `num_ctx` among the parameters is what the server gives it. What
    `OLLAMA_CONTEXT_LENGTH` makes of a model without `num_ctx`, this API does not tell.
    """
    root = server_root(base_url_of(PROVIDERS["ollama"], env, setting))
    try:
        async with asyncio.timeout(SECONDS), http_client(env, httpx2.AsyncClient) as client:
            response = await client.post(f"{root}/api/show", json={"model": model}, headers=headers_of(setting))
            return _context_length(from_json(response.content)) if response.status_code == 200 else None
    except (*TRANSPORT_ERRORS, TimeoutError, ValueError, AttributeError):
        return None


def _context_length(shown: dict[str, Any]) -> int | None:
    info: dict[str, Any] = shown.get("model_info") or {}
    trained = info.get(f"{info.get('general.architecture')}.context_length")
    given = _num_ctx(shown.get("parameters") or "")
    lengths = [length for length in (trained, given) if isinstance(length, int) and length > 0]
    return min(lengths, default=None)


def _num_ctx(parameters: str) -> int | None:
    """A parameter of a Modelfile: a name and a value to the line."""
    for line in parameters.splitlines():
        name, _, value = line.strip().partition(" ")
        if name == "num_ctx" and value.strip().isdecimal():
            return int(value)
    return None
