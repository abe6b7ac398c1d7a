"""What shares a cluster runs in one worker, and what takes long is begun first."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.repo.tree import ROOT

SOURCE = "import time\ndef test_one(): time.sleep(0.1)\ndef test_two(): time.sleep(0.1)\n"


def who_ran_what(folder: Path, files: list[str]) -> list[tuple[str, str]]:
    """Run a tree of tests by two workers; return worker and test in the order of their ends."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(SOURCE)
    command = [sys.executable, "-m", "pytest", "-v", "-p", "tests.repo.workers", "-p", "no:cacheprovider"]
    command += [
        "--import-mode=importlib",
        "-n2",
        "--no-loadscope-reorder",
        "-c",
        os.devnull,
        "--rootdir",
        str(folder),
        "tests",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return re.findall(r"\[(gw\d)\] .* PASSED (\S+)", result.stdout)


def test_a_folder_that_shares_a_cluster_has_one_worker(tmp_path: Path) -> None:
    files = [f"tests/{name}.py" for name in ("node/test_a", "node/test_b", "core/test_a", "core/test_b", "core/test_c")]
    ran = who_ran_what(tmp_path, files)
    assert len(ran) == 10
    assert len({worker for worker, test in ran if test.startswith("tests/node/")}) == 1
    assert len({worker for worker, _ in ran}) == 2


def test_what_takes_long_is_begun_first(tmp_path: Path) -> None:
    ran = who_ran_what(tmp_path, [f"tests/{name}/test_it.py" for name in ("app", "cluster", "core", "faults", "node")])
    begun = [test for _, test in ran if test.endswith("one")]
    assert {"tests/node/test_it.py::test_one", "tests/faults/test_it.py::test_one"} == set(begun[:2])
    assert begun[2] == "tests/cluster/test_it.py::test_one"
