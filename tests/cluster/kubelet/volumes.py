"""A pod's volumes as folders of the host, service-account tokens included."""

import asyncio
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from tests.cluster.kubelet.api import Api, ApiError
from tests.cluster.kubelet.environment import UnsupportedError, field_value
from tests.cluster.kubelet.objects import Object, uid
from tests.cluster.kubelet.references import References

DEFAULT_TOKEN_SECONDS = 3600
REFRESH_AT = 0.8
RETRY_SECONDS = 5.0
log = logging.getLogger("kubelet.volumes")


@dataclass(frozen=True)
class TokenRequest:
    """One projected service-account token: where it is written, for whom and for how long."""

    path: Path
    audiences: tuple[str, ...]
    seconds: int

    def body(self, pod: Object) -> Object:
        """Return the TokenRequest for `pod`: the token is worth nothing once the pod is gone."""
        bound = {"kind": "Pod", "apiVersion": "v1", "name": pod["metadata"]["name"], "uid": uid(pod)}
        spec = {"audiences": list(self.audiences), "expirationSeconds": self.seconds, "boundObjectRef": bound}
        return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}


class Volumes:
    """The volumes of one pod below `folder`; `host_paths` says where each one is."""

    def __init__(self, folder: Path, pod: Object) -> None:
        self._folder = folder
        self._pod = pod
        self._tokens: list[TokenRequest] = []
        self.host_paths: dict[str, Path] = {}

    async def create(self, api: Api, references: References, addresses: Mapping[str, str]) -> None:
        """Write every volume; UnsupportedError names one that the stand-in does not play."""
        self._tokens.clear()
        for volume in self._pod["spec"].get("volumes") or ():
            self.host_paths[volume["name"]] = self._create(volume, references, addresses)
        for token in self._tokens:
            await self._write_token(api, token)

    async def keep_tokens_fresh(self, api: Api) -> None:
        """Renew each token after 80 % of its life, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for token in self._tokens:
                group.create_task(self._renew(api, token))

    def refresh_downward(self, pod: Object, references: References, addresses: Mapping[str, str]) -> None:
        """Write downward API files again after the pod's labels or annotations changed."""
        self._pod = pod
        for volume in pod["spec"].get("volumes") or ():
            for source in _sources(volume):
                if "downwardAPI" in source and volume["name"] in self.host_paths:
                    self._fill(self.host_paths[volume["name"]], source, references, addresses)

    def remove(self) -> None:
        """Delete the volumes' folders."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def mounts(self, container: Object) -> dict[str, str]:
        """Return mount path -> folder of the host for one container."""
        return {mount["mountPath"]: str(self._mounted(mount)) for mount in container.get("volumeMounts") or ()}

    def _mounted(self, mount: Mapping[str, Any]) -> Path:
        if mount["name"] not in self.host_paths:
            raise UnsupportedError(f"volumeMount {mount['name']!r} names no volume of the pod")
        return self.host_paths[str(mount["name"])].joinpath(str(mount.get("subPath", "")))

    def _create(self, volume: Object, references: References, addresses: Mapping[str, str]) -> Path:
        if "hostPath" in volume:
            return Path(str(volume["hostPath"]["path"]))
        folder = self._folder / str(volume["name"])
        folder.mkdir(parents=True, exist_ok=True)
        for source in _sources(volume):
            self._fill(folder, source, references, addresses)
        return folder

    def _fill(
        self, folder: Path, source: Mapping[str, Any], references: References, addresses: Mapping[str, str]
    ) -> None:
        for kind in ("configMap", "secret"):
            if kind in source:
                _write_data(folder, kind, source[kind], references)
        for item in source.get("downwardAPI", {}).get("items") or ():
            _write(folder / item["path"], field_value(self._pod, item["fieldRef"]["fieldPath"], addresses).encode())
        if "serviceAccountToken" in source:
            self._tokens.append(_token_request(folder, source["serviceAccountToken"]))

    async def _write_token(self, api: Api, token: TokenRequest) -> None:
        account = self._pod["spec"].get("serviceAccountName") or "default"
        namespace = self._pod["metadata"]["namespace"]
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        answer = await api.post(path, token.body(self._pod))
        _write(token.path, answer["status"]["token"].encode())

    async def _renew(self, api: Api, token: TokenRequest) -> None:
        due = time.monotonic() + REFRESH_AT * token.seconds
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            try:
                await self._write_token(api, token)
                due = time.monotonic() + REFRESH_AT * token.seconds
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("renewing %s failed: %s", token.path, error)
                due = time.monotonic() + RETRY_SECONDS


KNOWN = frozenset({"emptyDir", "configMap", "secret", "downwardAPI", "projected"})


def _sources(volume: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if not KNOWN & volume.keys() and "hostPath" not in volume:
        raise UnsupportedError(f"volume {volume['name']!r}: the stand-in kubelet knows {', '.join(sorted(KNOWN))}")
    return list((volume.get("projected") or {}).get("sources") or [volume])


def _token_request(folder: Path, source: Mapping[str, Any]) -> TokenRequest:
    audiences = (source["audience"],) if source.get("audience") else ()
    return TokenRequest(folder / source["path"], audiences, int(source.get("expirationSeconds", DEFAULT_TOKEN_SECONDS)))


def _write_data(folder: Path, kind: str, source: Mapping[str, Any], references: References) -> None:
    name = source.get("name") or source["secretName"]
    data = references.data(kind, name, optional=source.get("optional", False))
    items = {item["key"]: item["path"] for item in source.get("items") or ()} or {key: key for key in data}
    for key, path in items.items():
        if key in data:
            _write(folder / path, data[key])


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"..{path.name}")
    unfinished.touch(mode=0o600)
    unfinished.write_bytes(content)
    unfinished.rename(path)
