"""What the doctor says of the admission webhook."""

import base64
import json
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.installations import HELM, HOME, NOW, ROOT, deployment, only, sound, wrong

from tailrace.kube.doctor import webhook
from tailrace.kube.doctor.certificates import certificates, ends_at
from tailrace.kube.doctor.examination import examine
from tailrace.kube.doctor.reading import _keyless
from tailrace.kube.doctor.seen import Look, Part, Seen, webhook_secret
from tailrace.kube.doctor.webhook import SOON_SECONDS

Document = dict[str, Any]
FOLDER = "/var/run/secrets/tailrace-webhook"
SECRET = NAME = "tailrace-webhook"
GOLDENS = ROOT / "tests" / "charts" / "goldens"
YEAR = 365 * 86400


def certificate(ends: float, name: str = "webhook") -> str:
    """Return a certificate that ends then; a new key, and so another certificate, each time."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    last = datetime.fromtimestamp(ends, UTC)
    made = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(last - timedelta(days=30)).not_valid_after(last)
    return made.sign(key, SHA256()).public_bytes(serialization.Encoding.PEM).decode()


AUTHORITY, SERVING = certificate(NOW + YEAR, "ca"), certificate(NOW + YEAR)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def secret(**data: str) -> Document:
    told = {"ca.crt": AUTHORITY, "tls.crt": SERVING, "tls.key": "key"} | data
    made = {"metadata": {"name": SECRET}, "data": {name: encoded(text) for name, text in told.items()}}
    kept = _keyless(made)
    assert kept is not None
    return kept


def configuration(authority: str = AUTHORITY, namespace: str = HOME) -> Document:
    service = {"name": NAME, "namespace": namespace, "path": "/pods"}
    called = {"name": "pods.tailrace.dev", "clientConfig": {"service": service, "caBundle": encoded(authority)}}
    return {"metadata": {"name": f"{namespace}-tailrace"}, "webhooks": [called]}


def installed(**changed: Any) -> Seen:  # noqa: ANN401 - whatever Seen holds
    """Return a sound installation with the webhook on."""
    plain = sound(deployment=deployment(env={"WEBHOOK_CERTIFICATES": FOLDER}))
    assert plain.deployment is not None
    pod = plain.deployment["spec"]["template"]["spec"]
    pod["containers"][0].setdefault("volumeMounts", []).append({"name": "hook", "mountPath": FOLDER})
    pod.setdefault("volumes", []).append({"name": "hook", "secret": {"secretName": SECRET}})
    ends = {"metadata": {"labels": {"kubernetes.io/service-name": NAME}}, "endpoints": [{"addresses": ["10.0.0.9"]}]}
    services = {**plain.services, NAME: {"metadata": {"name": NAME}}}
    seen = replace(plain, services=services, slices=[*plain.slices, ends], webhooks=[configuration()], secret=secret())
    return replace(seen, **changed)


def test_a_webhook_that_is_off_is_not_looked_at() -> None:
    assert [finding for finding in examine(sound()) if finding.check == "webhook"] == []
    assert webhook_secret(sound().deployment) is None


def test_a_webhook_that_is_well_is_said_to_be() -> None:
    assert wrong(installed()) == []
    assert [each.about for each in examine(installed()) if each.check == "webhook"] == [f"{HOME}/tailrace"] * 2
    assert webhook_secret(installed().deployment) == SECRET


@pytest.mark.parametrize("told", [[], [configuration(namespace="elsewhere")], [{"webhooks": [{"name": "other"}]}]])
def test_a_webhook_that_nobody_calls_is_told(told: list[Document]) -> None:
    finding = only(installed(webhooks=told))
    assert finding.anchor == "webhook-not-registered"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: None, "does not exist or lacks tls.crt or tls.key"),
        (lambda: secret(**{"tls.key": ""}), "does not exist or lacks tls.crt or tls.key"),
        (lambda: secret(**{"tls.crt": "nonsense"}), "has a tls.crt that can't be read (it is no certificate)"),
        (lambda: secret(**{"ca.crt": "nonsense"}), "names an authority (ca.crt) that can't be compared with caBundle"),
        (lambda: secret(**{"tls.crt": certificate(NOW - 60)}), "has a certificate that ended 2026-01-01 23:59 UTC"),
        (lambda: secret(**{"tls.crt": certificate(NOW + 86400)}), "has a certificate that ends soon, 2026-01-03 00:00"),
        (lambda: secret(**{"ca.crt": certificate(NOW + YEAR)}), "was not made by the authority in caBundle"),
    ],
)
def test_a_certificate_that_the_api_server_will_not_take_is_told_with_why(
    made: Callable[[], Document | None], said: str
) -> None:
    finding = only(installed(secret=made()))
    assert finding.anchor == "webhook-certificate"
    assert f"Secret {HOME}/{SECRET} of the webhook {said}" in finding.message
    assert "delete" not in " ".join(finding.commands)


def test_a_secret_of_the_chart_is_made_anew_and_no_other_is_deleted() -> None:
    ended = secret(**{"tls.crt": certificate(NOW - 60)})
    assert only(installed(secret=ended)).commands == (f"kubectl -n {HOME} describe secret {SECRET}",)
    plain = installed()
    assert plain.deployment is not None
    helms = plain.deployment | {"metadata": HELM}
    commands = only(replace(plain, deployment=helms, secret=ended | {"metadata": HELM})).commands
    assert commands[0] == f"kubectl -n {HOME} delete secret {SECRET}"
    assert commands[1].startswith("helm upgrade rel ")


@pytest.mark.parametrize(("release", "name"), [("exposed", "router"), ("namespaced", "tailrace")])
def test_what_the_chart_renders_is_recognized(release: str, name: str) -> None:
    rendered = [each for each in yaml.safe_load_all((GOLDENS / f"{release}.yaml").read_text()) if each]
    (deployed,) = (each for each in rendered if each["kind"] == "Deployment")
    hooks = [each for each in rendered if each["kind"] == "MutatingWebhookConfiguration"]
    look = Look(deployed["metadata"]["namespace"], name)
    seen = Seen(look=look, now=NOW, deployment=deployed, webhooks=hooks)
    found = [*webhook.registration(seen), *webhook.certificate(seen)]
    assert [finding.anchor for finding in found] == ["webhook-leads-nowhere", "webhook-certificate"]
    assert f"{look.namespace}/{name}-webhook of the webhook does not exist" in found[0].message


def test_an_authority_that_is_one_of_several_is_trusted_whatever_is_written_between_them() -> None:
    bundle = f"# Nagyítóüveg's own\n{certificate(NOW + YEAR)}\n# and ours:\n{AUTHORITY}# the end\n"
    assert wrong(installed(webhooks=[configuration(bundle)], secret=secret(**{"tls.crt": f"Bag\n{SERVING}"}))) == []


def test_an_authority_that_the_api_server_was_not_told_of_is_missed() -> None:
    finding = only(installed(webhooks=[configuration("")]))
    assert finding.anchor == "webhook-certificate"
    assert "caBundle of the MutatingWebhookConfiguration is empty" in finding.message
    nameless = {name: text for name, text in secret()["data"].items() if name != "ca.crt"}
    assert wrong(installed(webhooks=[configuration("")], secret={"data": nameless})) == [], "it may be a public one's"


@pytest.mark.parametrize("ready", [True, False])
def test_a_service_without_a_ready_replica_is_told(ready: bool) -> None:
    found = installed()
    ends = {
        "metadata": {"labels": {"kubernetes.io/service-name": NAME}},
        "endpoints": [{"addresses": ["10.0.0.9"], "conditions": {"ready": ready}}],
    }
    told = wrong(replace(found, slices=[found.slices[0], ends]))
    assert [finding.anchor for finding in told] == ([] if ready else ["webhook-leads-nowhere"])


def test_a_service_that_is_missing_is_told() -> None:
    finding = only(installed(services={name: each for name, each in installed().services.items() if name != NAME}))
    assert finding.anchor == "webhook-leads-nowhere"
    assert "does not exist" in finding.message


def test_without_the_right_to_read_the_secret_nothing_is_guessed_of_it_and_all_else_is_checked() -> None:
    unread = only(installed(secret=None, denied={Part.SECRETS: "no"}))
    assert unread.anchor == "not-allowed-to-look"
    assert unread.commands == (f"kubectl auth can-i get secrets/{SECRET} -n {HOME}",)
    told = wrong(installed(webhooks=[], secret=None, denied={Part.SECRETS: "no"}))
    assert [finding.anchor for finding in told] == ["webhook-not-registered", "not-allowed-to-look"]


def test_the_key_of_a_secret_is_not_kept() -> None:
    assert secret()["data"]["tls.key"] is True
    assert _keyless(None) is None
    applied = {"data": {"tls.key": encoded("key")}}
    noted = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(applied), **HELM["annotations"]}
    kept = _keyless(applied | {"metadata": {"name": SECRET, "annotations": noted}})
    assert kept is not None
    assert encoded("key") not in json.dumps(kept)
    assert kept["metadata"] == {"name": SECRET, "annotations": HELM["annotations"]}


@pytest.mark.parametrize("ends", [NOW, NOW + SOON_SECONDS, 4102444800.0])  # the last one is of 2100, written otherwise
def test_the_end_of_a_certificate_is_read_from_its_bytes(ends: float) -> None:
    assert ends_at(certificate(ends) + AUTHORITY) == ends


@pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----"])
def test_what_is_no_certificate_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match="it is no certificate"):
        ends_at(text)


def test_every_certificate_of_a_text_counts_and_one_without_any_is_an_error() -> None:
    assert len(certificates(AUTHORITY + SERVING)) == 2
    with pytest.raises(ValueError, match="it has no certificate"):
        certificates("nonsense")


@given(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=5), st.integers(0, 600))
def test_a_broken_certificate_is_a_value_error_and_nothing_else(changes: list[tuple[int, int]], cut: int) -> None:
    broken = bytearray(ssl.PEM_cert_to_DER_cert(SERVING))
    for at, byte in changes:
        broken[at % len(broken)] = byte
    with suppress(ValueError):
        ends_at(ssl.DER_cert_to_PEM_cert(bytes(broken[: len(broken) - cut % len(broken)])))
