import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.repo.tree import ROOT

SKIPPED = "import pytest\ndef test_it():\n    pytest.skip({reason!r})\n"
MODULE_SKIPPED = "import pytest\npytest.skip({reason!r}, allow_module_level=True)\n"
MARKED = "import pytest\n@pytest.mark.skipif(True, reason={reason!r})\ndef test_it(): ...\n"
EXPECTED_FAILURE = "import pytest\n@pytest.mark.xfail(reason={reason!r})\ndef test_it():\n    assert False\n"


def run(folder: Path, source: str, *, ci: bool) -> subprocess.CompletedProcess[str]:
    """Run pytest over one file, with the plugin and nothing else of this repository."""
    file = folder / "test_example.py"
    file.write_text(source)
    command = [sys.executable, "-m", "pytest", "-p", "tests.repo.skips", "-p", "no:cacheprovider", "-c", os.devnull]
    environment = os.environ | {"CI": str(ci).lower(), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, str(file)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("source", [SKIPPED, MODULE_SKIPPED, MARKED])
def test_a_skip_is_a_failure_in_ci_and_says_why(tmp_path: Path, source: str) -> None:
    result = run(tmp_path, source.format(reason="no frobnicator"), ci=True)
    assert result.returncode not in (0, 5)
    assert "no frobnicator" in result.stdout
    assert "With CI=true a skip is a failure" in result.stdout


def test_a_skip_stays_a_skip_on_a_developers_machine(tmp_path: Path) -> None:
    result = run(tmp_path, SKIPPED.format(reason="no frobnicator"), ci=False)
    assert result.returncode == 0
    assert "1 skipped" in result.stdout


@pytest.mark.parametrize(
    "source", [SKIPPED.format(reason="needs CLUSTER=current"), EXPECTED_FAILURE.format(reason="x")]
)
def test_a_skip_with_an_allowed_reason_and_an_expected_failure_stand_in_ci(tmp_path: Path, source: str) -> None:
    assert run(tmp_path, source, ci=True).returncode == 0
