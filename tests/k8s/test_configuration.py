"""Real servers and a real configuration of a run, each started with what the manifests tell it."""

import base64
import re
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.protected import Protection, make_protection
from palate.client import AdminClient, ChannelOptions, PermissionDenied, PolicyClient, RewardClient, Unauthenticated
from palate.local_server import local_server
from palate.models.export import export
from tests.k8s.rendering import ROOT, of_kind, pod_specs, variables
from tests.otlp_collector import collecting
from tests.tiny_models import make_tiny_policy, make_tiny_reward
from trainer.config import PPOConfig

EXCHANGE = "prod, model-exchange"
JOBSET_LABEL = "jobset.sigs.k8s.io/jobset-name"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """What a pod has mounted: /models and the Secrets."""
    folder = tmp_path_factory.mktemp("root")
    export(make_tiny_reward(folder / "checkpoint", "encoder", 0), folder / "models" / "reward")
    make_tiny_policy(folder / "models" / "policy", 0)
    return folder


@contextmanager
def started(name: str, server: str, root: Path, monkeypatch, probe_tls=None, collector=""):
    """The server of a Deployment, with all that its pod is told; only ports are free ones and addresses loopback."""
    spec = of_kind(name, "Deployment")[server]["spec"]["template"]["spec"]
    for key, value in variables(name, spec).items():
        port = key.endswith("_PORT")
        here = collector if key.endswith("_OTLP_ENDPOINT") else value
        monkeypatch.setenv(key, "0" if port else f"{root}{value}" if value.startswith("/") else here)
    command = [*spec["containers"][0]["args"]]
    module = f"services.{command.pop()}"
    assert command == ["serve"]
    with local_server(["-m", module], probe_tls=probe_tls, ready_seconds=240) as running:
        yield running


@pytest.fixture(scope="module")
def protection(root) -> Protection:
    """What production's Secrets hold: identities are the overlay's, certificates of an authority of this test."""
    made = make_protection(root)
    secrets = root / "etc" / "palate"
    for secret in ("tls", "identities"):
        (secrets / secret).mkdir(parents=True)
    for ours, theirs in {"cert.pem": "tls.crt", "key.pem": "tls.key", "ca.pem": "ca.crt"}.items():
        (secrets / "tls" / theirs).write_bytes((root / ours).read_bytes())
    listed = of_kind("prod", "Secret")["palate-identities"]["data"]["identities.yaml"]
    (secrets / "identities" / "identities.yaml").write_bytes(base64.b64decode(listed))
    return made


def test_production_serves_scores_to_listed_certificates_alone(root, protection, monkeypatch):
    trainer = protection.mutual_tls_of("palate-trainer")
    stranger = protection.mutual_tls("trainer")
    with started("prod", "palate-reward", root, monkeypatch, probe_tls=trainer) as server:
        with RewardClient(server.target, options=ChannelOptions(tls=trainer)) as client:
            assert client.score(["a prompt"], ["a completion"]).scores()
        with (
            RewardClient(server.target, options=ChannelOptions(tls=stranger)) as client,
            pytest.raises(Unauthenticated),
        ):
            client.score(["a prompt"], ["a completion"])
        admin = ChannelOptions(tls=protection.mutual_tls_of("palate-admin"))
        with AdminClient(server.target, options=admin) as client, pytest.raises(PermissionDenied):
            client.load_model("reward", "reward")


def test_a_model_that_is_exchanged_in_place_is_there_after_a_restart_too(root, protection, tmp_path, monkeypatch):
    """As docs/deploy.md has it: the link first, then every pod."""
    models = root / "models"
    (models / "reward").rename(models / "reward-1")
    (models / "reward").symlink_to("reward-1")
    second = export(make_tiny_reward(tmp_path / "checkpoint", "encoder", 1), models / "reward-2").digests.revision
    trainer, admin = (protection.mutual_tls_of(f"palate-{who}") for who in ("trainer", "admin"))
    (certificate,) = (each["spec"] for key, each in of_kind(EXCHANGE, "Certificate").items() if key == "palate-admin")
    assert certificate["commonName"] == "palate-admin"

    def served(target):
        with RewardClient(target, options=ChannelOptions(tls=trainer)) as client:
            provenance = client.score(["a prompt"], ["a completion"]).provenance
            return provenance.model, provenance.revision

    with started(EXCHANGE, "palate-reward", root, monkeypatch, probe_tls=trainer) as server:
        name, first = served(server.target)
        (models / "next").symlink_to("reward-2")
        (models / "next").replace(models / "reward")
        assert served(server.target) == (name, first)
        with AdminClient(server.target, options=ChannelOptions(tls=trainer)) as client, pytest.raises(PermissionDenied):
            client.load_model(name, name, set_default=True)
        with AdminClient(server.target, options=ChannelOptions(tls=admin)) as client:
            client.load_model(name, name, set_default=True, revision=second)
        assert served(server.target) == ("reward", second)
    with started(EXCHANGE, "palate-reward", root, monkeypatch, probe_tls=trainer) as server:
        assert served(server.target) == ("reward", second) != ("reward", first)


