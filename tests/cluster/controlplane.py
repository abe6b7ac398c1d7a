"""A real Kubernetes control plane on this machine: etcd, kube-apiserver, kube-controller-manager, kube-scheduler.

Settings are chosen for tests: no fsync, quick reactions to lost nodes, RBAC on. Nothing listens beyond loopback, but
for an API server that a real node must reach: `Place` says where.
"""

import ipaddress
import secrets
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.certs import Certificates, write_certificates
from tests.cluster.kubeconfigs import write_kubeconfig
from tests.cluster.ports import free_ports
from tests.cluster.processes import ManagedProcess

ISSUER = "https://kubernetes.default.svc.cluster.local"
SERVICE_RANGE = "10.0.0.0/24"
READY_SECONDS = 60.0
START_ATTEMPTS = 3
ADMIN = "tailrace-test-admin"
KUBELET = "tailrace-test-kubelet"


class ClusterError(Exception):
    """A part of the cluster did not come up; the message carries the end of its log."""


class PortTakenError(ClusterError):
    """Somebody else took a port between its choice and its use."""


@dataclass(frozen=True)
class Endpoints:
    """The ports of one control plane."""

    etcd: int
    etcd_peer: int
    api: int


@dataclass(frozen=True)
class Place:
    """Where the API server listens, and where Services are. With `published` it is the Service `kubernetes` too."""

    address: str = "127.0.0.1"
    services: str = SERVICE_RANGE
    published: bool = False


