"""What a policy server shows before anything happened, and of the weights it serves."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from palate.client import PolicyVersion
from services.policy.metrics import PolicyMetrics

FINGERPRINT = "palate_policy_version_fingerprint"


def shown(version):
    registry = CollectorRegistry()
    metrics = PolicyMetrics(registry)
    metrics.serving(version)
    return registry.get_sample_value(FINGERPRINT)


@given(one=st.binary(min_size=32, max_size=32), other=st.binary(min_size=32, max_size=32))
def test_the_same_weights_and_no_others_show_the_same_fingerprint(one, other):
    version = PolicyVersion("run", 1, 3, one.hex())
    assert shown(version) == shown(replace(version, run_id="another", step=4))
    assert (shown(version) == shown(replace(version, digest=other.hex()))) == (one[:6] == other[:6])
    assert shown(version) == int(one.hex()[:12], 16)  # nothing is lost in a float64


def test_series_of_closed_sets_begin_at_zero():
    registry = CollectorRegistry()
    PolicyMetrics(registry)
    found = {(s.name, *sorted(s.labels.values())): s.value for family in registry.collect() for s in family.samples}
    for expected in (
        ("palate_policy_publishing_total", "broken", "stage"),
        ("palate_policy_publishing_total", "expire", "ok"),
        ("palate_policy_completions_total", "stop"),
        ("palate_policy_completions_total", "failed"),
        ("palate_policy_dropped_calls_total", "expired"),
    ):
        assert found[expected] == 0
