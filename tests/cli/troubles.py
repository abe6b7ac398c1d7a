"""What people may meet and look up: every reason, code and exit code that the code can give, read from the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from typer.core import TyperCommand
from typer.main import get_command

from tailrace.api.inferenceserver import ConditionType
from tailrace.cli.main import app
from tailrace.core import exchange
from tailrace.core.model import RefusalCode

PACKAGE = Path(__file__).resolve().parents[2] / "operator" / "tailrace"


def calls(folder: str, *names: str) -> Iterator[ast.Call]:
    """Yield the calls of these functions in the files of a folder of the package."""
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                yield node


def words(node: ast.expr | None) -> set[str]:
    """Return the strings in an expression."""
    found = ast.walk(node) if node is not None else ()
    return {part.value for part in found if isinstance(part, ast.Constant) and isinstance(part.value, str)}


def conditions() -> set[tuple[str, str]]:
    """Return (type, reason) of every condition whose words stand in the code; the type is empty for any problem's."""
    found = {(kind, reason) for call in calls("kube", "Verdict") for kind, reason in _verdict(call)}
    drain = ConditionType.DRAIN_PROTECTED.value
    found |= {(drain, reason) for call in calls("kube", "Weakness") for reason in words(call.args[0])}
    return found | {("", reason) for call in calls("kube", "Problem") for reason in words(call.args[0])}


def _verdict(call: ast.Call) -> Iterator[tuple[str, str]]:
    table, _, member = ast.unparse(call.args[0]).partition(".")
    if table == ConditionType.__name__:
        for reason in words(call.args[2]):
            yield ConditionType[member].value, reason


def special_types() -> set[str]:
    """Return the types of the conditions that are there only while something is wrong."""
    text = "".join(path.read_text() for path in sorted((PACKAGE / "kube").glob("*.py")))
    own = re.search(r"OWN_CONDITIONS: .*frozenset\(\{(.*)\}\)", text)
    noted = re.findall(r'notes\["(\w+)"\]', text) + re.findall(r'^[A-Z_]+ = "([A-Z]\w+)"$', text, re.MULTILINE)
    return {*noted, *(re.findall(r'"(\w+)"', own[1]) if own else ())}


def events() -> set[str]:
    """Return the reasons of Events about drains."""
    tree = ast.parse((PACKAGE / "kube" / "history.py").read_text())
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "sentence")
    returned = [node.value for node in ast.walk(function) if isinstance(node, ast.Return)]
    return {reason for value in returned if isinstance(value, ast.Tuple) for reason in words(value.elts[0])}


def codes() -> set[str]:
    """Return every ``error.code`` and dropped reason of the doors."""
    refusals = {code.value for code in RefusalCode}
    failures = {verdict.code for verdict in exchange.VERDICTS.values()} | {exchange._CUT.code, exchange._STOPPED.code}
    own = {code for call in calls("http", "DoorError") if len(call.args) > 1 for code in words(call.args[1])}
    asked = {code for call in calls("http", "bad_request") if call.args for code in words(call.args[0])}
    return refusals | failures | own | asked


def exits() -> set[tuple[str, str]]:
    """Return (command, exit code) of every command, as its help says."""
    group = get_command(app)
    commands: dict[str, TyperCommand] = getattr(group, "commands", {})
    return {(name, code) for name, command in commands.items() for code in _exits(command.help or "")}


def _exits(text: str) -> Iterator[str]:
    told = re.search(r"Exit codes?:?\s(.*)", text, re.DOTALL)
    yield from re.findall(r"\b([0-9]+) (?=[a-z])", told[1]) if told else ()


def anchors() -> set[str]:
    """Return the anchors that the doctor sends people to."""
    given: set[str] = set()
    for path in sorted((PACKAGE / "kube" / "doctor").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "anchor":
                given |= words(node.value)
            if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id == "well"):
                given |= {word for part in node.args for word in words(part) if re.fullmatch(r"[a-z]+(-[a-z]+)+", word)}
    return given
