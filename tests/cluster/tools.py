"""The Kubernetes binaries that the embedded cluster is made of, built once from the modules pinned in tests/tools.

A binary is looked for in `KUBEBUILDER_ASSETS`, then in the cache, and built only when it is in neither. The cache
folder is named by a hash of everything that decides the result (go.mod, go.sum, the compiler, the flags), so a stale
binary is never used. Builds are serialised by a lock file and appear in the cache by an atomic rename.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MODULES = Path(__file__).resolve().parent.parent / "tools"
MINIMUM_GO = (1, 26)
PLAIN_PROGRESS_SECONDS = 30.0
TERMINAL_PROGRESS_SECONDS = 1.0


class ToolError(Exception):
    """A binary is missing and cannot be built; the message says what to install or where to look."""


@dataclass(frozen=True)
class Tool:
    """A binary: its name, the folder of tests/tools that pins it, its Go package, the module that gives its version."""

    name: str
    module: str
    package: str
    version_of: str


def _kubernetes(name: str) -> Tool:
    return Tool(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", "k8s.io/kubernetes")


def _containerd(name: str) -> Tool:
    module = "github.com/containerd/containerd/v2"
    return Tool(name, "containerd", f"{module}/cmd/{name}", module)


_KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet", "kube-proxy")
_CONTAINERD = ("containerd", "containerd-shim-runc-v2", "ctr")
TOOLS = {name: _kubernetes(name) for name in _KUBERNETES} | {name: _containerd(name) for name in _CONTAINERD}
TOOLS |= {
    "coredns": Tool("coredns", "coredns", "github.com/coredns/coredns", "github.com/coredns/coredns"),
    "etcd": Tool("etcd", "etcd", "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3"),
    "helm": Tool("helm", "helm", "helm.sh/helm/v3/cmd/helm", "helm.sh/helm/v3"),
    "kwok": Tool("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok", "sigs.k8s.io/kwok"),
}
CONTROL_PLANE = ("etcd", "kubectl", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
NODE = ("kubelet", "kube-proxy", *_CONTAINERD, "coredns")


def cache_root() -> Path:
    """Return the folder that holds every built tool, below the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tailrace" / "tools"


def pinned_version(tool: Tool, modules: Path = MODULES) -> str:
    """Return the version that go.mod pins for `tool`, such as `v1.36.3`."""
    return _required(modules / tool.module / "go.mod", tool.version_of)


def _required(go_mod: Path, module: str) -> str:
    match = re.search(rf"^\s*(?:require )?{re.escape(module)} (v\S+)", go_mod.read_text(), re.MULTILINE)
    if match is None:
        raise ToolError(f"{go_mod} does not require {module}: restore the line")
    return match.group(1)


def build_flags(tool: Tool, version: str) -> tuple[str, ...]:
    """Return the flags of `go build`; some programs know their version only when it is told at link time."""
    if tool.module not in _LINK_VALUES:
        return ("-buildvcs=false",)
    values = _LINK_VALUES[tool.module](version)
    return ("-buildvcs=false", "-ldflags=" + " ".join(f"-X {name}={value}" for name, value in values.items()))


def _kubernetes_values(version: str) -> dict[str, str]:
    """Say the version that Kubernetes reports to its clients; v0.0.0 otherwise."""
    major, minor, _ = version.removeprefix("v").split(".", 2)
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return {f"k8s.io/component-base/version.{key}": value for key, value in values.items()}


def _helm_values(version: str) -> dict[str, str]:
    """Say helm's version, and the Kubernetes that charts are rendered for without a cluster; 1.20 otherwise."""
    _, minor, _ = _required(MODULES / "helm" / "go.mod", "k8s.io/client-go").removeprefix("v").split(".", 2)
    kubernetes = {"k8sVersionMajor": "1", "k8sVersionMinor": minor}
    places = ("helm.sh/helm/v3/pkg/chartutil", "helm.sh/helm/v3/pkg/lint/rules")
    rendered_for = {f"{place}.{key}": value for place in places for key, value in kubernetes.items()}
    return {"helm.sh/helm/v3/internal/version.version": version} | rendered_for


_LINK_VALUES: dict[str, Callable[[str], dict[str, str]]] = {"kubernetes": _kubernetes_values, "helm": _helm_values}


