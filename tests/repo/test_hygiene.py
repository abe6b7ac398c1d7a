import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from tests.repo.tree import ROOT, texts

MACHINE_PATH = re.compile(r"/(?:work|root)/[A-Za-z.]")
NUMBERED_ISSUE = re.compile(r"\bissue #?\d", re.IGNORECASE)
# Joined here, so that this file passes its own test.
REGISTRIES = (
    ("pypi", "org"),
    ("files", "pythonhosted", "org"),
    ("proxy", "golang", "org"),
    ("sum", "golang", "org"),
    ("registry", "npmjs", "org"),
    ("deb", "debian", "org"),
)
INDEX_VARIABLES = (
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "UV_INDEX_URL",
    "UV_DEFAULT_INDEX",
    "GOPROXY",
)


def registry_hosts(environment: Mapping[str, str]) -> set[str]:
    """Return the hosts packages usually come from, and those this machine gets them from."""
    addresses = (address for name in INDEX_VARIABLES for address in re.split(r"[\s,|]+", environment.get(name, "")))
    own = {urlsplit(address).hostname or "" for address in addresses}
    return {".".join(parts) for parts in REGISTRIES} | {host for host in own if "." in host}


def holding(words: Iterable[str]) -> list[str]:
    """Return file and word wherever one of the words stands in a committed file."""
    wanted = tuple(words)
    return [f"{name}: {word}" for name, text in texts() for word in wanted if word in text]


def test_no_file_names_a_package_registry() -> None:
    assert holding(registry_hosts(os.environ)) == []


def test_a_registry_of_this_machine_alone_is_known_too() -> None:
    hosts = registry_hosts(
        {"PIP_INDEX_URL": "https://user@mirror.example/simple", "GOPROXY": "https://go.example,direct"}
    )
    assert {"mirror.example", "go.example"} <= hosts


def test_no_file_holds_a_path_of_somebodys_machine() -> None:
    assert [f"{name}: {found[0]}" for name, text in texts() if (found := MACHINE_PATH.search(text))] == []
    home = str(Path.home())
    assert holding({str(ROOT), *([home] if home.count("/") > 1 else [])}) == []


def test_no_file_speaks_of_numbered_issues() -> None:
    """The text must make sense to those who have only the repository."""
    assert [f"{name}: {found[0]}" for name, text in texts() if (found := NUMBERED_ISSUE.search(text))] == []
