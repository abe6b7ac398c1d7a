"""What shares a cluster runs in one worker, and what takes long is begun first."""

import os
import re
import subprocess
import sys

import pytest
from tests.repo.tree import ROOT

SOURCE = "def test_one(): pass\ndef test_two(): pass\n"
FILES = ("app/test_a", "cluster/test_a", "cluster/test_b", "core/test_a", "faults/test_a", "node/test_a", "node/test_b")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """Run a tree of tests by two workers; return worker and file of each test, each worker's in its order."""
    folder = tmp_path_factory.mktemp("tree")
    for name in FILES:
        (folder / f"tests/{name}.py").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"tests/{name}.py").write_text(SOURCE)
    command = [sys.executable, "-m", "pytest", "-v", "-p", "tests.repo.workers", "-p", "no:cacheprovider"]
    command += ["--import-mode=importlib", "-n2", "--no-loadscope-reorder", "-c", os.devnull]
    result = subprocess.run(
        [*command, f"--rootdir={folder}", "tests"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return re.findall(r"\[(gw\d)\] .* PASSED tests/(\S+)\.py::", result.stdout)


def test_a_folder_that_shares_a_cluster_has_one_worker(ran: list[tuple[str, str]]) -> None:
    assert len(ran) == 2 * len(FILES)
    assert len({worker for worker, name in ran if name.startswith("node/")}) == 1


def test_what_takes_long_is_begun_first(ran: list[tuple[str, str]]) -> None:
    first = dict(reversed(ran))  # by worker
    assert set(first.values()) == {"node/test_a", "faults/test_a"}
