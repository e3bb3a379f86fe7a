"""An unmodified `tritonclient`, in an environment and a process of its own, is told what our own client is told."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from palate.client import RewardClient, TokenIds
from palate.v1 import reward_service_pb2 as reward
from tests.examples.toolchains import ROOT, triton_python

TALK = Path(__file__).with_name("triton_talk.py")


@pytest.fixture(scope="module")
def told(server):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [triton_python(), TALK, server.target]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def palate(server):
    with RewardClient(server.target) as client:
        yield client


def test_server_and_model_are_known(told, palate):
    revision = palate.model_info().provenance.revision
    assert told["ready"] == [True, True, True]
    assert told["absent ready"] is False
    assert told["server"] == "palate"
    assert told["inputs"]["PROMPT"] == told["inputs"]["MESSAGES"] == "BYTES"
    assert told["versions"] == [revision]
    assert (told["version"], told["id"], told["type"]) == (revision, "seven", "float32")


def test_scores_are_the_same_by_every_way(told, palate):
    pairs = [
        ("Is the plan honest?", "It is an honest plan."),
        ("What comes before?", "The costs come before customers."),
    ]
    scores = palate.score(*zip(*pairs, strict=True)).scores()
    assert told["texts"] == told["urgent"] == told["chat"] == told["partial"][:2] == scores
    digest = palate.model_info().tokenizer_digest
    rows = [TokenIds(ids, digest) for ids in ((5, 6, 7), (8, 9))]
    assert told["ids"] == palate.score(["", ""], rows).scores()
    assert told["tokens"] == [3, 2]


def test_failures_are_told(told):
    assert told["partial"][2] is None
    assert told["status"] == [0, 0, reward.ITEM_ERROR_CODE_INVALID]
    assert told["errors"] == ["", ""]
    assert told["refused"] == {
        "failed item": "StatusCode.INVALID_ARGUMENT",
        "model": "StatusCode.NOT_FOUND",
        "version": "StatusCode.FAILED_PRECONDITION",
        "late": "StatusCode.DEADLINE_EXCEEDED",
        "extension": "StatusCode.UNIMPLEMENTED",
    }


def test_the_protocol_is_what_tritonclient_has(told):
    assert told["strange fields"] == []
