"""Write the software bill of materials of an environment: `python sbom.py LOCK TARGET`, run by that environment.

CycloneDX 1.6. What is installed must be what the lock file names, or the build fails; the lock's hashes are those of
the archives that pip may have chosen from.
"""

import importlib.metadata
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PIN = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>[^\s;\\]+)", re.MULTILINE)
ROOT = "tailrace"


def canonical(name: str) -> str:
    """Return a project's name as package URLs have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(text: str) -> dict[str, str]:
    """Return name -> version of every pin of a lock file."""
    return {canonical(pin["name"]): pin["version"] for pin in PIN.finditer(text)}


def installed() -> dict[str, tuple[str, str]]:
    """Return name -> version and licence of what this environment holds."""
    found = importlib.metadata.distributions()
    return {canonical(one.metadata["Name"]): (one.version, _licence(one)) for one in found}


def _licence(distribution: importlib.metadata.Distribution) -> str:
    return next(iter(distribution.metadata.get_all("License-Expression") or ()), "")


def differences(pins: dict[str, str], found: dict[str, tuple[str, str]]) -> Iterator[str]:
    """Say what is installed that the lock does not name, or in another version."""
    for name, (version, _) in sorted(found.items()):
        if name != ROOT and pins.get(name) != version:
            yield f"{name} {version} is installed, the lock has {pins.get(name, 'no such project')}"


def component(name: str, version: str, licence: str) -> dict[str, object]:
    """Return one entry of the bill."""
    entry: dict[str, object] = {"type": "library", "name": name, "version": version}
    entry["bom-ref"] = entry["purl"] = f"pkg:pypi/{name}@{version}"
    if licence:
        entry["licenses"] = [{"expression": licence}]
    return entry


def bill(found: dict[str, tuple[str, str]]) -> dict[str, object]:
    """Return the whole bill, the same for the same environment."""
    parts = [component(name, *about) for name, about in sorted(found.items()) if name != ROOT]
    subject = component(ROOT, *found[ROOT]) | {"type": "application"}
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "metadata": {"component": subject}, "components": parts}


def main(lock: Path, target: Path) -> None:
    """Write the bill; exit with the differences when there are any."""
    found = installed()
    if wrong := list(differences(locked(lock.read_text()), found)):
        sys.exit("\n".join(wrong))
    target.write_text(json.dumps(bill(found), indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
