"""How `make check-demo` tells which bars hold; the demo itself runs in tests/e2e."""

import subprocess
import sys

from trainer.demo.check import table_of
from trainer.demo.results import Check

FOUND = {
    0: [Check("accuracy", 0.8, 0.75), Check("KL", 25.0, 20.0, at_most=True)],
    7: [Check("accuracy", None, 0.75), Check("KL", 20.0, 20.0, at_most=True)],
}


def test_the_table_has_a_row_for_each_bar_and_marks_what_does_not_hold():
    table = table_of(FOUND)
    assert [column.header for column in table.columns] == ["what", "bar", "seed 0", "seed 7"]
    assert [list(column.cells) for column in table.columns] == [
        ["accuracy", "KL"],
        ["≥ 0.75", "≤ 20"],
        ["0.8", "[red]25[/]"],
        ["[red]not measurable[/]", "20"],
    ]


def test_seeds_must_be_named():
    done = subprocess.run([sys.executable, "-m", "trainer.demo.check"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "--seeds" in done.stderr
