"""Every command explains itself, and says in a sentence and an exit code what is wrong."""

import json
import socket
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
import typer.main
from tests.app.programs import ROOT, documents, tailrace
from tests.kube.documents import model, pod
from typer.testing import CliRunner

import tailrace as product
from tailrace.cli.main import app
from tailrace.kube import membership

COMMANDS = sorted(typer.main.get_group(app).commands)
SHOWN = [name for name in COMMANDS if name != "kube-agent"]
HEAVY = ("kubernetes", "kopf", "aiohttp", "pydantic", "yaml", "uvloop", "prometheus_client", "tailrace.app")


def invoke(*arguments: str) -> tuple[int, str]:
    """Run a command in this process, for what ends before anything heavy is loaded."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, list(arguments))
    return result.exit_code, result.output


def test_the_help_lists_every_command_that_people_use() -> None:
    code, output = invoke("--help")
    assert code == 0
    assert [name for name in SHOWN if f" {name} " not in output] == []
    assert "kube-agent" not in output


def test_without_a_command_the_help_is_shown() -> None:
    _, output = invoke()
    assert "Usage:" in output
    assert "model-server" in output


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_that_names_its_exit_codes(name: str, flag: str) -> None:
    code, output = invoke(name, flag)
    assert code == 0
    assert "Exit code" in output


@pytest.mark.parametrize("name", COMMANDS)
def test_the_terminal_alone_breaks_the_lines_of_a_help(name: str) -> None:
    told = typer.main.get_group(app).commands[name].help or ""
    assert [part for part in told.split("\n\n") if "\n" in part] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_is_explained(name: str) -> None:
    command = typer.main.get_group(app).commands[name]
    assert [option.name for option in command.params if not getattr(option, "help", "")] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_refused(name: str) -> None:
    code, output = invoke(name, "--no-such-option")
    assert code == 2
    assert "No such option: --no-such-option" in output


def test_an_unknown_command_is_refused() -> None:
    code, output = invoke("sevre")
    assert code == 2
    assert "No such command 'sevre'" in output


def test_the_version_is_printed() -> None:
    assert invoke("--version") == (0, f"tailrace {product.__version__}\n")


def test_the_program_is_installed_as_tailrace() -> None:
    program = Path(sys.executable).with_name("tailrace")
    printed = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    assert printed == f"tailrace {product.__version__}\n"


def test_the_command_line_loads_nothing_heavy() -> None:
    script = f"import sys, tailrace.cli.main; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


def test_the_data_plane_loads_no_kubernetes_client() -> None:
    script = "import sys, tailrace.app; print([name for name in ('kubernetes', 'kopf') if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


def test_the_committed_definitions_are_those_that_the_command_prints() -> None:
    committed = ROOT / "crds" / "inference.tailrace.dev_inferenceservers.yaml"
    assert invoke("crds") == (0, committed.read_text())


# serve


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "servers.yaml"
    path.write_text(documents("127.0.0.1:1"))
    return path


def test_serve_without_a_file_is_refused() -> None:
    code, output = invoke("serve")
    assert code == 2
    assert "--file" in output


def test_serve_refuses_a_bad_document_with_the_field_and_the_fix(file: Path) -> None:
    file.write_text(documents("127.0.0.1:1", capcity=3))
    code, _, errors = tailrace(
        "serve", "-f", str(file), "--proxy-port", "0", "--routing-port", "0", "--admin-port", "0"
    )
    assert (code, errors) == (2, f"{file}:1: demo: spec.capcity: unknown field; did you mean capacity?\n")


def test_serve_refuses_a_file_that_is_not_there(tmp_path: Path) -> None:
    code, _, errors = tailrace("serve", "-f", str(tmp_path / "no.yaml"))
    assert (code, errors) == (2, f"{tmp_path}/no.yaml: cannot be read: No such file or directory\n")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TAILRACE_PROXY_PORT", "abc"),
        ("TAILRACE_ADMIN_PORT", "65536"),
        ("TAILRACE_ROUTING_PORT", "-1"),
        ("TAILRACE_SHUTDOWN_SECONDS", "soon"),
        ("TAILRACE_OPEN_READS", "perhaps"),
    ],
)
@pytest.mark.parametrize("command", ["run", "serve"])
def test_a_wrong_setting_in_the_environment_is_named(file: Path, command: str, variable: str, value: str) -> None:
    arguments = ("serve", "-f", str(file)) if command == "serve" else ("run",)
    code, _, errors = tailrace(*arguments, env={variable: value})
    assert code == 2
    assert variable in errors
    assert "Traceback" not in errors


def test_every_wrong_setting_is_named_at_once() -> None:
    _, _, errors = tailrace("run", env={"TAILRACE_PROXY_PORT": "abc", "TAILRACE_LEASE_SECONDS": "-1"})
    assert [line.partition(":")[0] for line in errors.splitlines()] == ["TAILRACE_PROXY_PORT", "TAILRACE_LEASE_SECONDS"]


@pytest.mark.parametrize("option", ["--proxy-port", "--routing-port", "--admin-port"])
def test_a_port_in_use_is_told_with_what_to_do(file: Path, option: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ports = {"--proxy-port": "0", "--routing-port": "0", "--admin-port": "0"} | {option: port}
        code, _, errors = tailrace("serve", "-f", str(file), *(part for pair in ports.items() for part in pair))
    assert code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in errors
    assert "Address already in use" in errors
    assert option in errors
    assert "TAILRACE_" + option[2:].replace("-", "_").upper() in errors
    assert "Traceback" not in errors


def test_an_address_of_another_machine_is_told_with_what_to_do(file: Path) -> None:
    code, _, errors = tailrace("serve", "-f", str(file), "--host", "192.0.2.1")
    assert code == 1
    assert "cannot listen on 192.0.2.1:8080" in errors
    assert "TAILRACE_HOST" in errors


# status


def test_status_without_a_router_there_says_so() -> None:
    code, output = invoke("status", "--admin", "127.0.0.1:1")
    assert code == 2
    assert "cannot read http://127.0.0.1:1/endpoints" in output
    assert "is a router's admin port there?" in output


def test_status_of_a_router_says_who_waits_where(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"uid": "u", "server": server, "state": "ready"} for server in ("shop/one", "team/one")]
    page = {"endpoints": rows, "waiting": {"shop/llama": 1, "team/qwen": 3}}
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: BytesIO(json.dumps(page).encode()))
    _, output = invoke("status", "--admin", "router:9090")
    assert output.splitlines()[3:] == [
        "waiting for a slot of shop/llama: 1 request",
        "waiting for a slot of team/qwen: 3 requests",
    ]
    _, output = invoke("status", "-n", "shop", "--admin", "router:9090")
    assert output.splitlines()[2:] == ["waiting for a slot of shop/llama: 1 request"]
    _, output = invoke("status", "--json", "--admin", "router:9090")
    assert json.loads(output) == rows


@pytest.mark.parametrize("asking", [["status", "-n", "shop"], ["explain", "llama"]], ids=lambda words: words[0])
@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"endpoints": [1]}', b'{"endpoints": null}'])
def test_something_that_is_no_router_is_called_so(body: bytes, asking: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [*asking, "--admin", f"127.0.0.1:{listener.getsockname()[1]}"]
        with subprocess.Popen([sys.executable, "-m", "tailrace", *command], stderr=subprocess.PIPE) as process:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            assert process.stderr is not None
            assert b"is a router's admin port there?" in process.stderr.read()
        assert process.returncode == 2


def test_explain_without_a_router_there_says_so(tmp_path: Path) -> None:
    code, output = invoke("explain", "llama", "--admin", "127.0.0.1:1")
    assert code == 2
    assert "cannot read http://127.0.0.1:1/debug/pick" in output
    code, output = invoke("explain", "llama", "-f", str(tmp_path / "nothing"))
    assert (code, "give a text file" in output) == (2, True)


def test_status_without_a_cluster_says_so(tmp_path: Path) -> None:
    code, _, errors = tailrace("status", env={"HOME": str(tmp_path)})
    assert code == 2
    assert "cannot read InferenceServers" in errors
    assert "--admin" in errors


KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "u", "user": {}}],
    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    "current-context": "x",
}


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_a_cluster_that_says_nothing_is_named_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("tailrace.kube.chores.REACH_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(json.dumps(KUBECONFIG | {"clusters": [{"name": "c", "cluster": {"server": url}}]}))
        code, said = invoke(command, "--kubeconfig", str(kubeconfig))
    assert code == 2
    assert f"the API server {url} gives no answer within 0.2 s; does `kubectl get namespaces` work?" in said
    assert "--kubeconfig" in said


@pytest.mark.parametrize(
    "content",
    [json.dumps(KUBECONFIG), "", "not: [yaml", json.dumps(KUBECONFIG | {"current-context": "no"})],
    ids=["nobody listens", "empty", "no YAML", "no such context"],
)
@pytest.mark.parametrize("given", ["option", "environment"])
def test_release_finalizers_without_a_cluster_says_so(tmp_path: Path, content: str, given: str) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(content)
    if given == "option":
        code, _, errors = tailrace("release-finalizers", "--kubeconfig", str(kubeconfig))
    else:
        code, _, errors = tailrace("release-finalizers", env={"KUBECONFIG": f"{tmp_path}/none:{kubeconfig}"})
    assert code == 2
    assert errors.startswith("cannot reach the cluster: ")
    assert "Traceback" not in errors


def test_release_finalizers_says_to_stop_the_operator_as_it_adopts_selected_pods_anew() -> None:
    freed = pod(finalizers=[])
    again = membership.entry(freed, model(selector={"matchLabels": {"app": "llm"}}))
    assert not membership.belongs(freed)
    assert again["metadata"]["finalizers"] == ["tailrace.dev/drain"]
    told = " ".join(invoke("release-finalizers", "--help")[1].split())
    assert "Stop the operator first. One that runs adopts the pods of InferenceServers with a selector anew" in told
