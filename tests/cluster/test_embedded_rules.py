"""The pure rules of the stand-in kubelet and of the tool cache."""

import asyncio
from pathlib import Path

import pytest
from tests.cluster import tools
from tests.cluster.kubelet.actions import port_number
from tests.cluster.kubelet.addresses import Addresses, OutOfAddressesError, nth_address
from tests.cluster.kubelet.backoff import Backoff
from tests.cluster.kubelet.child import exit_code
from tests.cluster.kubelet.container import LaunchError
from tests.cluster.kubelet.environment import UnsupportedError, build_env, field_value
from tests.cluster.kubelet.expand import MountPaths, expand
from tests.cluster.kubelet.launching import command_line, search_path
from tests.cluster.kubelet.nodes import read_nodes
from tests.cluster.kubelet.objects import Object
from tests.cluster.kubelet.probes import ProbeSettings, Streak, probe_until
from tests.cluster.kubelet.records import Record, Running, Terminated, Waiting, record_of
from tests.cluster.kubelet.references import MissingError, References
from tests.cluster.kubelet.status import Network, View, as_patch, build_status, containers_ready, phase
from tests.cluster.kubelet.turns import Turns, prerequisites

NOW = 1_800_000_000.0
NETWORK = Network("127.16.0.2", "127.16.0.1")
POD: Object = {
    "metadata": {"name": "one", "namespace": "default", "uid": "u", "labels": {"b": "2", "a": "1"}},
    "spec": {"nodeName": "n", "serviceAccountName": "default", "containers": []},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)/x", "1/x"),
        ("$$(A)", "$(A)"),
        ("$(MISSING)", "$(MISSING)"),
        ("$A ${A}", "$A ${A}"),
        ("$(A)$(B)", "12"),
        ("a$", "a$"),
    ],
)
def test_references_to_variables_are_expanded_as_the_api_describes(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data", "/host/d"),
        ("--path=/data/file", "--path=/host/d/file"),
        ("/data/models/x", "/host/m/x"),
        ("/database", "/database"),
        ("/other/data", "/other/data"),
        ("cat '/data' /data/", "cat '/host/d' /host/d/"),
    ],
)
def test_only_whole_mount_paths_are_rewritten_and_the_longest_wins(text: str, expected: str) -> None:
    assert MountPaths({"/data": "/host/d", "/data/models/": "/host/m"}).rewrite(text) == expected


def test_without_mounts_texts_stay_as_they_are() -> None:
    assert MountPaths({}).rewrite("/data") == "/data"


def test_later_variables_refer_to_earlier_ones_and_to_config_maps() -> None:
    references = References({("configMap", "m"): {"k": b"v"}, ("secret", "s"): None})
    container: Object = {
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}],
        "env": [
            {"name": "X", "value": "$(P_k)$(BASE)"},
            {"name": "GONE", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}},
        ],
    }
    assert build_env(POD, container, references, {}, {"BASE": "!"}) == {"BASE": "!", "P_k": "v", "X": "v!"}


def test_a_missing_secret_holds_the_container_back() -> None:
    container: Object = {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}
    with pytest.raises(MissingError, match="secret 's' does not exist"):
        build_env(POD, container, References({}), {}, {})


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.uid", "u"),
        ("spec.nodeName", "n"),
        ("status.podIP", "127.16.0.2"),
        ("status.podIPs", "127.16.0.2"),
        ("metadata.labels['a']", "1"),
        ("metadata.annotations['a']", ""),
        ("metadata.labels", 'a="1"\nb="2"'),
    ],
)
def test_fields_of_the_pod_become_values(path: str, expected: str) -> None:
    assert field_value(POD, path, {"status.podIP": "127.16.0.2"}) == expected


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(UnsupportedError, match=r"spec\.nonsense"):
        field_value(POD, "spec.nonsense", {})


def test_without_a_command_the_name_of_the_image_is_the_entry_point() -> None:
    assert command_line({"image": "registry:5000/tools/sh:1.0@sha256:0", "args": ["-c"]}, search_path()) == ["sh", "-c"]


