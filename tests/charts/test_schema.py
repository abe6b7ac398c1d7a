"""What `helm install` takes and refuses before it asks a cluster."""

import pytest
from tests.charts.helm import CRD_CHART, Helm, RefusedError

pytestmark = pytest.mark.cluster

GOOD = (
    "replicaCount=0",
    "replicaCount=1",
    "replicaCount=5",
    'watchNamespaces=["a","b-2"]',
    'image.digest="sha256:' + 64 * "a" + '"',
    "settings.shutdownSeconds=0.5",
    "resources.limits.cpu=2",
    'resources.limits.memory="1.5Gi"',
    'podDisruptionBudget.maxUnavailable="50%"',
    'gate.routers="a.ns.svc:9090,[fd00::1]:9090"',
    'httpRoute.requestTimeout=""',
    'extraEnv=[{"name":"A","value":"1"}]',
    "podSecurityContext.runAsUser=null",
    'podPolicy.actions=["Warn","Audit"]',
    'global={"anything":1}',
    "enabled=true",
)
BAD = (
    ("replicaCount=-1", "'/replicaCount'"),
    ('replicaCount="1"', "'/replicaCount'"),
    ("replicas=1", "'replicas'"),
    ("settings.shutdownSecs=1", "'shutdownSecs'"),
    ("settings.leaseSeconds=0", "'/settings/leaseSeconds'"),
    ("settings.settleSeconds=-1", "'/settings/settleSeconds'"),
    ("settings.maxBodyBytes=0.5", "'/settings/maxBodyBytes'"),
    ('settings.openReads="yes"', "'/settings/openReads'"),
    ('settings.gpuMemoryLabels=["a,b"]', "'/settings/gpuMemoryLabels/0'"),
    ('image.tag="a b"', "'/image/tag'"),
    ('image.digest="sha256:12"', "'/image/digest'"),
    ('image.pullPolicy="Sometimes"', "'/image/pullPolicy'"),
    ('image.repository=""', "'/image/repository'"),
    ('watchNamespaces="team-a"', "'/watchNamespaces'"),
    ('watchNamespaces=["Team_A"]', "'/watchNamespaces/0'"),
    ('watchNamespaces=["a","a"]', "'/watchNamespaces'"),
    ("service.proxy.port=70000", "'/service/proxy/port'"),
    ('service.proxy.type="ExternalName"', "'/service/proxy/type'"),
    ('gate.routers="admin"', "'/gate/routers'"),
    ('resources.limits.memory="1 GB"', "'/resources/limits/memory'"),
    ("probes.liveness.path=1", "'path'"),
    ('podLabels={"app.kubernetes.io/name":"x"}', "app.kubernetes.io/name"),
    ('podAnnotations={"example.com/on":true}', "'/podAnnotations/example.com~1on'"),
    ("httpRoute.enabled=true", "'/httpRoute/parentRefs'"),
    ('httpRoute.requestTimeout="ten"', "'/httpRoute/requestTimeout'"),
    ("serviceAccount.create=false", "'/serviceAccount/name'"),
    ("podPolicy.actions=[]", "'/podPolicy/actions'"),
    ('podPolicy.actions=["Deny","Warn"]', "'/podPolicy/actions'"),
    ("webhook.timeoutSeconds=0", "'/webhook/timeoutSeconds'"),
    ('webhook.certificate.secretName="mine"', "'/webhook/certificate/caBundle'"),
    ('webhook.certificate.caBundle="MIIB"', "'/webhook/certificate/caBundle'"),
    ('ingress.hosts=["http://x"]', "'/ingress/hosts/0'"),
    ('serviceMonitor.interval="soon"', "'/serviceMonitor/interval'"),
)


@pytest.mark.parametrize("value", GOOD)
def test_a_good_value_renders(helm: Helm, value: str) -> None:
    assert helm.render(value)


@pytest.mark.parametrize(("value", "named"), BAD)
def test_a_bad_value_is_refused_by_name(helm: Helm, value: str, named: str) -> None:
    with pytest.raises(RefusedError) as refused:
        helm.render(value)
    assert named in str(refused.value)


def test_a_bad_value_of_the_definitions_is_refused_by_name(helm: Helm) -> None:
    with pytest.raises(RefusedError, match="'/keep'"):
        helm.text("--set-json", 'keep="yes"', chart=CRD_CHART)


def test_a_cluster_without_native_sidecars_is_refused(helm: Helm) -> None:
    with pytest.raises(RefusedError, match=r">=1\.33"):
        helm.text("--kube-version", "1.32.9")
    assert helm.text("--kube-version", "1.33.1-gke.100")
