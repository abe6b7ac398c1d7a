import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.repo.tree import ROOT, texts

MAKEFILE = (ROOT / "Makefile").read_text()
JOBS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
SETUP = ROOT / "requirements" / "install"


def run(command: list[str], environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_make_alone_lists_every_job() -> None:
    listed = run(["make"]).stdout
    assert JOBS
    assert {job for job in JOBS if not re.search(rf"^  make {job} +[A-Z]", listed, re.MULTILINE)} == set()


def test_every_job_runs_whatever_files_there_are() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == JOBS


def test_every_job_that_a_page_names_exists() -> None:
    named = {
        (name, job)
        for name, text in texts()
        if name.endswith(".md") or name == ".ci/run"
        for job in re.findall(r"(?:`|^)(?:[A-Z]+=\S+ )*make ([a-z-]+)", text, re.MULTILINE)
    }
    assert (".ci/run", "check") in named
    assert {pair for pair in named if pair[1] not in JOBS} == set()


@pytest.mark.parametrize(
    "script", [ROOT / ".ci" / "run", SETUP, ROOT / "requirements" / "compiled"], ids=lambda path: path.name
)
def test_every_script_can_be_run_and_parsed(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert run(["bash", "-n", str(script)]).stderr == ""


@pytest.mark.parametrize(
    ("answer_to", "says"),
    [("version_info", "is too old: install Python 3.11 or newer"), ("ensurepip", "apt install python3-venv")],
)
def test_setup_says_what_to_install(tmp_path: Path, answer_to: str, says: str) -> None:
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\ncase "$*" in *{answer_to}*) exit 1;; *) echo "Python 3.x";; esac\n')
    python.chmod(0o755)
    result = run([str(SETUP)], os.environ | {"PYTHON": str(python)})
    assert result.returncode == 1
    assert says in result.stderr


def test_setup_without_a_python_says_so() -> None:
    result = run([str(SETUP)], os.environ | {"PYTHON": "no-such-python"})
    assert result.returncode == 1
    assert "no-such-python is not on the PATH: install Python 3.11 or newer" in result.stderr