def test_an_image_that_is_no_program_is_refused_with_advice() -> None:
    with pytest.raises(LaunchError, match="set `command`"):
        command_line({"image": "vllm/no-such-program:v1"}, search_path())


def test_a_verdict_needs_its_threshold_of_equal_answers_in_a_row() -> None:
    streak = Streak(ProbeSettings.of({"failureThreshold": 2, "successThreshold": 2}), verdict=True)
    answers = [False, True, False, False, False, True, True]
    assert [streak.observe(answer) for answer in answers] == [None, None, None, False, None, None, True]


async def test_probing_ends_when_the_verdict_is_taken() -> None:
    answers = iter([True, False, False])
    verdicts: list[bool] = []

    async def check(_limit: float) -> bool:
        return next(answers)

    def decide(verdict: bool) -> bool:
        verdicts.append(verdict)
        return not verdict

    await probe_until(ProbeSettings(0, 0, 1, 1, 2), check, initial=None, decide=decide)
    assert verdicts == [True, False]


def test_the_first_restart_is_at_once_and_the_next_ones_wait_longer() -> None:
    backoff = Backoff(1.0, 5.0)
    assert [backoff.next_delay(0.1) for _ in range(6)] == [0.0, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert backoff.next_delay(50.0) == 0.0


def test_sidecars_wait_for_all_regular_containers_and_for_later_sidecars() -> None:
    assert prerequisites(["m", "n"], ["a", "b"]) == {"b": ("m", "n"), "a": ("m", "n", "b")}


async def test_a_turn_comes_when_everything_before_it_that_ran_has_ended() -> None:
    turns = Turns(prerequisites(["m", "crashed"], ["a", "b"]), ["m", "a", "b"])
    waiting = asyncio.create_task(turns.wait("a"))
    for name in ("m", "b"):
        await asyncio.sleep(0)
        assert not waiting.done()
        turns.ended(name)
    await waiting


def test_an_end_by_a_signal_is_reported_as_container_runtimes_do() -> None:
    assert [exit_code(code) for code in (0, 3, -9, -15)] == [0, 3, 137, 143]


def test_ports_are_numbers_or_names() -> None:
    assert [port_number(port, {"web": 80}) for port in (1, "2", "web")] == [1, 2, 80]
    with pytest.raises(ValueError, match="'other'"):
        port_number("other", {})


def record(name: str = "main", state: Running | Terminated | Waiting | None = None, **fields: object) -> Record:
    made = Record(name, "image", initial=False, sidecar=False, state=state or Running(NOW))
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def ended(code: int) -> Terminated:
    return Terminated(code, NOW, NOW, "process://1")


def view(regular: list[Record], initial: list[Record] | None = None, *, over: bool = False) -> View:
    return View(initial or [], regular, NETWORK, NOW, ended=over)


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (view([record(state=Waiting("ContainerCreating"))]), "Pending"),
        (view([record()]), "Running"),
        (view([record(state=Waiting("CrashLoopBackOff"), last=ended(1))]), "Running"),
        (view([record(state=ended(1))]), "Running"),
        (view([record(state=ended(0))], over=True), "Succeeded"),
        (view([record(state=ended(0)), record(state=ended(137))], over=True), "Failed"),
        (view([record(state=Waiting("PodInitializing"))], over=True), "Failed"),
        (view([record(state=Waiting("PodInitializing"))], [record(state=ended(0), initial=True)]), "Pending"),
    ],
)
def test_the_phase_follows_from_the_containers(pod: View, expected: str) -> None:
    assert phase(pod) == expected


def test_an_unready_sidecar_makes_the_pod_unready() -> None:
    sidecar = record("side", initial=True, sidecar=True, started=True, ready=False)
    pod = view([record(started=True, ready=True)], [sidecar])
    assert not containers_ready(pod)
    sidecar.ready = True
    assert containers_ready(pod)


