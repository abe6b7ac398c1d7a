import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.repo.test_requirements import RUNTIME, pins
from tests.repo.tree import ROOT

import tailrace

SCRIPT = ROOT / "requirements" / "sbom.py"


@pytest.fixture
def sbom() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sbom", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_bill_reads_the_lock_as_the_tests_do(sbom: ModuleType) -> None:
    assert sbom.locked(RUNTIME.read_text()) == pins(RUNTIME)


def test_what_the_lock_does_not_name_stops_the_build(sbom: ModuleType) -> None:
    found = {"tailrace": ("0.1.0", ""), "kopf": ("1.0", "MIT"), "stray": ("2", ""), "rich": ("14.0", "")}
    assert list(sbom.differences({"kopf": "1.1", "rich": "14.0"}, found)) == [
        "kopf 1.0 is installed, the lock has 1.1",
        "stray 2 is installed, the lock has no such project",
    ]


def test_the_bill_names_every_part_and_is_the_same_each_time(sbom: ModuleType) -> None:
    found = {"tailrace": ("0.1.0", "Apache-2.0"), "rich": ("14.0", "MIT"), "kopf": ("1.0", "")}
    bill = sbom.bill(found)
    assert [part["purl"] for part in bill["components"]] == ["pkg:pypi/kopf@1.0", "pkg:pypi/rich@14.0"]
    assert bill["metadata"]["component"]["type"] == "application"
    assert json.dumps(bill) == json.dumps(sbom.bill(dict(reversed(found.items()))))


def test_an_environment_beyond_the_lock_gets_no_bill(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(RUNTIME), str(tmp_path / "sbom.json")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "pytest" in result.stderr, "the tests' own environment has more than users get"
    assert result.returncode == 1


def test_the_image_is_labelled_with_the_version_of_the_package() -> None:
    assert f"\nARG VERSION={tailrace.__version__}\n" in (ROOT / "Dockerfile").read_text()
