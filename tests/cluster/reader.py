"""Reads objects straight from the API server: tests ask often, and a kubectl costs more than what it asks for."""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import config
from tests.cluster.controlplane import ClusterError

SECONDS = 60
OK = 200
NOT_FOUND = 404

CORE = "/api/v1"
APPS = "/apis/apps/v1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
PATHS = {
    "pods": CORE,
    "events": CORE,
    "nodes": CORE,
    "deployments": APPS,
    "clusterroles": RBAC,
    "leases": "/apis/coordination.k8s.io/v1",
    "inferenceservers": "/apis/inference.tailrace.dev/v1alpha1",
    "customresourcedefinitions": "/apis/apiextensions.k8s.io/v1",
}
SHORT = {"pod": "pods", "deployment": "deployments", "isvr": "inferenceservers", "lease": "leases", "node": "nodes"}
SHORT |= {"crd": "customresourcedefinitions", "clusterrole": "clusterroles"}
CLUSTER_WIDE = {"nodes", "clusterroles", "customresourcedefinitions"}

_ARGUMENTS = argparse.ArgumentParser(exit_on_error=False)
_ARGUMENTS.add_argument("kind")
_ARGUMENTS.add_argument("name", nargs="?")
_ARGUMENTS.add_argument("-n", dest="namespace", default="default")
_ARGUMENTS.add_argument("-l", dest="selector")


class Reader:
    """A client of one API server; threads may share it."""

    def __init__(self, kubeconfig: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._api = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]

    def get(self, *args: str) -> dict[str, Any] | None:
        """Return what `kubectl get ARGS -o json` would: an object, a list, or nothing when it does not exist.

        None when the arguments are more than a kind known here, a name, -n and -l.
        """
        try:
            asked = _ARGUMENTS.parse_args(args)
        except (argparse.ArgumentError, SystemExit):
            return None
        kind = SHORT.get(asked.kind, asked.kind)
        if kind not in PATHS:
            return None
        where = "" if kind in CLUSTER_WIDE else f"/namespaces/{asked.namespace}"
        name = f"/{asked.name}" if asked.name else ""
        query = [("labelSelector", asked.selector)] if asked.selector else []
        return _with_kinds(self._call(f"{PATHS[kind]}{where}/{kind}{name}", query))

    def _call(self, path: str, query: list[tuple[str, str]]) -> dict[str, Any]:
        accept = {"Accept": "application/json"}
        asked = self._api.param_serialize(
            "GET", path, query_params=query, header_params=accept, auth_settings=["BearerToken"]
        )
        try:
            answer = self._api.call_api(*asked, _request_timeout=SECONDS)
            body = answer.read()
        except urllib3.exceptions.HTTPError as error:
            raise ClusterError(f"GET {path} failed: {error}") from error
        if answer.status == NOT_FOUND:
            return {}
        if answer.status != OK:
            raise ClusterError(f"GET {path} failed: {answer.status} {body!r}")
        found: dict[str, Any] = json.loads(body)
        return found


def _with_kinds(found: dict[str, Any]) -> dict[str, Any]:
    """Give the items of a list what the API server leaves out of them, as kubectl does."""
    about = {"apiVersion": found.get("apiVersion"), "kind": str(found.get("kind", "")).removesuffix("List")}
    if "items" in found:
        found["items"] = [about | item for item in found["items"]]
    return found
