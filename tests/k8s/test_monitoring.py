"""Alerts, their runbook and dashboards: fresh, about metrics that exist, and right on what Prometheus may see."""

import json
import re
import shutil
import subprocess

import pytest
import yaml
from prometheus_client import CollectorRegistry

from k8s.monitoring.__main__ import main
from k8s.monitoring.alerts import alerts
from k8s.monitoring.dashboards import BOARDS, dashboards
from k8s.monitoring.files import ROOT, generated, rule_groups
from k8s.monitoring.recording import recordings
from k8s.monitoring.rules import Clock
from k8s.monitoring.thresholds import Thresholds
from services.policy.metrics import PolicyMetrics
from services.reward.metrics import RewardMetrics
from services.runtime.metrics import ServerMetrics
from tests.k8s.alert_cases import CASES
from trainer.exposure import Vitals
from trainer.metric_names import FAMILIES

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(not PROMTOOL, reason="promtool is not here (Debian package prometheus)")

ALERTS, RECORDED = alerts(Clock(), Thresholds()), recordings(Clock())
EXPRESSIONS = {
    **{f"{each.name} {number}": each.expr for number, each in enumerate(RECORDED)},
    **{each.name: each.expr for each in ALERTS},
    **{
        f"{board.name}/{panel.title}/{query.legend}": query.expr
        for board in BOARDS
        for panels in board.rows.values()
        for panel in panels
        for query in panel.queries
    },
}


def exposed_names():
    """Every series that services, trainer and recording rules may have."""
    registry, reward = CollectorRegistry(), CollectorRegistry()
    ServerMetrics(reward)
    RewardMetrics(reward)
    PolicyMetrics(registry)
    Vitals(registry)
    families = [family for each in (registry, reward) for family in each.collect()]
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    names = {f"{family.name}{ending}" for family in families for ending in endings.get(family.type, ("",))}
    names -= {"palate_reward_score_sum", "palate_reward_calibrated_score_sum"}  # with negative bounds there is none
    rows = {metric.prometheus for family in FAMILIES.values() for metric in family}
    return names | rows | {each.name for each in RECORDED} | {"up", "palate_training_step"}


def names_in(expr):
    bare = re.sub(r'"[^"]*"|\{\{.*?\}\}|\b(by|on|ignoring|group_left)\s*\([^)]*\)', "", expr)
    return set(
        re.findall(r"\b(?:palate|grpc|process)[a-z0-9_:]*\b|\bup\b", re.sub(r"grpc_(code|service|method)", "", bare))
    )


def test_generated_files_are_fresh():
    for path, text in generated().items():
        assert (ROOT / path).read_text(encoding="utf-8") == text, "run `make docs` and commit the result"
    kept = {path.name for path in (ROOT / "k8s/components/monitoring/dashboards").glob("*.json")}
    assert kept == {f"{name}.json" for name in dashboards()}


def test_both_forms_of_the_rules_are_the_same():
    files = generated()
    rule, plain = (
        yaml.safe_load(files[f"k8s/components/monitoring/{name}.yaml"]) for name in ("prometheusrule", "rules")
    )
    assert rule["spec"] == plain


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expressions_name_metrics_that_exist(name):
    used = names_in(EXPRESSIONS[name])
    assert used
    assert used <= exposed_names()


def test_every_alert_leads_to_its_section_of_the_runbook():
    page = generated()["docs/runbooks.md"]
    anchors = {line.removeprefix("## ").lower() for line in page.splitlines() if line.startswith("## ")}
    for alert in ALERTS:
        assert alert.name.lower() in anchors
        assert alert.steps


@pytest.mark.parametrize(
    ("published", "name", "page"),
    [
        ("", "runbook", "docs/runbooks.md"),
        ("https://example.com/runbooks.md", "runbook_url", "https://example.com/runbooks.md"),
    ],
)
def test_alerts_link_to_the_runbook_only_where_it_is_published(published, name, page):
    """Receivers of alerts make links of `runbook_url`; a path in a repository would be a broken one."""
    files = generated(published)
    rules = yaml.safe_load(files["k8s/components/monitoring/rules.yaml"])["groups"][1]["rules"]
    found = {rule["alert"]: {k: v for k, v in rule["annotations"].items() if "runbook" in k} for rule in rules}
    assert found == {alert.name: {name: f"{page}#{alert.name.lower()}"} for alert in ALERTS}


@pytest.mark.parametrize("address", ["docs/runbooks.md", "https:///page", "ftp://example.com/page", "https://a/b#c"])
def test_what_is_no_address_is_refused_before_anything_is_written(address, monkeypatch, capsys):
    before = (ROOT / "docs" / "runbooks.md").stat().st_mtime_ns
    monkeypatch.setattr("sys.argv", ["k8s.monitoring", "--runbook-url", address])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "is no address of a page" in capsys.readouterr().err
    assert (ROOT / "docs" / "runbooks.md").stat().st_mtime_ns == before


def test_the_page_on_ppo_names_the_gold_that_the_alert_compares():
    gold = next(each.expr for each in RECORDED if each.name == "palate:training_gold:trend1h")
    (series,) = names_in(gold) - {"palate_training_step"}
    assert f"`{series}`" in (ROOT / "docs" / "ppo.md").read_text(encoding="utf-8")


def test_every_panel_can_be_told_apart_and_read():
    for board in dashboards().values():
        panels = [panel for panel in board["panels"] if panel["type"] != "row"]
        assert len({panel["title"] for panel in panels}) == len(panels)
        for panel in panels:
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert all(target["expr"] and target["legendFormat"] for target in panel["targets"])
            refs = [target["refId"] for target in panel["targets"]]
            assert len(set(refs)) == len(refs)


def test_a_rehearsal_divides_every_duration():
    assert [Clock()(seconds) for seconds in (0, 90, 300, 5400, 259200)] == ["0s", "90s", "5m", "90m", "3d"]
    assert [Clock(30)(seconds) for seconds in (300, 3600)] == ["10s", "2m"]
    whole, scaled = (alerts(Clock(scale), Thresholds()) for scale in (1, 30))
    assert [alert.name for alert in whole] == [alert.name for alert in scaled]
    assert "> 600" in next(a.expr for a in whole if a.name == "PalateTrainingStalled")
    assert "> 20" in next(a.expr for a in scaled if a.name == "PalateTrainingStalled")


def test_every_alert_has_a_case():
    assert CASES.keys() == {alert.name for alert in ALERTS}


@needs_promtool
def test_promtool_takes_the_rules():
    done = subprocess.run(
        [PROMTOOL, "check", "rules", ROOT / "k8s/components/monitoring/rules.yaml"], capture_output=True
    )
    assert done.returncode == 0, done.stdout


@needs_promtool
@pytest.mark.parametrize("fires", [True, False], ids=["fires", "silent"])
@pytest.mark.parametrize("name", CASES)
def test_alerts_fire_with_the_fault_and_are_silent_without(name, fires, tmp_path):
    case = CASES[name]
    expected = [{"labels": "{}", "value": case.count}] if fires else []
    test = {
        "interval": "1m",
        "input_series": [{"series": k, "values": v} for k, v in (case.fires if fires else case.silent).items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}})',
                "eval_time": f"{case.minutes}m",
                "exp_samples": expected,
            }
        ],
    }
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": rule_groups(Clock(), Thresholds())}))
    (tmp_path / "test.yaml").write_text(json.dumps({"rule_files": ["rules.yaml"], "tests": [test]}))
    done = subprocess.run([PROMTOOL, "test", "rules", tmp_path / "test.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
