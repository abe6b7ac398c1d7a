"""Who is the bearer of a token, and may they: asked of the API server. Any replica may ask."""

from __future__ import annotations

from typing import Any

from tailrace.api import names
from tailrace.kube import objects
from tailrace.kube.client import Api, ApiError, Document
from tailrace.link import Review, Reviewed

_POD_UID = "authentication.kubernetes.io/pod-uid"


async def answer(api: Api, review: Review) -> Reviewed:
    """Return the answer; never raises but for a cancellation."""
    try:
        status = (await api.create(objects.TOKEN_REVIEWS, None, token_review(review))).get("status") or {}
        user = status.get("user") or {}
        authenticated = bool(status.get("authenticated")) and _is_for(status, review.audience)
        allowed = authenticated and (review.verb is None or await _may(api, review, user))
    except ApiError as error:
        return Reviewed(review.ticket, authenticated=False, allowed=False, error=str(error))
    pod_uids = (user.get("extra") or {}).get(_POD_UID) or ()
    return Reviewed(
        review.ticket,
        authenticated=authenticated,
        allowed=allowed,
        user=str(user.get("username") or ""),
        pod_uid=pod_uids[0] if pod_uids else None,
    )


def token_review(review: Review) -> Document:
    """Return the TokenReview to create."""
    spec: dict[str, Any] = {"token": review.token}
    if review.audience is not None:
        spec["audiences"] = [review.audience]
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}


def access_review(review: Review, user: Document) -> Document:
    """Return the SubjectAccessReview to create for an authenticated user."""
    asked = {"group": names.GROUP, "resource": review.resource or names.PLURAL, "verb": review.verb}
    spec = {
        "user": user.get("username"),
        "uid": user.get("uid") or "",
        "groups": user.get("groups") or [],
        "extra": user.get("extra") or {},
        "resourceAttributes": asked | ({"namespace": review.namespace} if review.namespace else {}),
    }
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}


def _is_for(status: Document, audience: str | None) -> bool:
    """Whether the token was issued for this audience: an API server that knows no audiences answers without any."""
    return audience is None or audience in (status.get("audiences") or ())


async def _may(api: Api, review: Review, user: Document) -> bool:
    answered = await api.create(objects.ACCESS_REVIEWS, None, access_review(review, user))
    return bool((answered.get("status") or {}).get("allowed"))