def test_the_local_overlay_serves_its_policy(root, monkeypatch):
    with started("local", "palate-ref-policy", root, monkeypatch) as server, PolicyClient(server.target) as client:
        assert client.policy_info().frozen


def test_with_tracing_a_collector_gets_the_spans(root, monkeypatch):
    with collecting() as collector:
        told = {"monkeypatch": monkeypatch, "collector": collector.endpoint}
        with started("local, tracing", "palate-reward", root, **told) as server:
            with RewardClient(server.target) as client:
                assert client.score(["a prompt"], ["a completion"]).scores()
            server.stop()  # sends what is left
    assert "palate.v1.RewardService/Score" in {span.name for span in collector.spans}


@pytest.mark.parametrize("name", ["training alone", "training-ranks alone", "a run", "a run on ranks"])
def test_a_run_is_what_the_trainer_reads(name, tmp_path, monkeypatch):
    (data,) = (m["data"] for key, m in of_kind(name, "ConfigMap").items() if key.startswith("palate-training"))
    (tmp_path / "run.yaml").write_text(data["run.yaml"])
    (spec,) = (spec for title, spec in pod_specs(name) if title.startswith("Job"))
    told = variables(name, spec)
    mounted = {mount["mountPath"]: mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
    assert mounted[str(Path(told.pop("PALATE_CONFIG")).parent)] == "run"
    monkeypatch.setenv("PALATE_CONFIG", str(tmp_path / "run.yaml"))
    for key, value in told.items():
        monkeypatch.setenv(key, value)
    arguments = spec["containers"][0]["args"]
    flags = arguments[arguments.index("ppo") + 1 :]
    config = PPOConfig.from_command_line(flags, "palate train ppo")
    for path in (config.out, config.policy, config.prompts, config.services.ca):
        assert any(path.is_relative_to(mount) for mount in mounted), path
    services = of_kind("base", "Service")
    for address in (*config.services.policy, config.services.reward, config.services.ref):
        assert address.rsplit(":", 1)[0].removeprefix("dns:").removeprefix("///") in services
    assert (config.services.token_file is None) == name.startswith("a run")
    assert (config.device == "cuda") == name.startswith("a run")
    assert (config.distributed == "fsdp2") == ("ranks" in name)
    assert config.record.prometheus_port == 9090
    assert config.record.prometheus_host == "0.0.0.0"


@pytest.mark.parametrize("name", ["training-ranks alone", "a run on ranks"])
def test_torchrun_meets_at_the_first_pod_with_as_many_as_there_are(name):
    (jobset,) = of_kind(name, "JobSet").values()
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    container = spec["template"]["spec"]["containers"][0]
    labels = {f"metadata.labels['{JOBSET_LABEL}']": jobset["metadata"]["name"]}  # which JobSet's controller sets
    of_the_pod = {
        e["name"]: labels[e["valueFrom"]["fieldRef"]["fieldPath"]] for e in container["env"] if "value" not in e
    }
    arguments = [re.sub(r"\$\((\w+)\)", lambda found: of_the_pod[found[1]], flag) for flag in container["args"]]
    flags = dict(flag.removeprefix("--").split("=") for flag in arguments if "=" in flag)
    host, port = flags["rdzv-endpoint"].split(":")
    assert jobset["spec"]["network"] == {"enableDNSHostnames": True}  # the Service has the JobSet's name
    assert host == f"{jobset['metadata']['name']}-{job['name']}-0-0.{jobset['metadata']['name']}"
    assert flags["rdzv-id"] == jobset["metadata"]["name"]
    assert int(flags["nnodes"]) == spec["completions"] == spec["parallelism"]
    ports = {entry["containerPort"] for entry in spec["template"]["spec"]["containers"][0]["ports"]}
    assert int(port) in ports


@pytest.mark.parametrize(("index", "scraped"), [("", True), ("0", True), ("1", False), ("10", False)])
def test_of_a_run_the_pod_with_rank_0_is_scraped_alone(index, scraped):
    """Else every other rank, which has no metrics, would be a process that Prometheus cannot read (PalateNoScrape)."""
    (monitor,) = of_kind("prod", "PodMonitor").values()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (rule,) = endpoint["relabelings"]
    assert rule["sourceLabels"] == ["__meta_kubernetes_pod_label_batch_kubernetes_io_job_completion_index"]
    assert rule["action"] == "drop"
    assert (re.fullmatch(rule["regex"], index) is None) == scraped


def test_autoscaling_asks_for_metrics_that_the_services_have():
    page = (ROOT / "docs" / "metrics.md").read_text()
    for name, scaled in of_kind("prod", "ScaledObject").items():
        assert scaled["metadata"]["namespace"] == "palate"  # which the query names, where kustomize does not look
        (trigger,) = scaled["spec"]["triggers"]
        query = trigger["metadata"]["query"]
        series = re.findall(r'(palate_\w+)\{namespace="palate",job="([\w-]+)"\}', query)
        assert series
        assert len(series) == query.count("{")
        for metric, job in series:
            assert f"`{metric}`" in page
            assert job == name
        labels = of_kind("prod", "Deployment")[name]["spec"]["template"]["metadata"]["labels"]
        (monitor,) = of_kind("prod", "PodMonitor").values()
        assert labels[monitor["spec"]["jobLabel"]] == name
