"""Commands wait for a server that still starts, and say so."""

import subprocess
import sys

import grpc
import pytest

from benchmarks.ports import free_port
from palate.client import Unavailable
from palate.local_server import local_server
from palate.waiting import when_ready
from tests.tiny_models import make_tiny_reward


def test_a_command_that_comes_first_waits_for_its_server(tmp_path):
    folder, port = make_tiny_reward(tmp_path / "tiny", "encoder", 0), free_port()
    (tmp_path / "in.jsonl").write_text('{"prompt": "Why?", "completion": "So."}\n')
    command = [sys.executable, "-c", "from palate.command import main; main()", "score"]
    files = [str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")]
    with subprocess.Popen(
        [*command, *files, "--target", f"127.0.0.1:{port}", "--wait", "300"], stderr=subprocess.PIPE, text=True
    ) as process:
        lines = iter(process.stderr.readline, "")
        assert any("waiting up to 300 s for the server, then going on: no answer from" in line for line in lines)
        with local_server(["-m", "services.reward", "--model", str(folder), "--engine", "fake"], port=port):
            rest = "".join(lines)
            assert process.wait(300) == 0, rest
    assert "1 rows in" in rest


def away(retry_after):
    return Unavailable(grpc.StatusCode.UNAVAILABLE, "it loads", "", retry_after)


def test_waiting_is_told_once_and_ends_with_the_answer(capsys):
    coming = iter([away(0.001), away(0.001), "served"])

    def call():
        if isinstance(found := next(coming), Unavailable):
            raise found
        return found

    assert when_ready(call, 60.0) == "served"
    assert capsys.readouterr().err == "waiting up to 60 s for the server, then going on: it loads\n"


@pytest.mark.parametrize(("seconds", "retry_after"), [(0.0, None), (60.0, 61.0)])
def test_who_does_not_come_in_time_is_an_error(capsys, seconds, retry_after):
    def call():
        raise away(retry_after)

    with pytest.raises(Unavailable, match="it loads"):
        when_ready(call, seconds)
    assert capsys.readouterr().err == ""
