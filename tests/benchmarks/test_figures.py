"""The document has a key for each figure; goals look at the end of the interval that they are about."""

import json

import pytest

from benchmarks.figures import Figure, Goal, Unmeasured, exact, kept, show, this_machine, write
from benchmarks.paired import Estimate

WIDE = Estimate(1.0, 0.9, 1.1, 12)


@pytest.mark.parametrize(
    ("goal", "holds"),
    [
        (Goal("≥", 0.95), True),
        (Goal("≥", 0.95, "low"), False),
        (Goal("≤", 1.05), True),
        (Goal("≤", 1.05, "high"), False),
        (Goal("<", 1.0), False),
        (Goal("<", 1.01), True),
    ],
)
def test_goals(goal, holds):
    assert goal.holds(WIDE) is holds
    assert kept([Figure("part/one", "a ratio", WIDE, goal=goal)]) is holds


def test_what_was_not_measured_is_never_kept():
    assert kept([Figure("part/one", "a ratio", WIDE)])
    assert not kept([Figure("part/one", "a ratio", WIDE), Unmeasured("part/two", "no such processor")])


def test_the_document_and_its_page(tmp_path, capsys):
    findings = [
        Figure("part/one", "a <ratio>", WIDE, goal=Goal("≥", 0.95, "low"), beside={"items/s": 5.0, "best": "1 x 2"}),
        Figure("part/added", "a difference", exact(2.5), unit="ms"),
        Unmeasured("part/two", "no such processor"),
    ]
    machine = {**this_machine(), "texts": "real"}
    write(tmp_path / "new" / "figures.json", findings, machine)
    assert json.loads((tmp_path / "new" / "figures.json").read_text()) == {
        "part/one": {
            "value": 1.0, "low": 0.9, "high": 1.1, "n": 12, "what": "a <ratio>", "unit": "ratio",
            "goal": "low ≥ 0.95", "holds": False, "beside": {"items/s": 5.0, "best": "1 x 2"},
        },
        "part/added": {
            "value": 2.5, "low": 2.5, "high": 2.5, "n": 1, "what": "a difference", "unit": "ms", "beside": {}
        },
        "part/two": {"unmeasured": "no such processor"},
    }  # fmt: skip
    page = (tmp_path / "new" / "figures.html").read_text()
    assert "a &lt;ratio&gt;" in page
    assert page.count("<svg") == 1
    show(findings, machine)
    assert "not measured" in capsys.readouterr().out
