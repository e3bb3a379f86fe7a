"""What the manifests promise together, read from what kustomize makes of them."""

import re
import shutil
import tomllib
from base64 import b64decode
from urllib.parse import urlsplit

import pytest
import yaml

from palate.settings import Settings
from services.policy.config import PolicyConfig
from services.reward.config import RewardConfig
from services.runtime.health import LIVE
from tests.k8s.rendering import COMBINATIONS, K8S, NAMESPACE, SUFFIX, build, documents, of_kind, pod_specs, variables

SERVERS = {
    "palate-reward": (RewardConfig, "palate.v1.RewardService"),
    "palate-policy": (PolicyConfig, "palate.v1.PolicyService"),
    "palate-ref-policy": (PolicyConfig, "palate.v1.PolicyService"),
}
DEPLOYED = [name for name in COMBINATIONS if name.startswith(("base", "local", "prod"))]
everywhere = pytest.mark.parametrize("name", COMBINATIONS)
deployed = pytest.mark.parametrize("name", DEPLOYED)


def setting(server: str, environment: dict[str, str], field: str) -> float:
    """What a server reads for a number, its default where nothing is said."""
    config: type[Settings] = SERVERS[server][0]
    given = environment.get(f"{config.model_config['env_prefix']}{field.upper()}")
    return float(config.model_fields[field].default if given is None else given)


def cores(quantity: str) -> float:
    return float(quantity.removesuffix("m")) / (1000 if quantity.endswith("m") else 1)


@everywhere
def test_pods_meet_the_restricted_standard_and_have_no_token(name):
    for pod, spec in pod_specs(name):
        assert spec["securityContext"]["runAsNonRoot"] is True, pod
        assert spec["securityContext"]["runAsUser"] >= 10_000, pod
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, pod
        assert spec["automountServiceAccountToken"] is False, pod
        assert spec["enableServiceLinks"] is False, pod
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), pod
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, pod
            assert context["readOnlyRootFilesystem"] is True, pod
            assert context["capabilities"] == {"drop": ["ALL"]}, pod
            resources = container["resources"]
            assert resources["requests"]["memory"] == resources["limits"]["memory"], pod
            assert "cpu" not in resources["limits"], pod


@everywhere
def test_what_pods_name_is_there(name):
    """ConfigMaps, claims, accounts are the overlay's or of all runs; every volume is mounted, every mount has one."""
    made = {(each["kind"], each["metadata"]["name"]) for each in (*documents(name), *documents("runs"))}
    for pod, spec in pod_specs(name):
        assert ("ServiceAccount", spec["serviceAccountName"]) in made, pod
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        containers = (*spec["containers"], *spec.get("initContainers", ()))
        mounts = {mount["name"] for container in containers for mount in container["volumeMounts"]}
        assert mounts == set(volumes), pod
        sources = [source for item in containers for source in item.get("envFrom", ())]
        assert all(source["secretRef"]["optional"] for source in sources if "secretRef" in source), pod
        maps = [source["configMapRef"]["name"] for source in sources if "configMapRef" in source]
        maps += [volume["configMap"]["name"] for volume in volumes.values() if "configMap" in volume]
        keys = [
            entry.get("valueFrom", {}).get("configMapKeyRef") for each in containers for entry in each.get("env", ())
        ]
        maps += [key["name"] for key in keys if key]
        claims = [v["persistentVolumeClaim"]["claimName"] for v in volumes.values() if "persistentVolumeClaim" in v]
        assert {("ConfigMap", each) for each in maps} <= made, pod
        assert {("PersistentVolumeClaim", each) for each in claims} <= made, pod


