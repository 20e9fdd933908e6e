"""The peer: the same loop by hand, with the same SDK on the same server; nothing is kept, nothing survives."""

import sys
import time
from pathlib import Path

import anthropic
from anthropic.types import MessageParam, ToolParam

TOOL: ToolParam = {
    "name": "readTextFile",
    "description": "Reads a text file.",
    "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
}


def main() -> None:
    """Run one job; prints milliseconds per step."""
    url, query, page = sys.argv[1:4]
    client = anthropic.Anthropic(api_key="bench", base_url=url, max_retries=0)
    messages: list[MessageParam] = [{"role": "user", "content": query}]
    steps = 0
    begun = time.perf_counter()
    while True:
        steps += 1
        with client.messages.stream(
            model="bench", max_tokens=1000, system="You are a bench.", messages=messages, tools=[TOOL]
        ) as stream:
            answer = stream.get_final_message()
        messages.append({"role": "assistant", "content": answer.content})
        calls = [block for block in answer.content if block.type == "tool_use"]
        if not calls:
            break
        text = Path(page).read_text()
        messages.append(
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": call.id, "content": text} for call in calls],
            }
        )
    print((time.perf_counter() - begun) * 1000 / steps)


if __name__ == "__main__":
    main()
