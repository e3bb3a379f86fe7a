"""The report is one self-contained page in which nothing a model said can become markup."""

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from palate.report.figures import Axis, bars, curves, frontier, intervals, running_mean, scatter, trade_off
from palate.report.page import Section, Table, write_page
from tests.boards import embedded

AXIS = Axis("step", "score")


def test_a_page_fetches_nothing_and_escapes_texts(tmp_path):
    table = Table("samples", ("prompt", "completion"), [("<b>p</b>", "<script>alert(1)</script>")])
    figure = curves("scores", AXIS, [0, 1, 2], {"proxy": [0.0, 1.0, 2.0], "gold": [0.0, 0.5, 0.4]}, smooth=2)
    write_page(tmp_path / "r.html", "A run", "What happened.", [Section("One", "First.\n\nSecond.", [table], [figure])])
    page = (tmp_path / "r.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert page.count("<svg") == 1
    assert "src=" not in page
    assert "<p>Second.</p>" in page


def test_figures_are_well_formed_and_repeatable():
    def drawn():
        return [
            bars("b", AXIS, {"rm": 0.8, "length": 0.5}, ("chance", 0.5)).svg,
            intervals("i", AXIS, {"one": (0.2, 0.3, 0.5), "other": (0.1, 0.1, 0.1)}, ("half", 0.5)).svg,
            scatter("s", AXIS, {"before": ([1.0, 2.0], [3.0, 4.0])}).svg,
            trade_off("t", AXIS, [1.0, 2.0, 3.0], [3.0, 4.0, 2.0], [1, 2, 3], smooth=2).svg,
        ]

    first = drawn()
    assert first == drawn()
    for svg in first:
        assert ElementTree.fromstring(svg).tag.endswith("svg")


def test_running_mean_is_over_the_last_values():
    assert running_mean([1.0, 3.0, 5.0, 7.0], 2) == [1.0, 2.0, 4.0, 6.0]


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(-9, 9)), min_size=1))
def test_the_frontier_holds_exactly_what_nothing_beats(points):
    costs, gains = zip(*points, strict=True)
    best = [points[i] for i in frontier(costs, gains)]

    def beaten(cost, gain):
        return any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points)

    assert best == sorted({point for point in points if not beaten(*point)})


def test_data_in_a_page_is_read_as_it_was_given(tmp_path):
    data = {"one": [1 / 3, "</script><!-- ü"], "two": {"a": None}}
    write_page(tmp_path / "r.html", "A run", "What happened.", [], data)
    assert {name: embedded(tmp_path / "r.html", name) for name in data} == data
    assert (tmp_path / "r.html").read_text("utf-8").count("</script>") == 2
