"""Messages of TensorFlow's errors without their places in its graph. It handles texts only, so needs no TensorFlow."""

import re

PLACE = re.compile(r"\{\{function_node [^}]*\}\}\s*")
"""The place in this process's own graph where an error arose."""
GRAPH = re.compile(r"\{\{.*?\}\}\s*|\s*\[(\[\{\{|Op:).*|\bname: *$", re.MULTILINE)
"""All that a message says about the graph: places, nodes, and the operation with its name."""


def without_place(text: str) -> str:
    return PLACE.sub("", text).strip()


def plain_message(error: Exception) -> str:
    """Returns an error's message in one line, without TensorFlow's graph; the error's name if the message is empty."""
    message = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
    message = GRAPH.sub("", str(message)).strip()
    return message.splitlines()[0].strip() if message else type(error).__name__
