import hashlib
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.repo.tree import ROOT, project

APACHE_2_0 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
RUNTIME = ROOT / "requirements" / "runtime.txt"
DEV = ROOT / "requirements" / "dev.txt"
BUILD = ROOT / "requirements" / "build.txt"
"""What the image's build stage builds the package with."""
LLAMA = ROOT / "requirements" / "llama.txt"
"""What the image of the real engine that the tests serve is made of."""


def blocks(path: Path) -> list[str]:
    """Return each requirement with the lines that continue it, without comments."""
    text = re.sub(r"^\s*#.*\n?", "", path.read_text(), flags=re.MULTILINE)
    return text.replace("\\\n", " ").splitlines()


def pins(path: Path) -> dict[str, str]:
    """Return name -> version."""
    requirements = [Requirement(block.split("--hash")[0]) for block in blocks(path)]
    return {canonicalize_name(each.name): str(each.specifier).removeprefix("==") for each in requirements}


@pytest.mark.parametrize("path", [RUNTIME, DEV, BUILD, LLAMA], ids=lambda path: path.name)
def test_every_requirement_is_one_version_with_hashes_and_no_address(path: Path) -> None:
    assert blocks(path)
    odd = [
        block
        for block in blocks(path)
        if not re.fullmatch(r"[\w.-]+==[^ ]+[^:@]*( +--hash=sha256:[0-9a-f]{64})+", block)
    ]
    assert odd == []
    assert "://" not in path.read_text()


def test_developers_run_the_versions_that_users_run() -> None:
    assert pins(RUNTIME).items() <= pins(DEV).items()
    assert pins(BUILD).items() <= pins(DEV).items()
    assert pins(LLAMA).items() <= pins(DEV).items()


def test_the_locks_hold_what_the_project_asks_for() -> None:
    asked = project()["project"]
    wanted = [(RUNTIME, line) for line in asked["dependencies"]]
    wanted += [(DEV, line) for line in asked["optional-dependencies"]["dev"]]
    unmet = [line for path, line in wanted if not met(Requirement(line), pins(path))]
    assert unmet == [], "run `make lock`"


def met(requirement: Requirement, locked: dict[str, str]) -> bool:
    version = locked.get(canonicalize_name(requirement.name))
    return version is not None and version in requirement.specifier


def test_the_licence_is_the_text_of_apache_2_0() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2_0
    assert project()["project"]["license"] == "Apache-2.0"
