"""What the chart renders for four sets of values, committed so that a change of a template shows what it changes.

`python -m tests.charts.goldens` writes them.
"""

import tempfile
from pathlib import Path

from tests.charts.helm import HERE, VALUE_SETS, Helm, value_file
from tests.cluster import tools


def golden(name: str) -> Path:
    """Return the file with what the value set renders to."""
    return HERE / "goldens" / f"{name}.yaml"


def rendered(helm: Helm, name: str) -> str:
    """Return what the value set renders to now."""
    return helm.text("--values", value_file(name))


def write() -> None:
    """Write all of them."""
    with tempfile.TemporaryDirectory() as home:
        helm = Helm(tools.ensure(["helm"])["helm"], Path(home))
        for name in VALUE_SETS:
            golden(name).write_text(rendered(helm, name))


if __name__ == "__main__":
    write()
