"""Which replicas agree, from what they said: no servers."""

from dataclasses import replace

import pytest

from palate.client import ChannelOptions, ModelInfo, Provenance
from palate.client.address import Address
from palate.doctor.agreement import compare
from palate.doctor.findings import Role
from palate.doctor.replica import Examined, Golden, Subject

INFO = ModelInfo(
    Provenance("model", "revision", "onnx", "float32"),
    "w",
    "t",
    "c",
    "encoder",
    "plain",
    128,
    64,
    1.0,
    None,
    None,
    (),
    (),
)


def replica(name, scores, **provenance):
    subject = Subject(Role.REWARD, Address(name), ChannelOptions(), 1.0)
    info = replace(INFO, provenance=replace(INFO.provenance, **provenance))
    return Examined(subject, (), golden=Golden(info, dict(enumerate(scores))))


def verdicts(*replicas):
    return {finding.answer.check: str(finding.answer.verdict) for finding in compare(replicas)}


@pytest.mark.parametrize(
    ("second", "dtype", "verdict"),
    [
        ([1.0, 3.0], "float32", "good"),
        ([1.0, 3.00009], "float32", "good"),
        ([1.0, 3.0002], "float32", "bad"),
        ([1.0, 3.2], "bfloat16", "good"),
        ([1.0, 3.3], "bfloat16", "bad"),
        ([1.0], "float32", "bad"),
    ],
)
def test_scores_may_differ_by_what_their_number_format_allows(second, dtype, verdict):
    """The two texts are two apart, so one standard deviation is 1."""
    found = verdicts(replica("a", [1.0, 3.0]), replica("b", second, dtype=dtype))
    assert found["scores"] == verdict
    assert found["engines"] == ("good" if dtype == "float32" else "warning")


def test_scores_of_other_revisions_are_not_compared():
    found = verdicts(replica("a", [1.0, 3.0]), replica("b", [7.0, 9.0], revision="other"))
    assert found == {"revisions": "bad", "engines": "good"}


def test_where_no_text_has_a_score_there_is_nothing_to_compare():
    assert verdicts(replica("a", []), replica("b", [])) == {"revisions": "good", "engines": "good"}


def test_one_replica_has_nothing_to_agree_with():
    assert verdicts(replica("a", [1.0, 3.0])) == {}
    silent = Examined(Subject(Role.REWARD, Address("b"), ChannelOptions(), 1.0), ())
    assert verdicts(replica("a", [1.0, 3.0]), silent) == {}
