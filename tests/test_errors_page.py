"""docs/errors.md: its exit codes are those of the package, and each of its messages is in the package's files."""

import ast
import re
from pathlib import Path

import pytest

from polynet_keras.basics import exits

ROOT = Path(__file__).parent.parent
CODES, MESSAGES = (ROOT / "docs" / "errors.md").read_text().split("## Frequent messages")
QUOTED = re.findall(r"(?m)^\* `(.+?)`:", MESSAGES)


def texts() -> list[str]:
    """All texts of the package's files; `…` stands for a value in an f-string."""
    found = []
    for path in (ROOT / "polynet_keras").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
    return found


TEXTS = texts()


def test_the_exit_codes_are_those_of_the_package():
    listed = {int(code) for code in re.findall(r"(?m)^\* `(\d+)`:", CODES)}
    assert listed == {0, *(code for name, code in vars(exits).items() if name.startswith("EXIT_"))}


@pytest.mark.parametrize("message", QUOTED)
def test_a_message_is_one_of_the_package(message):
    """Its fixed parts come in this order in one text of the package."""
    parts = [part.strip() for part in message.split("…")]
    assert max(map(len, parts)) >= 10, "too short to be found"
    pattern = re.compile(".*".join(map(re.escape, parts)), re.DOTALL)
    assert any(pattern.search(text) for text in TEXTS)


def test_messages_are_quoted():
    assert len(QUOTED) == MESSAGES.count("\n* ")
