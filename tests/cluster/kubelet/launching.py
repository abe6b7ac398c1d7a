"""From a container's spec to a command line: variables, mount paths, entry point."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from tests.cluster.kubelet.actions import Surroundings
from tests.cluster.kubelet.container import Launch, LaunchError
from tests.cluster.kubelet.environment import UnsupportedError, build_env
from tests.cluster.kubelet.expand import MountPaths, expand
from tests.cluster.kubelet.objects import Object
from tests.cluster.kubelet.references import MissingError, References

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def search_path() -> str:
    """Return the PATH of containers: the folder of this interpreter first, so that `tailrace` is the one under test."""
    return f"{Path(sys.executable).parent}:{SYSTEM_PATH}"


def base_env(pod: Object, server: str, folder: Path, kubeconfig: Path | None) -> dict[str, str]:
    """Return what every container gets: PATH, HOME, HOSTNAME, the API server's address, the pod's own kubeconfig."""
    address = urlsplit(server)
    env = {
        "PATH": search_path(),
        "HOME": str(folder),
        "HOSTNAME": pod["metadata"]["name"],
        "LANG": "C.UTF-8",
        "KUBERNETES_SERVICE_HOST": address.hostname or "",
        "KUBERNETES_SERVICE_PORT": str(address.port),
    }
    return env | ({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {})


def plan(
    pod: Object,
    container: Object,
    *,
    references: References,
    mounts: Mapping[str, str],
    addresses: Mapping[str, str],
    base: Mapping[str, str],
    folder: Path,
    log: Path,
) -> Launch:
    """Work out one start of a container; LaunchError says what its spec lacks."""
    paths = MountPaths(mounts)
    try:
        env = build_env(pod, container, references, addresses, base)
    except (UnsupportedError, MissingError) as error:
        raise LaunchError("CreateContainerConfigError", str(error)) from error
    env = dict(base) | {key: paths.rewrite(value) for key, value in env.items() if value != base.get(key)}
    command = [paths.rewrite(expand(part, env)) for part in command_line(container, env["PATH"])]
    ports = {port["name"]: port["containerPort"] for port in container.get("ports") or () if "name" in port}
    return Launch(command, Surroundings(addresses["status.podIP"], ports, env, folder, log, paths))


def command_line(container: Object, path: str) -> list[str]:
    """Return command and arguments; without `command`, the image's last name is taken for its entry point."""
    arguments = list(container.get("args") or ())
    if container.get("command"):
        return [*container["command"], *arguments]
    name = container.get("image", "").rpartition("/")[2].partition("@")[0].partition(":")[0]
    if name and shutil.which(name, path=path):
        return [name, *arguments]
    raise LaunchError("CreateContainerError", f"set `command`: images are not run here and {name!r} is not on the PATH")
