"""An MCP server that does everything a server should not; plain JSON-RPC, so that it can lie about all of it.

`hostile.py [--option[=value] …]`: the options decide how it starts and what it lists, the tool that is called decides
the rest. With `--tell=<fifo>` it writes a line whenever something happened that a test waits for.
"""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

_PAIRS = (argument.removeprefix("--").partition("=") for argument in sys.argv[1:])
OPTIONS: dict[str, str] = {name: value for name, _, value in _PAIRS}
LINES = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
# Holds the server's pipes, is in a session of its own and cannot be asked to end.
STRAY = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.stderr.write("stray")
time.sleep(600)
"""
TOOLS = (
    *("echo", "environment", "die", "kill", "hang", "obedient", "freeze", "breed", "stderr", "garbage"),
    *("wrong_id", "flood", "chatter", "huge", "parts", "empty", "failure", "refusal", "nonsense"),
    *("asking", "meta", "mute", "input", "structured"),
)
MODERN = {"resultType": "complete", "ttlMs": 0, "cacheScope": "public"}
hanging: dict[Any, str] = {}


def tell(what: str) -> None:
    if "tell" in OPTIONS:
        with open(OPTIONS["tell"], "a") as fifo:
            fifo.write(what + "\n")


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def text(value: str, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": value}], **more}


def answer_list(request_id: Any, params: dict[str, Any]) -> None:
    tools: list[dict[str, Any]] = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]
    tools[0] = {"name": "echo", "inputSchema": LINES, "annotations": {"readOnlyHint": True}}
    if "tools" in OPTIONS:
        with open(OPTIONS["tools"]) as file:
            tools = json.load(file)
    if "many" in OPTIONS:
        tools = [{"name": f"tool-{number}", "inputSchema": LINES} for number in range(int(OPTIONS["many"]))]
    start = int(params.get("cursor", 0))
    page = int(OPTIONS.get("page", len(tools)))
    result: dict[str, Any] = {"tools": tools[start : start + page]}
    if "endless" in OPTIONS:
        result = {"tools": tools[:1], "nextCursor": str(start + 1)}
    elif start + page < len(tools):
        result["nextCursor"] = str(start + page)
    if "modern" in OPTIONS:
        result = {**result, **MODERN}
    send({"id": request_id, "result": result})


def breed() -> None:
    for _ in range(2):
        subprocess.Popen([sys.executable, "-c", STRAY], start_new_session=True)
    # Of our own group, and its parent gone at once.
    subprocess.Popen(["/bin/sh", "-c", 'trap "" TERM; sleep 600 & exit 0'])


def call(request_id: Any, params: dict[str, Any]) -> dict[str, Any] | None:  # noqa: C901
    name, args = params["name"], params.get("arguments", {})
    tell(f"call {name}")
    match name:
        case "echo":
            return text(args["text"])
        case "environment":
            return text(json.dumps(dict(os.environ)))
        case "die":
            sys.stderr.write(f"last words {args.get('words', '')}\n")
            sys.stderr.flush()
            os._exit(int(args.get("code", 3)))
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang" | "obedient":
            hanging[request_id] = name
            return None
        case "freeze":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        case "breed":
            breed()
            return text("bred")
        case "stderr":
            sys.stderr.write(args["text"] * int(args.get("times", 1)))
            sys.stderr.flush()
            return text("written")
        case "garbage":
            sys.stdout.write('hello\n{"jsonrpc": "1.0"}\n[1, 2]\n\n{"id": 7\n\xff\n')
            return text("after garbage")
        case "wrong_id":
            for wrong in (999, "x", None, -1):
                send({"id": wrong, "result": text("for somebody else")})
            return text("for you")
        case "flood":
            for _ in range(int(args["megabytes"])):
                sys.stdout.write(("x" * 1023 + "\n") * 1024)
            return text("flooded")
        case "chatter":
            for number in range(int(args["times"])):
                send({"method": "notifications/message", "params": {"level": "info", "data": number}})
            return text("said")
        case "huge":
            return text("x" * int(args["bytes"]))
        case "parts":
            return {"content": args["content"]}
        case "empty":
            return {"content": []}
        case "failure":
            return text("it failed", isError=True)
        case "structured":
            return {"content": [], "structuredContent": {"answer": 42}}
        case "refusal":
            send({"id": request_id, "error": {"code": -32000, "message": f"not with me {args.get('words', '')}"}})
            return None
        case "nonsense":
            return {"content": "no list"}
        case "asking":
            for number in range(int(args["times"])):
                send({"id": f"q{number}", "method": "sampling/createMessage", "params": {}})
            return text("asked")
        case "meta":
            return text(json.dumps(params.get("_meta")))
        case "mute":
            sys.stdout.close()
            os.close(1)
            time.sleep(600)
        case "input":
            return {"resultType": "input_required", "inputRequests": {}, "requestState": "x"}
        case _:
            return text(f"{name} called")
    return None


def answer_initialize(request_id: Any, params: dict[str, Any]) -> None:
    server = {"name": OPTIONS.get("name", "hostile"), "version": "1"}
    version = OPTIONS.get("version", params.get("protocolVersion"))
    send(
        {"id": request_id, "result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": server}}
    )


def handle(message: dict[str, Any]) -> None:
    method, request_id = message.get("method"), message.get("id")
    params: dict[str, Any] = message.get("params") or {}
    match method:
        case "initialize":
            tell("initialize")
            if "hang" not in OPTIONS:
                answer_initialize(request_id, params)
        case "server/discover":
            tell("discover")
            if "leaves-at-discover" in OPTIONS:
                sys.exit(4)
            if "modern" in OPTIONS:
                info = {"io.modelcontextprotocol/serverInfo": {"name": "modern", "version": "2"}}
                result: dict[str, Any] = {
                    "supportedVersions": ["2026-07-28"],
                    "capabilities": {"tools": {}},
                    "_meta": info,
                }
                send({"id": request_id, "result": {**result, **MODERN}})
            elif "hang" not in OPTIONS:
                send({"id": request_id, "error": {"code": -32601, "message": "Method not found"}})
        case "tools/list":
            answer_list(request_id, params)
        case "tools/call":
            answer = call(request_id, params)
            if answer is not None:
                send({"id": request_id, "result": {"resultType": "complete", **answer}})
        case "notifications/cancelled":
            cancelled = params.get("requestId")
            if hanging.pop(cancelled, "") == "obedient":
                send({"id": cancelled, "error": {"code": -32800, "message": "stopped"}})
            tell("cancelled")
        case _:
            pass


def main() -> None:
    sys.stderr.write(f"hostile server {OPTIONS.get('greeting', '')}\n")
    sys.stderr.flush()
    if "die" in OPTIONS:
        sys.exit(int(OPTIONS["die"]))
    if "garbage" in OPTIONS:
        sys.stdout.write("Welcome to the server!\n")
    if "flood" in OPTIONS:
        while True:
            sys.stdout.write("x" * 65536)
    if "breed" in OPTIONS:
        breed()
    if "deaf" in OPTIONS:
        time.sleep(600)
    for line in sys.stdin:
        handle(json.loads(line))
    tell("stdin closed")
    if "stays" in OPTIONS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)


if __name__ == "__main__":
    main()
