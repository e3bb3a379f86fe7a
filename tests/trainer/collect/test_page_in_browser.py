"""The page in a real browser: keys, buttons, what is shown; skipped where there is none."""

import json
import os
from pathlib import Path

import pytest

from tests.browser import browser
from tests.collecting import page_collector

SHOWN = """
const told = arguments[arguments.length - 1];
const text = (id) => document.getElementById(id).textContent;
const look = () => {
  const pair = !document.getElementById("pair").hidden, notice = text("notice");
  if (number === null && notice.startsWith("Waiting")) { setTimeout(look, 20); return; }
  if (number === null && pair) { setTimeout(look, 20); return; }
  told({ pair, notice, prompt: text("prompt"), first: text("first"), second: text("second"), count: text("count") });
};
look();
"""
"""What is on the page, once it is not waiting."""


@pytest.mark.timeout(600)
def test_keys_and_buttons_compare_and_a_closed_page_goes_on(served, tmp_path):
    out = tmp_path / "c.jsonl"
    flags = [
        *("--policy", served[0], "--prompts", str(served[1]), "--out", str(out), "--pairs", "6"),
        *("--max-new-tokens", "16", "--annotator", "ann"),
    ]
    with browser(tmp_path / "profile") as page, page_collector(flags) as collector:
        page.open(collector.url)
        seen = [page.run(SHOWN)]
        if folder := os.environ.get("PALATE_SCREENSHOTS"):
            page.screenshot(Path(folder) / "collect.png")
        for key in ("1", "ArrowRight", "t", "s", "x", "ArrowLeft"):
            page.press(key)
            seen.append(page.run(SHOWN))
        assert seen[4] == seen[5]  # "x" is no key of the page
        page.open(collector.url)  # a page that was closed and is opened again shows the same pair
        assert page.run(SHOWN) == seen[-1]
        page.run("document.querySelector('[data-choice=second]').click(); arguments[arguments.length - 1]()")
        page.run(SHOWN)
        page.press("2")
        last = page.run(SHOWN)
        assert not last["pair"]
        assert last["notice"].startswith("That was the last one")
        assert last["count"] == "6 of 6"
        assert collector.process.wait(60) == 0
        page.open("about:blank")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    shown = [each for index, each in enumerate(seen[:-1]) if index not in (3, 4)]
    for row, each, choice in zip(rows, shown, ("first", "second", None, "first"), strict=False):
        assert (row["prompt"], {row["a"], row["b"]}) == (each["prompt"], {each["first"], each["second"]})
        assert row["label"] == ("tie" if choice is None else "a" if row["a"] == each[choice] else "b")
        assert row["seconds"] >= 0
    assert [each["count"] for each in seen[:4]] == [f"{held} of 6" for held in (0, 1, 2, 3)]
    assert len(rows) == 6