class ControlPlane:
    """Starts and stops the four processes; files live in `workdir`, logs in `workdir/logs`."""

    def __init__(self, workdir: Path, binaries: Mapping[str, Path], place: Place = Place()) -> None:
        self.workdir = workdir
        self._place = place
        self._binaries = binaries
        self._processes: list[ManagedProcess] = []
        self._certificates = write_certificates(workdir / "pki", _names(place))
        self._tokens = {name: secrets.token_urlsafe(32) for name in (ADMIN, KUBELET)}
        self._token_file = _write_token_file(workdir / "pki" / "tokens.csv", self._tokens)
        self.endpoints = Endpoints(0, 0, 0)

    @property
    def server(self) -> str:
        """The API server's base URL."""
        return f"https://{self._place.address}:{self.endpoints.api}"

    @property
    def ca_file(self) -> Path:
        """The certificate authority that signed the API server's certificate."""
        return self._certificates.ca

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.workdir / "admin.kubeconfig"

    @property
    def kubelet_kubeconfig(self) -> Path:
        """The kubeconfig of the stand-in kubelet, a name of its own in audit and managed fields."""
        return self.workdir / "kubelet.kubeconfig"

    def process(self, name: str) -> ManagedProcess:
        """Return a part by its binary's name, for tests that pause, kill and start it."""
        return next(process for process in self._processes if process.name == name)

    def start(self) -> None:
        """Start everything and return when the API server is ready and the default service account exists."""
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                self._start()
            except PortTakenError:
                self.stop()
                if attempt == START_ATTEMPTS:
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                return

    def stop(self) -> None:
        """End every part, last started first."""
        while self._processes:
            self._processes.pop().stop()

    def _start(self) -> None:
        self.endpoints = Endpoints(*free_ports(3))
        self._write_kubeconfigs()
        self._run("etcd", etcd_flags(self.endpoints, self.workdir / "etcd"))
        self._run("kube-apiserver", self._api_server_flags())
        self._wait_for_api("/readyz")
        kubeconfig = self.kubeconfig
        self._run("kube-controller-manager", controller_manager_flags(kubeconfig, self._certificates))
        self._run("kube-scheduler", scheduler_flags(kubeconfig))
        self._wait_for_api("/api/v1/namespaces/default/serviceaccounts/default")
        self._wait_for_api("/api/v1/namespaces/default/configmaps/kube-root-ca.crt")

    def _api_server_flags(self) -> list[str]:
        return api_server_flags(self.endpoints, self._certificates, self._token_file, self._place)

    def _write_kubeconfigs(self) -> None:
        for path, user in ((self.kubeconfig, ADMIN), (self.kubelet_kubeconfig, KUBELET)):
            write_kubeconfig(path, server=self.server, ca_file=self.ca_file, token=self._tokens[user], user=user)

    def _run(self, name: str, flags: list[str]) -> None:
        log = self.workdir / "logs" / f"{name}.log"
        self._processes.append(ManagedProcess(name, [str(self._binaries[name]), *flags], log))

    def _wait_for_api(self, path: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not self._answers(path):
            self._refuse_dead_parts()
            if time.monotonic() > deadline:
                raise ClusterError(f"{path} did not answer within {READY_SECONDS:.0f} s\n{self._processes[-1].tail()}")
            time.sleep(0.05)

    def _answers(self, path: str) -> bool:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        headers = {"Authorization": f"Bearer {self._tokens[ADMIN]}"}
        request = urllib.request.Request(self.server + path, headers=headers)
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(request, context=context, timeout=5):
            return True
        return False

    def _refuse_dead_parts(self) -> None:
        for process in self._processes:
            if not process.alive():
                tail = process.tail()
                kind = PortTakenError if "address already in use" in tail else ClusterError
                raise kind(f"{process.name} ended while the cluster was starting; the end of {process.log}:\n{tail}")


def _write_token_file(path: Path, tokens: Mapping[str, str]) -> Path:
    path.touch(mode=0o600)
    path.write_text("".join(f'{token},{user},{user},"system:masters"\n' for user, token in tokens.items()))
    return path


def etcd_flags(endpoints: Endpoints, data: Path) -> list[str]:
    """Return etcd's flags: one member, no fsync (the data is worth nothing after the run)."""
    client, peer = (f"http://127.0.0.1:{port}" for port in (endpoints.etcd, endpoints.etcd_peer))
    return [
        f"--data-dir={data}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--log-level=warn",
    ]


def _names(place: Place) -> list[str]:
    """Return the addresses that the API server is called by: its own, and the first of its Services."""
    return [place.address, str(ipaddress.ip_network(place.services)[1])]


def api_server_flags(endpoints: Endpoints, certificates: Certificates, tokens: Path, place: Place) -> list[str]:
    """Return kube-apiserver's flags: RBAC, static tokens for the two administrators, service-account tokens."""
    return [
        f"--etcd-servers=http://127.0.0.1:{endpoints.etcd}",
        f"--bind-address={place.address}",
        f"--advertise-address={place.address}",
        f"--secure-port={endpoints.api}",
        f"--tls-cert-file={certificates.server}",
        f"--tls-private-key-file={certificates.server_key}",
        f"--client-ca-file={certificates.ca}",
        f"--token-auth-file={tokens}",
        "--authorization-mode=RBAC",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={certificates.tokens_key}",
        f"--service-account-signing-key-file={certificates.tokens_key}",
        f"--service-cluster-ip-range={place.services}",
        f"--endpoint-reconciler-type={'lease' if place.published else 'none'}",
        "--allow-privileged=true",
        "--profiling=false",
    ]


def controller_manager_flags(kubeconfig: Path, certificates: Certificates) -> list[str]:
    """Return kube-controller-manager's flags: all default controllers, and a lost node is noticed soon.

    Yet not sooner than the controllers' caches come back after an outage of the API server.
    """
    return [
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--secure-port=0",
        f"--service-account-private-key-file={certificates.tokens_key}",
        f"--root-ca-file={certificates.ca}",
        "--node-monitor-period=1s",
        "--node-monitor-grace-period=20s",
        "--node-startup-grace-period=20s",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--profiling=false",
    ]


def scheduler_flags(kubeconfig: Path) -> list[str]:
    """Return kube-scheduler's flags."""
    return [
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--secure-port=0",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--profiling=false",
    ]