@deployed
def test_probes_ask_a_plaintext_port_for_names_that_the_server_has(name):
    for server, deployment in of_kind(name, "Deployment").items():
        spec = deployment["spec"]["template"]["spec"]
        container, environment = spec["containers"][0], variables(name, spec)
        port = setting(server, environment, "health_port")
        for probe in ("startupProbe", "readinessProbe"):
            assert container[probe]["grpc"] == {"port": port, "service": SERVERS[server][1]}
        assert container["livenessProbe"]["grpc"] == {"port": port, "service": LIVE}
        assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] >= 300
        ports = {entry["name"]: entry["containerPort"] for entry in container["ports"]}
        told = {key: setting(server, environment, field) for key, field in PORTS.items()}
        assert ports == told


PORTS = {"grpc": "port", "health": "health_port", "metrics": "metrics_port"}


@deployed
def test_the_grace_to_end_is_longer_than_sleep_and_drain(name):
    for server, deployment in of_kind(name, "Deployment").items():
        spec = deployment["spec"]["template"]["spec"]
        environment = variables(name, spec)
        sleep = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        drain = sum(setting(server, environment, f"drain_{part}_seconds") for part in ("delay", "grace"))
        assert sleep > 0
        assert spec["terminationGracePeriodSeconds"] >= sleep + drain + 5


@deployed
def test_threads_are_bound_to_the_request(name):
    for server, deployment in of_kind(name, "Deployment").items():
        spec = deployment["spec"]["template"]["spec"]
        requested = cores(spec["containers"][0]["resources"]["requests"]["cpu"])
        assert setting(server, variables(name, spec), "threads") == max(1, requested)


@deployed
def test_every_server_has_its_services_budget_and_account(name):
    services, budgets = of_kind(name, "Service"), of_kind(name, "PodDisruptionBudget")
    assert set(of_kind(name, "Deployment")) == set(budgets) == set(SERVERS)
    assert set(services) == {*SERVERS, "palate-policy-publish"}
    for server, deployment in of_kind(name, "Deployment").items():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert services[server]["spec"]["selector"].items() <= labels.items()
        assert budgets[server]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for service in services.values():
        assert service["spec"]["clusterIP"] == "None"
    ready_or_not = {key for key, service in services.items() if service["spec"].get("publishNotReadyAddresses")}
    assert ready_or_not == {"palate-policy-publish"}


@everywhere
def test_who_is_scaled_says_no_replicas(name):
    scaled = {document["spec"]["scaleTargetRef"]["name"] for document in of_kind(name, "ScaledObject").values()}
    deployments = of_kind(name, "Deployment")
    assert scaled <= set(deployments)
    assert not [server for server in scaled if "replicas" in deployments[server]["spec"]]


@deployed
def test_no_server_starts_without_its_secrets_but_locally(name):
    for server, deployment in of_kind(name, "Deployment").items():
        spec = deployment["spec"]["template"]["spec"]
        environment = variables(name, spec)
        insecure = {key for key, value in environment.items() if key.endswith("_INSECURE") and value == "true"}
        secrets = {v["secret"]["secretName"]: v["secret"] for v in spec["volumes"] if "secret" in v}
        if name.startswith("local"):
            assert insecure
            assert not secrets
            continue
        assert not insecure
        assert set(secrets) == {f"{server}-tls", "palate-identities"}
        assert not [secret for secret in secrets.values() if secret.get("optional")]


def test_certificates_are_for_the_names_that_callers_use():
    certificates = of_kind("prod", "Certificate")
    for service in of_kind("prod", "Service"):
        owner = service.removesuffix("-publish")
        assert {service, f"{service}.palate.svc"} <= set(certificates[owner]["spec"]["dnsNames"])
    made = {certificate["spec"]["secretName"] for certificate in certificates.values()}
    wanted = {v["secret"]["secretName"] for _, spec in pod_specs("prod") for v in spec["volumes"] if "secret" in v}
    assert wanted == (made & wanted) | {"palate-identities"}


