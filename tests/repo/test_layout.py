import ast
import importlib.metadata
import subprocess
import sys

from tests.repo.tree import ROOT, files, project
from tests.repo.workers import LONG

import tailrace


def test_the_operator_folder_is_no_package() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_import_operator_from_the_repository_root_finds_the_standard_library() -> None:
    code = (
        "import sys; sys.modules.pop('operator', None); import operator; print(operator.__file__, operator.itemgetter)"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not found.startswith(str(ROOT / "operator"))
    assert "itemgetter" in found


def test_only_folders_of_tests_that_share_a_cluster_are_packages() -> None:
    """A cluster ends with the package that it is for; other folders would just shadow modules of the same name."""
    packages = {path.parent for path in files() if path.is_relative_to(ROOT / "tests") and path.name == "__init__.py"}
    assert packages == {ROOT / "tests" / name for name in LONG}


def test_the_public_names_are_these() -> None:
    assert tailrace.__all__ == ["LoadBalancer", "ThreadSafeLoadBalancer", "__version__"]
    assert all(hasattr(tailrace, name) for name in tailrace.__all__)


def test_the_installed_package_is_this_checkout() -> None:
    assert importlib.metadata.version("tailrace") == tailrace.__version__
    assert (tailrace.__file__ or "").startswith(str(ROOT / "operator" / "tailrace"))


def test_the_core_takes_from_random_the_class_alone() -> None:
    """Chance is passed in; the import contract lets the module through for the sake of this one name."""
    core = ROOT / "operator" / "tailrace" / "core"
    assert {name for path in core.rglob("*.py") for name in taken_from_random(path.read_text())} == {"Random"}


def test_whole_module_imports_of_random_would_be_seen() -> None:
    assert taken_from_random("import random\nfrom random import choice") == {"the module", "choice"}


def taken_from_random(source: str) -> set[str]:
    taken = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "random":
            taken |= {alias.name for alias in node.names}
        if isinstance(node, ast.Import) and any(alias.name == "random" for alias in node.names):
            taken.add("the module")
    return taken


def test_every_import_contract_is_a_sentence_of_the_architecture_page() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    names = [contract["name"] for contract in project()["tool"]["importlinter"]["contracts"]]
    assert len(names) == len(set(names)) > 0
    assert [name for name in names if name not in page] == []
