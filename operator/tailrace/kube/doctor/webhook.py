"""Is the admission webhook, where it is on, asked and able to answer? Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Final

from tailrace.kube.client import Document
from tailrace.kube.doctor.certificates import certificates, ends_at
from tailrace.kube.doctor.findings import Findings, Severity, well
from tailrace.kube.doctor.installation import install_commands, problem
from tailrace.kube.doctor.seen import KEY, Seen, helm_release, webhook_secret

WEBHOOK: Final = "pods.tailrace.dev"
SOON_SECONDS: Final = 7 * 86400.0
"""How long before its end a certificate is called out: whoever renews it should have done so by then."""

_UNINJECTED: Final = "new pods of a selector get no drain gate, and nobody is told"
_warning = partial(problem, check="webhook", severity=Severity.WARNING)


def registration(seen: Seen) -> Findings:
    """Yield whether the API server calls the webhook, and reaches a replica by it."""
    if not seen.setting("WEBHOOK_CERTIFICATES"):
        return
    found = [*_asked(seen), *_reached(seen)]
    yield from found
    if not found:
        yield well("webhook", seen.home, "The webhook is registered, and replicas serve it.")


def certificate(seen: Seen) -> Findings:
    """Yield whether the certificate of the webhook, where it is a Secret's, is one that the API server takes."""
    name = webhook_secret(seen.deployment)
    if name is None:
        return
    wrong = _what_is_wrong(seen, (seen.secret or {}).get("data") or {})
    if not wrong:
        yield well("webhook", seen.home, f"The webhook's certificate in Secret {name} is valid.")
        return
    yield _warning(
        seen,
        f"Secret {seen.look.namespace}/{name} of the webhook {wrong}: {_UNINJECTED}.",
        "Have it renewed by whoever makes it: cert-manager, you, or the chart, which makes one when there is none.",
        _renewal(seen, name),
        "webhook-certificate",
    )


def _registered(seen: Seen) -> Iterator[Document]:
    """Yield what the API server was told of this installation's webhook."""
    mine = {"namespace": seen.look.namespace, "name": f"{seen.look.name}-webhook"}
    for configuration in seen.webhooks:
        for each in configuration.get("webhooks") or ():
            service = (each.get("clientConfig") or {}).get("service") or {}
            if each.get("name") == WEBHOOK and mine.items() <= service.items():
                yield each


def _asked(seen: Seen) -> Findings:
    if not any(_registered(seen)):
        yield _warning(
            seen,
            f"No MutatingWebhookConfiguration calls the webhook of {seen.home}, though it is on: {_UNINJECTED}.",
            "Install it again; or turn the webhook off.",
            install_commands(seen),
            "webhook-not-registered",
        )


def _renewal(seen: Seen, name: str) -> tuple[str, ...]:
    """Return what has the chart make the Secret anew; one that somebody else made is only shown."""
    secret = f"-n {seen.look.namespace} {{}} secret {name}"
    if seen.secret is None:
        return install_commands(seen)
    if helm_release(seen.secret) is None:
        return (f"kubectl {secret.format('describe')}",)
    return (f"kubectl {secret.format('delete')}", *install_commands(seen))


def _what_is_wrong(seen: Seen, data: Document) -> str:
    """Return what is wrong with the Secret in words, empty for nothing."""
    if not data.get("tls.crt") or not data.get(KEY):
        return "does not exist or lacks tls.crt or tls.key"
    try:
        ends = ends_at(_text(data["tls.crt"]))
    except ValueError as error:
        return f"has a tls.crt that can't be read ({error})"
    if ends < seen.now + SOON_SECONDS:
        tense = "ended" if ends < seen.now else "ends soon,"
        return f"has a certificate that {tense} {datetime.fromtimestamp(ends, UTC):%Y-%m-%d %H:%M} UTC"
    return next((wrong for each in _registered(seen) if (wrong := _mistrust(each, data))), "")


def _mistrust(registered: Document, data: Document) -> str:
    """Return why the API server does not take the authority that the Secret names; empty where it does or none is."""
    bundle, authority = (registered.get("clientConfig") or {}).get("caBundle"), data.get("ca.crt")
    if not authority:
        return ""
    if not bundle:
        return "names an authority (ca.crt), and caBundle of the MutatingWebhookConfiguration is empty"
    try:
        known = certificates(_text(bundle)) & certificates(_text(authority))
    except ValueError as error:
        return f"names an authority (ca.crt) that can't be compared with caBundle ({error})"
    return "" if known else "was not made by the authority in caBundle of the MutatingWebhookConfiguration"


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode(errors="replace")


def _reached(seen: Seen) -> Findings:
    for each in _registered(seen):
        name = str(each["clientConfig"]["service"].get("name"))
        if name in seen.services and seen.addresses(name):
            continue
        yield _warning(
            seen,
            f"Service {seen.look.namespace}/{name} of the webhook {_why_unreached(seen, name)}: {_UNINJECTED}.",
            "See that the Service exists, and that replicas are ready.",
            (f"kubectl -n {seen.look.namespace} get service,endpointslices,pods", *install_commands(seen)),
            "webhook-leads-nowhere",
        )


def _why_unreached(seen: Seen, name: str) -> str:
    return "leads to no replica that is ready" if name in seen.services else "does not exist"
