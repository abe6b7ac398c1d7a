"""Reads everything that the checks want to know, each kind of objects once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from http import HTTPStatus
from typing import Final, TypeVar

from tailrace.api import names
from tailrace.kube import objects
from tailrace.kube.client import Api, ApiError, Document, Resource
from tailrace.kube.doctor.rights import Question, questions, review
from tailrace.kube.doctor.seen import KEY, Look, Part, Seen, account_of, lease_name, setting, watched, webhook_secret

CRDS: Final = Resource("apiextensions.k8s.io", "v1", Part.CRD.value, namespaced=False)
ACCOUNTS: Final = Resource("", "v1", Part.ACCOUNTS.value)
SERVICES: Final = Resource("", "v1", Part.SERVICES.value)
SLICES: Final = Resource("discovery.k8s.io", "v1", Part.SLICES.value)
WEBHOOKS: Final = Resource("admissionregistration.k8s.io", "v1", Part.WEBHOOKS.value, namespaced=False)
SECRETS: Final = Resource("", "v1", Part.SECRETS.value)
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
"""Where `kubectl apply` keeps the whole object, the data of a Secret included."""
AT_ONCE: Final = 8

T = TypeVar("T")


async def read(api: Api, look: Look, now: float) -> Seen:
    """Read the cluster; ``now`` is wall time. ApiError when it cannot be asked; what is forbidden is noted."""
    version = await api.version()
    reader = _Reader(api)
    home = look.namespace
    deployment = await reader.one(Part.DEPLOYMENT, objects.DEPLOYMENTS, home, look.name)
    served = watched(deployment)
    where = look.only or served
    secret = webhook_secret(deployment)
    account, lease = account_of(look, deployment), lease_name(look, deployment)
    return Seen(
        look=look,
        now=now,
        version=version,
        deployment=deployment,
        crd=await reader.one(Part.CRD, CRDS, None, names.CRD_NAME),
        account=await reader.one(Part.ACCOUNTS, ACCOUNTS, *account.split("/", 1)),
        services=_by_name(await reader.all(Part.SERVICES, SERVICES, (home,))),
        slices=await reader.all(Part.SLICES, SLICES, (home,)),
        lease=await reader.one(Part.LEASE, objects.LEASES, home, lease),
        servers=await reader.all(Part.SERVERS, objects.SERVERS, where),
        pods=await reader.all(Part.PODS, objects.PODS, where),
        nodes=_by_name(await reader.all(Part.NODES, objects.NODES, ())),
        budgets=await reader.all(Part.BUDGETS, objects.BUDGETS, where),
        webhooks=await reader.all(Part.WEBHOOKS, WEBHOOKS, ()) if setting(deployment, "WEBHOOK_CERTIFICATES") else (),
        secret=_keyless(await reader.one(Part.SECRETS, SECRETS, home, secret)) if secret else None,
        may=await reader.rights(account, questions(home, served)),
        denied=reader.denied,
    )


def _by_name(documents: Iterable[Document]) -> dict[str, Document]:
    return {objects.name(document): document for document in documents}


def _keyless(secret: Document | None) -> Document | None:
    """Return the Secret without what nobody must see; that its key is there is all that matters."""
    if secret is None:
        return None
    data, metadata = secret.get("data") or {}, secret.get("metadata") or {}
    noted = {name: text for name, text in objects.annotations(secret).items() if name != LAST_APPLIED}
    kept = {name: text for name, text in data.items() if name != KEY} | {KEY: bool(data.get(KEY))}
    return secret | {"data": kept, "metadata": metadata | {"annotations": noted}}


class _Reader:
    """Asks for objects; what does not exist is None or empty, what is forbidden is so too and noted in ``denied``."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._room = asyncio.Semaphore(AT_ONCE)
        self.denied: dict[Part, str] = {}

    async def one(self, part: Part, resource: Resource, namespace: str | None, name: str) -> Document | None:
        return await self._allowed(part, self._api.get(resource, namespace, name))

    async def all(self, part: Part, resource: Resource, namespaces: Iterable[str]) -> tuple[Document, ...]:
        found: list[Document] = []
        for namespace in tuple(namespaces) or (None,):
            listing = await self._allowed(part, self._api.list_all(resource, namespace))
            found += listing.items if listing else ()
        return tuple(found)

    async def rights(self, account: str, asked: list[Question]) -> Mapping[Question, bool]:
        answers = await asyncio.gather(*(self._may(account, question) for question in asked))
        return {question: may for question, may in zip(asked, answers, strict=True) if may is not None}

    async def _may(self, account: str, question: Question) -> bool | None:
        async with self._room:
            body = review(question, account)
            answer = await self._allowed(Part.REVIEWS, self._api.create(objects.ACCESS_REVIEWS, None, body))
        return None if answer is None else bool((answer.get("status") or {}).get("allowed"))

    async def _allowed(self, part: Part, asked: Awaitable[T]) -> T | None:
        try:
            return await asked
        except ApiError as error:
            if error.status == HTTPStatus.FORBIDDEN:
                self.denied[part] = error.message
            elif not error.gone:
                raise
            return None