@pytest.mark.parametrize("name", ["a run", "a run on ranks"])
def test_a_run_makes_nothing_but_itself(name):
    """It may be applied, renamed and deleted beside services and other runs."""
    assert {document["kind"] for document in documents(name)} == {"ConfigMap", "JobSet" if "ranks" in name else "Job"}
    assert all(SUFFIX in document["metadata"]["name"] for document in documents(name))
    ((_, spec),) = pod_specs(name)
    secrets = {volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume}
    assert secrets == {of_kind("prod", "Certificate")["palate-trainer"]["spec"]["secretName"]}


def test_weights_come_from_where_the_readme_lets_an_overlay_say():
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl here")
    readme = (K8S / "components" / "weights-download" / "README.md").read_text()
    (snippet,) = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    made = list(yaml.safe_load_all(build("base", ["weights-download"], yaml.safe_load(snippet))))
    (said,) = (each["data"] for each in made if each["metadata"]["name"].startswith("palate-reward-weights"))
    assert said == {"URL": "https://models.example.com/reward.tar", "SHA256": "…"}


def test_an_overlay_over_productions_says_who_may_call():
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl here")
    replaced = {"name": "palate-identities", "behavior": "replace", "literals": ["identities.yaml=[]"]}
    more = {"secretGenerator": [replaced | {"options": {"disableNameSuffixHash": True}}], "namespace": "palate"}
    (secret,) = (each for each in yaml.safe_load_all(build("overlays/prod", [], more)) if each["kind"] == "Secret")
    assert secret["metadata"]["name"] == "palate-identities"
    assert b64decode(secret["data"]["identities.yaml"]) == b"[]"


def test_traces_go_where_an_overlay_says_and_the_network_lets_them():
    readme = (K8S / "components" / "tracing" / "README.md").read_text()
    (snippet,) = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    (said,) = re.findall(r'value: "(.*?)"', snippet)
    made = list(
        yaml.safe_load_all(build("overlays/prod", ["tracing"], {"namespace": NAMESPACE, **yaml.safe_load(snippet)}))
    )
    assert [each["data"]["ENDPOINT"] for each in made if each["metadata"]["name"].startswith("palate-tracing")] == [
        said
    ]
    default = urlsplit(
        {variables("prod, tracing", spec)[f"PALATE_{kind}_OTLP_ENDPOINT"] for kind, spec in traced()}.pop()
    )
    (rule,) = of_kind("prod, tracing", "NetworkPolicy")["palate-servers"]["spec"]["egress"]
    (peer,) = rule["to"]
    assert default.hostname.split(".")[1] == peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    assert [entry["port"] for entry in rule["ports"]] == [default.port]
    assert of_kind("prod, tracing", "NetworkPolicy")["palate-servers"]["spec"]["policyTypes"] == ["Ingress", "Egress"]


def traced():
    """(REWARD or POLICY, spec) of every server's pod."""
    for title, spec in pod_specs("prod, tracing"):
        yield ("REWARD" if title.endswith("reward") else "POLICY"), spec


def test_without_network_policies_traces_close_nothing():
    assert not of_kind("local, tracing", "NetworkPolicy")


def test_images_are_built_with_extras_that_there_are():
    extras = tomllib.loads((K8S.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    makefile = re.findall(
        r"k8s/images/(\S+)\.Dockerfile.*?--build-arg EXTRAS=(\S+)", (K8S.parent / "Makefile").read_text()
    )
    files = {path.stem: path.read_text() for path in (K8S / "images").glob("[st]*.Dockerfile")}
    defaults = [(name, re.search(r"^ARG EXTRAS=(\S+)$", text, re.MULTILINE)[1]) for name, text in files.items()]
    assert makefile
    assert all("install" in text and '".[${EXTRAS}]"' in text for text in files.values())
    for name, chosen in (*defaults, *makefile):
        assert set(chosen.split(",")) <= extras.keys(), name
        assert ("otel" in chosen.split(",")) == name.startswith("services"), name


def test_production_images_come_from_a_registry():
    for name in ("prod", "prod, gpu"):
        images = {spec["containers"][0]["image"] for _, spec in pod_specs(name)}
        assert all("/" in image and ":" in image for image in images), images
