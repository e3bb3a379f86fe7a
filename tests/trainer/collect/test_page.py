import json
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.browser import browser
from tests.collecting import page_collector
from tests.json_lines import read_rows
from trainer.collect import run_collect
from trainer.data.comparisons import read_comparisons
from trainer.data.lines import DataError

_PATIENCE_SECONDS = 240
"""Of a process that ends, on a busy machine."""

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

JSON = {"Content-Type": "application/json"}


def flags(served, out, pairs):
    return [
        *("--policy", served[0], "--prompts", str(served[1]), "--out", str(out), "--pairs", str(pairs)),
        *("--max-new-tokens", "8", "--annotator", "ann"),
    ]


def test_a_person_compares_in_a_page_is_killed_and_goes_on(served, tmp_path):
    out = tmp_path / "c.jsonl"
    with page_collector(flags(served, out, 6)) as collector:
        shown = [collector.pair()]
        assert shown[0] == collector.pair()  # looking again changes nothing
        assert shown[0].keys() == {"state", "number", "prompt", "first", "second", "held", "wanted"}  # blind
        for choice in ("first", "second", "tie", "skip"):
            before = len(read_rows(out)) if out.exists() else 0
            shown.append(collector.choose(shown[-1]["number"], choice))
            assert len(read_rows(out)) == before + (choice != "skip")  # written down before the page is told
        assert collector.choose(shown[0]["number"], "second") == shown[-1]  # sent twice: taken once
        assert shown[-1]["held"] == 3
    with page_collector(flags(served, out, 6)) as collector:  # the first one was killed
        told = collector.pair()
        assert told == shown[-1]
        told = collector.choose(told["number"], "second")
        assert collector.choose(told["number"], "stop")["state"] == "stopped"
        assert collector.process.wait(_PATIENCE_SECONDS) == 0
        assert "the same command goes on" in collector.process.stdout.read()
    with page_collector(flags(served, out, 6)) as collector:
        told = collector.pair()
        while told["state"] == "pair":
            told = collector.choose(told["number"], "first", 0.04)
        assert (told["state"], told["held"]) == ("done", 6)
        assert collector.process.wait(_PATIENCE_SECONDS) == 0
    rows = read_rows(out)
    for row, seen, preferred in zip(rows, shown, ("first", "second", None), strict=False):
        assert row["label"] == ("tie" if preferred is None else "a" if row["a"] == seen[preferred] else "b")
        first, second = (row["b"], row["a"]) if row["provenance"]["swapped"] else (row["a"], row["b"])
        assert (first, second) == (seen["first"], seen["second"])
    assert [row["seconds"] for row in rows] == [1.5, 1.5, 1.5, 1.5, 0.0, 0.0]
    assert {row["annotator"] for row in rows} == {"ann"}
    assert rows[0]["provenance"]["asked_in"] == "page"
    assert [row["provenance"]["number"] for row in read_rows(tmp_path / "c.left-out.jsonl")] == [shown[3]["number"]]
    assert len(read_comparisons(out).rows) == 6


def test_other_pages_cannot_ask_or_answer(served, tmp_path):
    with page_collector(flags(served, tmp_path / "c.jsonl", 3)) as collector:
        told = collector.pair()
        choice = json.dumps({"number": told["number"], "choice": "first", "seconds": 1}).encode()
        here, there = f"/{collector.token}/choice", "/guessed/choice"
        refused = {
            404: [("POST", there, choice, JSON), ("GET", "/", None, {}), ("GET", f"/{collector.token}/x", None, {}),
                  ("GET", f"/{collector.token}/pair", None, {"Host": "rebound.example"}),
                  ("POST", f"/{collector.token}/pair", choice, JSON)],
            403: [("POST", here, choice, {**JSON, "Origin": "http://elsewhere.example"})],
            415: [("POST", here, choice, {"Content-Type": "text/plain"}), ("POST", here, choice, {})],
            411: [("POST", here, None, {**JSON, "Content-Length": "-1"})],
            413: [("POST", here, b" " * 10_000_000, {**JSON, "Content-Length": "10000000"})],
            400: [("POST", here, body, JSON) for body in (
                b"", b"[" * 1000, b"[]", b"{}", b'{"number": 0, "choice": "third", "seconds": 1}',
                b'{"number": 0, "choice": "first", "seconds": NaN}', b'{"number": 0, "choice": "first", "seconds": -1}',
                b'{"number": true, "choice": "first", "seconds": 1}', b'{"number": 0, "choice": [], "seconds": 1}',
            )],
        }  # fmt: skip
        for status, requests in refused.items():
            for request in requests:
                try:
                    found = collector.ask(*request)
                except ConnectionError:  # hung up on while it still sent
                    assert status == 413
                    continue
                assert (found[0], found[2]) == (status, b""), request
        assert collector.pair() == told
        assert not (tmp_path / "c.jsonl").exists()
        status, headers, page = collector.ask("GET", f"/{collector.token}/")
        assert status == 200
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'nonce-")
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
        assert b"NONCE" not in page
        assert told["first"].encode() not in page
        collector.process.send_signal(signal.SIGINT)
        assert collector.process.wait(_PATIENCE_SECONDS) == 130


def test_a_port_that_is_taken_is_said(config, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        there = config(tmp_path / "c.jsonl", labeller="page", annotator="ann", page_port=taken.getsockname()[1])
        with pytest.raises(DataError, match=r"cannot listen on port \d+"):
            run_collect(there)


def test_keys_and_buttons_compare_and_a_closed_page_goes_on(served, tmp_path):
    out = tmp_path / "c.jsonl"
    with browser(tmp_path / "profile") as page, page_collector(flags(served, out, 6)) as collector:
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
        assert collector.process.wait(_PATIENCE_SECONDS) == 0
    rows = read_rows(out)
    shown = [each for index, each in enumerate(seen[:-1]) if index not in (3, 4)]
    for row, each, choice in zip(rows, shown, ("first", "second", None, "first"), strict=False):
        assert (row["prompt"], {row["a"], row["b"]}) == (each["prompt"], {each["first"], each["second"]})
        assert row["label"] == ("tie" if choice is None else "a" if row["a"] == each[choice] else "b")
        assert row["seconds"] >= 0
    assert [each["count"] for each in seen[:4]] == [f"{held} of 6" for held in (0, 1, 2, 3)]
    assert len(rows) == 6
