"""The model of every benchmark: a fixed number of steps, each reading one file of 5 KB, 1 KB said beside it.

The query says how: `steps=50 delay=0`, or `delegates=39 steps=21 delay=0` for a coordinator whose delegates take that
many steps each. Loaded by the scripted Messages server.
"""

import re

from support.model_server import Answer, Call, Request

KILOBYTE = "The file holds what I expected, so I go on with the next one and keep the plan. " * 13


def script(request: Request) -> Answer:
    """The answer of one turn."""
    found = re.search(r"steps=(\d+) delay=(\d+)", request.first_user_text)
    assert found, request.first_user_text
    steps, delay_ms = int(found[1]), int(found[2])
    delegates = re.match(r"delegates=(\d+)", request.first_user_text)
    if delegates and request.turn == 1:
        query = f"steps={steps} delay={delay_ms}"
        calls = tuple(Call(name=f"part-{number}", args={"query": query}) for number in range(int(delegates[1])))
        return Answer(text="In parts.", calls=calls)
    if delegates:
        return Answer(text="done")
    if request.turn >= steps:
        return Answer(text="done", delay_ms=delay_ms)
    return Answer(
        text=KILOBYTE,
        calls=(Call(name="readTextFile", args={"path": "page.txt"}),),
        delay_ms=delay_ms,
        usage={"input_tokens": 100 + 1500 * request.turn, "output_tokens": 280},
    )
