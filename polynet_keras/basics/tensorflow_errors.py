"""What TensorFlow's errors say, without where in its graph they arose: only texts, so this needs no TensorFlow."""

import re

PLACE = re.compile(r"\{\{function_node [^}]*\}\}\s*")
"""Where in this process's own graph an error arose."""
GRAPH = re.compile(r"\{\{.*?\}\}\s*|\s*\[(\[\{\{|Op:).*|\bname: *$", re.MULTILINE)
"""All that a message tells of the graph: places, nodes, and the operation with its name."""


def without_place(text: str) -> str:
    return PLACE.sub("", text).strip()


def plain_message(error: Exception) -> str:
    """What an error says, in one line: one of TensorFlow's without its graph, and the name of one that says nothing."""
    message = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
    message = GRAPH.sub("", str(message)).strip()
    return message.splitlines()[0].strip() if message else type(error).__name__