def cache_key(module: Path, go_version: str, flags: Iterable[str]) -> str:
    """Hash all that decides what a build gives: the pins, the compiler and the flags."""
    parts = [(module / "go.mod").read_bytes(), (module / "go.sum").read_bytes(), go_version.encode()]
    digest = hashlib.sha256(b"\0".join([*parts, *(flag.encode() for flag in flags)]))
    return digest.hexdigest()[:20]


def go_version() -> str:
    """Return the Go compiler's version such as `go1.26.8`; ToolError when it is missing or too old."""
    wanted = ".".join(map(str, MINIMUM_GO))
    remedy = f"install Go {wanted} or newer (https://go.dev/dl) or set KUBEBUILDER_ASSETS to a folder with the binaries"
    if shutil.which("go") is None:
        raise ToolError(f"the embedded cluster is built from source and `go` is not on the PATH: {remedy}")
    found = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout.strip()
    if parse_go_version(found) < MINIMUM_GO:
        raise ToolError(f"`go` is {found}, which is too old for the pinned Kubernetes: {remedy}")
    return found


def parse_go_version(text: str) -> tuple[int, int]:
    """Read major and minor out of `go1.26.8` or `go1.27rc1`; (0, 0) when it is something else."""
    match = re.match(r"go(\d+)\.(\d+)", text)
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)


def ensure(names: Iterable[str] = CONTROL_PLANE) -> dict[str, Path]:
    """Return the path of every named tool, building what is in neither KUBEBUILDER_ASSETS nor the cache."""
    found = {name: path for name in names if (path := _from_assets(name)) is not None}
    wanted = [TOOLS[name] for name in names if name not in found]
    if not wanted:
        return found
    compiler = go_version()
    targets = {tool: _target(tool, compiler) for tool in wanted}
    if any(not path.exists() for path in targets.values()):
        with locked(cache_root() / "lock"):
            _build_missing({tool: path for tool, path in targets.items() if not path.exists()})
    return found | {tool.name: path for tool, path in targets.items()}


def _from_assets(name: str) -> Path | None:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    path = Path(assets or "/nonexistent") / name
    return path if os.access(path, os.X_OK) else None


def _target(tool: Tool, compiler: str) -> Path:
    key = cache_key(MODULES / tool.module, compiler, build_flags(tool, pinned_version(tool)))
    return cache_root() / key / tool.name


@contextmanager
def locked(path: Path, wait: str = "another process is building the tools") -> Iterator[None]:
    """Hold the lock file at `path`, one process at a time; the one that has to wait says `wait`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"{wait}: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build_missing(targets: dict[Tool, Path]) -> None:
    for number, (tool, target) in enumerate(targets.items(), start=1):
        _build(tool, target, f"{tool.name} {pinned_version(tool)} ({number} of {len(targets)})")


def _build(tool: Tool, target: Path, title: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{tool.name}.{os.getpid()}")
    command = ["go", "build", *build_flags(tool, pinned_version(tool)), "-o", str(unfinished), tool.package]
    environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-mod=readonly"}
    log = target.parent / f"{tool.name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=MODULES / tool.module, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            _watch(process, title)
        finally:
            _end(process)
    if process.returncode != 0:
        unfinished.unlink(missing_ok=True)
        raise ToolError(f"building {title} failed; the compiler said:\n{log.read_text()[-2000:]}")
    log.unlink()
    unfinished.rename(target)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()


def _watch(process: subprocess.Popen[bytes], title: str, clock: Callable[[], float] = time.monotonic) -> None:
    terminal = sys.stderr.isatty()
    pause = TERMINAL_PROGRESS_SECONDS if terminal else PLAIN_PROGRESS_SECONDS
    start = clock()
    _say(f"building {title}")
    while True:
        try:
            process.wait(pause)
        except subprocess.TimeoutExpired:
            _say(f"building {title}: {clock() - start:.0f} s so far", transient=terminal)
        else:
            _say(f"built {title} in {clock() - start:.0f} s")
            return


def _say(text: str, *, transient: bool = False) -> None:
    lead, end = ("\r", "") if transient else ("\r" if sys.stderr.isatty() else "", "\n")
    sys.stderr.write(f"{lead}tools: {text}{end}")
    sys.stderr.flush()
