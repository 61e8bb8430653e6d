"""What is inside a message is known in one package: nothing else reads a payload."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import tokenmem

PACKAGE = Path(tokenmem.__file__).parent
MAPPING_OF_ROWS = "operations/rows.py"


def payload_reads(source: str) -> Iterator[int]:
    """The lines on which an attribute `payload` is read, in whatever way."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr == "payload" and isinstance(node.ctx, ast.Load):
            yield node.lineno
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            constants = [each.value for each in node.args if isinstance(each, ast.Constant)]
            if called in ("getattr", "attrgetter") and "payload" in constants:
                yield node.lineno
        elif isinstance(node, ast.MatchClass) and "payload" in node.kwd_attrs:
            yield node.lineno


def readers() -> dict[str, list[int]]:
    """Every file of the package that reads a payload, with the lines."""
    files = {str(file.relative_to(PACKAGE)): file for file in sorted(PACKAGE.rglob("*.py"))}
    assert {"__init__.py", MAPPING_OF_ROWS, "chat/prompt.py", "messages/message.py"} <= files.keys()
    found = {name: list(payload_reads(file.read_text(encoding="utf-8"))) for name, file in files.items()}
    return {name: lines for name, lines in found.items() if lines}


def test_only_messages_and_the_mapping_of_rows_read_a_payload() -> None:
    found = readers()
    assert {"messages/message.py", MAPPING_OF_ROWS} <= found.keys(), "the search finds those that do"
    elsewhere = {
        name: lines
        for name, lines in found.items()
        if not name.startswith("messages/") and name != MAPPING_OF_ROWS
    }
    assert elsewhere == {}, "ask tokenmem.messages for what is inside a message"


@pytest.mark.parametrize(
    "source",
    [
        "message.payload",
        "x = (window.messages[0].payload or {}).get('type')",
        "getattr(message, 'payload', None)",
        "operator.attrgetter('payload')",
        "match message:\n    case Message(payload=dict()):\n        pass",
    ],
)
def test_a_read_is_found(source: str) -> None:
    assert list(payload_reads(source))


@pytest.mark.parametrize("source", ["message.payload = {}", "Message('user', payload={})", "payload['type']"])
def test_what_is_no_read_is_not(source: str) -> None:
    assert not list(payload_reads(source))
