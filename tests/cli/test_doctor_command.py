"""`tailrace doctor` as a command: what it prints and how it ends."""

import json
from pathlib import Path

import pytest
from tests.cli.installations import sound, told_server
from typer.testing import CliRunner, Result

from tailrace.cli import doctor as command
from tailrace.cli.main import app
from tailrace.kube.doctor.seen import Seen


def run(monkeypatch: pytest.MonkeyPatch, seen: Seen, *args: str) -> Result:
    """Run the command on an installation without a cluster."""
    monkeypatch.setattr(command, "_see", lambda *_: seen)
    return CliRunner().invoke(app, ["doctor", *args])


def test_all_well_is_0(monkeypatch: pytest.MonkeyPatch) -> None:
    said = run(monkeypatch, sound())
    assert said.exit_code == 0
    assert said.stdout.splitlines()[-1].startswith("0 errors, 0 warnings, ")


def test_something_to_mend_is_1_with_the_command_and_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    said = run(monkeypatch, sound(deployment=None))
    assert said.exit_code == 1
    lines = [line.strip() for line in said.stdout.splitlines()]
    start = next(place for place, line in enumerate(lines) if line.startswith("ERROR"))
    assert lines[start].startswith("ERROR   deployment: Deployment tailrace-system/tailrace does not exist")
    assert lines[start + 2 : start + 4] == [
        "kubectl apply -k manifests/base",
        "see docs/troubleshooting.md#missing-deployment",
    ]


def test_json_holds_all_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    said = run(monkeypatch, sound(lease=None), "--json")
    document = json.loads(said.stdout)
    assert (said.exit_code, document["well"]) == (1, False)
    (lease,) = (finding for finding in document["findings"] if finding["check"] == "lease")
    assert sorted(lease) == ["about", "advice", "check", "commands", "message", "page", "severity"]
    assert lease["severity"] == "error"


def test_a_router_that_can_not_be_asked_is_2_and_the_rest_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said = run(monkeypatch, sound(), "--admin", "127.0.0.1:1")
    assert said.exit_code == 2
    assert "Router http://127.0.0.1:1 can't be asked" in said.stdout
    assert "has all" in said.stdout


def test_a_cluster_that_can_not_be_reached_is_2(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "users": [{"name": "u", "user": {}}],
                "current-context": "x",
            }
        )
    )
    said = CliRunner().invoke(app, ["doctor", "--kubeconfig", str(kubeconfig)])
    assert said.exit_code == 2
    assert "cannot reach the cluster" in said.stderr


def test_what_the_cluster_says_can_not_act_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    server = told_server()
    server["status"]["conditions"][0] |= {"status": "False", "reason": "Odd", "message": "red \x1b[31m and \x07"}
    said = run(monkeypatch, sound(servers=[server]))
    assert "red  [31m and" in said.stdout
    assert "\x1b" not in said.stdout
