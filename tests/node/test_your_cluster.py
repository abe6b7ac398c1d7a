"""A stranger's way, from the README alone to a routed answer; the last test, for it installs Tailrace anew."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from tests.charts.helm import Helm
from tests.cluster import tools
from tests.node.documents import IMAGE
from tests.node.release import AnyNode
from tests.repo.tree import ROOT

BLOCK = re.compile(r"^## On your cluster\n+```sh\n(.*?)```", re.MULTILINE | re.DOTALL)
MAX_LINES = 9


def told() -> list[str]:
    """Return the lines of the README's block."""
    found = BLOCK.search((ROOT / "README.md").read_text())
    assert found, "the README has no block of shell under `On your cluster`"
    return found.group(1).splitlines()


def shell(node: AnyNode, helm: Helm, folder: Path) -> str:
    """Run the block with an image that the nodes have already; return what it printed."""
    here = [f"IMAGE={IMAGE}" if line.startswith("IMAGE=") else line for line in told()]
    script = "\n".join(line for line in here if not line.startswith("make image"))
    (folder / "kubectl").symlink_to(node.kubectl_path)
    (folder / "helm").symlink_to(tools.ensure(["helm"])["helm"])
    environment = helm.environment | {"KUBECONFIG": str(node.kubeconfig), "PATH": f"{folder}:{os.environ['PATH']}"}
    command = ["bash", "-euo", "pipefail", "-c", script]
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_readme_is_enough_to_get_a_routed_answer(node: AnyNode, helm: Helm, tmp_path: Path) -> None:
    assert len(told()) <= MAX_LINES
    try:
        answer = json.loads(shell(node, helm, tmp_path).splitlines()[-1])
    finally:
        node.kubectl("delete", "isvr", "demo", check=False)
        node.kubectl("wait", "--for=delete", "pod", "-l", "tailrace.dev/server=demo", "--timeout=60s", check=False)
    assert (answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"]) == ("t0 t1 t2 t3 t4 ", 5)