def test_a_closed_readiness_gate_keeps_a_pod_with_ready_containers_unready() -> None:
    pod = View([], [record(ready=True)], NETWORK, NOW, gates={"example.com/open": False})
    conditions = {one["type"]: one for one in build_status(pod, {}, NOW)["conditions"]}
    assert conditions["ContainersReady"]["status"] == "True"
    assert conditions["Ready"]["status"] == "False"
    assert conditions["Ready"]["reason"] == "ReadinessGatesNotReady"


def test_a_condition_that_stays_keeps_its_time() -> None:
    pod = view([record(ready=True)])
    before = build_status(pod, {}, NOW)
    assert build_status(pod, before, NOW + 60) == before


def test_the_patch_names_the_pod_and_replaces_its_addresses() -> None:
    patch = as_patch("u", build_status(view([record()]), {}, NOW))
    assert patch["metadata"]["uid"] == "u"
    assert patch["status"]["podIPs"] == [{"ip": NETWORK.pod}, {"$patch": "replace"}]


def test_restarts_are_counted_on_after_the_kubelet_was_away() -> None:
    container: Object = {"name": "main", "image": "i"}
    assert record_of(container, {"containerID": "process://1", "restartCount": 2}, initial=False).restarts == 3
    assert record_of(container, {"restartCount": 0}, initial=False).restarts == 0


def test_addresses_are_handed_out_once_also_after_a_restart(tmp_path: Path) -> None:
    first = Addresses(tmp_path / "state")
    given = [first.take(16), first.take(16), first.take(17)]
    first.release(given[0])
    given += [first.take(16), Addresses(tmp_path / "state").take(16)]
    assert given == ["127.16.0.2", "127.16.0.3", "127.17.0.2", "127.16.0.4", "127.16.0.5"]


def test_addresses_come_back_at_once_when_reuse_is_asked_for(tmp_path: Path) -> None:
    addresses = Addresses(tmp_path / "state", reuse=True)
    one = addresses.take(16)
    addresses.release(one)
    assert addresses.take(16) == one


def test_the_last_address_of_a_network_is_followed_by_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text('{"16": 64771}')
    with pytest.raises(OutOfAddressesError, match=r"127\.16"):
        Addresses(tmp_path / "state").take(16)
    assert nth_address(16, 64770) == "127.16.254.254"


def test_a_nodes_file_without_nodes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nodes.yaml"
    path.write_text("nodes: []")
    with pytest.raises(ValueError, match="at least one node"):
        read_nodes(path)


def test_a_node_without_a_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nodes.yaml"
    path.write_text("nodes: [{labels: {a: b}}]")
    with pytest.raises(ValueError, match="`name`"):
        read_nodes(path)


@pytest.mark.parametrize(
    ("text", "expected"), [("go1.26.8", (1, 26)), ("go1.27rc1", (1, 27)), ("devel", (0, 0)), ("", (0, 0))]
)
def test_the_version_of_go_is_read(text: str, expected: tuple[int, int]) -> None:
    assert tools.parse_go_version(text) == expected


def test_a_missing_go_is_answered_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    with pytest.raises(tools.ToolError, match=r"install Go 1\.26 or newer"):
        tools.ensure()


def test_binaries_of_the_assets_folder_are_used_without_a_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in tools.CONTROL_PLANE:
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tools.ensure() == {name: tmp_path / name for name in tools.CONTROL_PLANE}


def test_the_cache_key_changes_with_everything_that_decides_a_build(tmp_path: Path) -> None:
    for name in ("go.mod", "go.sum"):
        (tmp_path / name).write_text("one")
    keys = {tools.cache_key(tmp_path, "go1.26.0", ["-a"]), tools.cache_key(tmp_path, "go1.26.1", ["-a"])}
    keys.add(tools.cache_key(tmp_path, "go1.26.0", ["-b"]))
    (tmp_path / "go.sum").write_text("two")
    keys.add(tools.cache_key(tmp_path, "go1.26.0", ["-a"]))
    assert len(keys) == 4


def test_kubernetes_is_built_with_the_version_that_is_pinned() -> None:
    tool = tools.TOOLS["kube-apiserver"]
    version = tools.pinned_version(tool)
    assert f"gitVersion={version}" in " ".join(tools.build_flags(tool, version))
