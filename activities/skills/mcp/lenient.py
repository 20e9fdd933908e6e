"""Lists of tools as the client can read them: it refuses a whole page for the schema of one tool."""

from typing import Any, cast

import mcp_types as mcp

_MARK = "unusable: "


def with_readable_schemas(message: mcp.JSONRPCMessage) -> None:
    """Replace, in an answer that lists tools, what the client would not read as a schema."""
    if not isinstance(message, mcp.JSONRPCResponse):
        return
    tools: object = message.result.get("tools")
    if not isinstance(tools, list):
        return
    for tool in cast("list[object]", tools):
        if isinstance(tool, dict) and "name" in tool:
            members = cast("dict[str, Any]", tool)
            members["inputSchema"] = _readable(members.get("inputSchema"))
            # Never used: a result is shown as it is.
            members.pop("outputSchema", None)


def marked_problem(schema: dict[str, Any]) -> str | None:
    """Why the schema that stood here was replaced, or `None` if it was not."""
    comment = schema.get("$comment")
    return comment.removeprefix(_MARK) if isinstance(comment, str) and comment.startswith(_MARK) else None


def _readable(schema: object) -> dict[str, Any]:
    if schema is None:
        return {"type": "object"}
    if not isinstance(schema, dict):
        return _replaced("it is no object")
    members = cast("dict[str, Any]", schema)
    if members.get("type") is None:
        members = {**members, "type": "object"}
    if members["type"] != "object":
        return _replaced("its type is not object")
    properties, required = members.get("properties", {}), members.get("required", [])
    if not isinstance(properties, dict) or not all(
        isinstance(value, dict | bool) for value in cast("dict[str, Any]", properties).values()
    ):
        return _replaced("its properties are no schemas")
    if not isinstance(required, list) or not all(isinstance(name, str) for name in cast("list[Any]", required)):
        return _replaced("its required names are no list of names")
    if not isinstance(members.get("$schema", ""), str):
        return _replaced("its dialect is no name")
    return members


def _replaced(problem: str) -> dict[str, Any]:
    return {"type": "object", "$comment": _MARK + problem}
