"""The helm of the tests: the pinned binary, with folders of its own."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from tests.repo.tree import ROOT

CHART = ROOT / "charts" / "tailrace"
CRD_CHART = ROOT / "charts" / "tailrace-crds"
HERE = Path(__file__).parent
VALUE_SETS = ("default", "namespaced", "exposed", "bare")


class RefusedError(Exception):
    """Helm failed; the message is what it said."""


class Helm:
    """Runs helm. `home` keeps its caches away from those of the person who runs the tests, by `environment`."""

    def __init__(self, binary: Path, home: Path) -> None:
        self._binary = binary
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(("HELM_", "KUBE"))}
        self.environment |= {f"HELM_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}

    def run(self, *args: str | Path, seconds: float = 300) -> str:
        """Return what helm printed; RefusedError when it failed."""
        command = [str(self._binary), *map(str, args)]
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, env=self.environment, timeout=seconds
        )
        if result.returncode != 0:
            raise RefusedError(result.stderr or result.stdout)
        return result.stdout

    def text(self, *args: str | Path, chart: Path = CHART, namespace: str = "tailrace-system") -> str:
        """Return the chart rendered as the release `tailrace`."""
        return self.run("template", "tailrace", chart, "--namespace", namespace, *args)

    def render(self, *sets: str, values: str = "default", namespace: str = "tailrace-system") -> list[dict[str, Any]]:
        """Return the objects of a value set of this folder, changed by helm's `--set` or `--set-json` entries."""
        flags = [part for one in sets for part in ("--set-json", one)]
        return objects(self.text("--values", value_file(values), *flags, namespace=namespace))


def value_file(name: str) -> Path:
    """Return the file of a value set."""
    return HERE / "values" / f"{name}.yaml"


def objects(text: str) -> list[dict[str, Any]]:
    """Return the objects of rendered text."""
    return [document for document in yaml.safe_load_all(text) if document]


def of_kind(rendered: Iterable[dict[str, Any]], kind: str, name: str = "") -> list[dict[str, Any]]:
    """Return the objects of a kind, and of a name if one is given."""
    return [one for one in rendered if one["kind"] == kind and name in ("", one["metadata"]["name"])]


def is_hook(rendered: dict[str, Any]) -> bool:
    """Whether helm creates the object at an occasion of its own."""
    return "helm.sh/hook" in (rendered["metadata"].get("annotations") or {})
