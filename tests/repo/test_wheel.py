"""What `make wheel-compiled` compiles. That it passes the core's tests, the job itself shows; it takes minutes."""

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from tests.repo.tree import ROOT, project

CORE = ROOT / "operator" / "tailrace" / "core"


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    """Return the build hook as a module; it is no part of any package."""
    spec = importlib.util.spec_from_file_location("tailrace_compile", ROOT / "requirements" / "compile.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def compiled(hook: ModuleType) -> list[Path]:
    found: list[Path] = hook.modules(ROOT / "operator" / "tailrace")
    return found


def test_all_of_the_core_is_compiled_but_for_files_with_a_reason(hook: ModuleType) -> None:
    left = {path.relative_to(CORE).as_posix() for path in CORE.rglob("*.py")} - {
        path.relative_to(CORE).as_posix() for path in compiled(hook)
    }
    assert left == {"__init__.py", "sources/__init__.py", *hook.INTERPRETED}
    assert all(hook.INTERPRETED.values())


def test_a_wheel_is_pure_unless_it_is_asked_for(hook: ModuleType) -> None:
    settings = project()["tool"]["hatch"]["build"]["targets"]
    assert settings["wheel"]["hooks"]["custom"]["enable-by-default"] is False
    path = settings["wheel"]["hooks"]["custom"]["path"]
    assert Path(hook.__file__ or "") == ROOT / path
    assert f"/{path}" in settings["sdist"]["include"]


def test_every_class_that_is_compiled_can_be_stored(hook: ModuleType) -> None:
    for path in compiled(hook):
        source = path.read_text()
        unmarked = sum(source.count(base) for base in ("Enum):", "(NamedTuple):", "(Protocol):"))
        plain = len(re.findall(r"^class \w+", source, re.MULTILINE)) - unmarked
        assert hook.storable(source).count(hook._MARK) == plain, path


def test_the_mark_stands_before_the_decorators_and_not_on_what_is_not_compiled(hook: ModuleType) -> None:
    """On an Enum or a NamedTuple it would be called, and it is not there then."""
    source = "@dataclass(frozen=True)\nclass A:\n    x: int\n\n\nclass B(Enum):\n    C = 1\n\n\nclass D(A):\n    pass\n"
    source += "\n\nclass E(NamedTuple):\n    x: int\n"
    mark = hook._MARK
    assert hook.storable(source) == source.replace("@data", f"{mark}@data").replace("class D", f"{mark}class D")


def test_constants_are_marked_and_nothing_else(hook: ModuleType) -> None:
    source = "MOST = 5\n_LEAST = 1\nKNOWN: dict[str, int] = {}\nTWO = (1.0, 2.0)\n_S, _E = range(2)\n"
    source += "\n\ndef f():\n    X = 1\n"
    marked = source.replace("MOST =", "MOST: _Final =").replace("_LEAST =", "_LEAST: _Final =")
    assert hook.constant(source) == marked


def test_the_public_class_takes_arguments_as_they_come_and_says_itself_what_is_wrong_with_them(
    hook: ModuleType,
) -> None:
    taken = hook.unchecked((CORE / hook.CHECKS_ITSELF).read_text())
    assert "def add_server(self, server_id: Any, capacity: Any, gpu_memory_gb: Any) -> None:" in taken
    assert "def route_request(self, request_id: Any, estimated_tokens: Any) -> str:" in taken
    for function in ast.walk(ast.parse(hook.prepared(CORE / hook.CHECKS_ITSELF))):
        if isinstance(function, ast.FunctionDef) and not function.name.startswith("_"):
            assert {ast.unparse(each.annotation) for each in function.args.args[1:] if each.annotation} <= {"Any"}


def test_no_value_that_is_compiled_is_frozen(hook: ModuleType) -> None:
    """It could be stored, and not be loaded again: loading sets its fields."""
    assert [path.name for path in compiled(hook) if "frozen=True" in path.read_text()] == []


def returns_later(node: ast.AST) -> bool:
    return any(isinstance(each, ast.Yield | ast.YieldFrom) for each in ast.walk(node))


def test_no_generator_that_is_compiled_has_something_to_put_back(hook: ModuleType) -> None:
    """Compiled generators that are dropped before their end do not run what stands in ``finally`` or after ``with``."""
    wrong = [
        f"{path.name}:{node.lineno}"
        for path in compiled(hook)
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef) and returns_later(function)
        for node in ast.walk(function)
        if isinstance(node, ast.With) or (isinstance(node, ast.Try) and node.finalbody)
    ]
    assert wrong == []


def test_an_order_of_candidates_is_a_whole_number(hook: ModuleType) -> None:
    """Compiled code would make a float of it, as the annotation says, and lose the lower bits: the ties."""
    wrong = [
        f"{path.name}:{function.name}"
        for path in compiled(hook)
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef) and function.name in {"order", "key", "tie"}
        if function.returns is None or ast.unparse(function.returns) != "int"
    ]
    assert wrong == []
