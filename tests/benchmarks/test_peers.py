"""Peers are asked in their own protocol, and run the model as it is."""

import pytest

from benchmarks.models import make_encoder
from benchmarks.offline import Offline
from benchmarks.peers import kserve, scorer
from benchmarks.texts import simulated
from palate.models.export import export
from palate.models.manifest import load_manifest
from palate.models.rendering import Renderer


def test_a_kserve_request_is_what_the_protocol_says():
    # model_name = 1; inputs = 5 {name = 1, datatype = 2, shape = 3}; raw_input_contents = 7, each with its length.
    names, rest = (b"prompt", b"completion"), b"\x12\x05BYTES\x1a\x02\x01\x01"
    tensors = [b"\x0a" + bytes([len(name)]) + name + rest for name in names]
    contents = [len(text).to_bytes(4, "little") + text for text in (b"a?", "é".encode())]
    expected = b"\x0a\x06reward"
    expected += b"".join(b"\x2a" + bytes([len(one)]) + one for one in tensors)
    expected += b"".join(b"\x3a" + bytes([len(one)]) + one for one in contents)
    assert kserve.infer_request(("a?", "é")) == expected
    assert kserve.infer_score(b"\x0a\x06reward\x32\x04\x00\x00\xc0\x3f") == 1.5


@pytest.mark.parametrize("kind", ["pair", "join"])
def test_peers_score_what_we_score(kind, tmp_path, monkeypatch):
    pairs = simulated()[:20]
    corpus = [text for pair in pairs for text in pair]
    source = make_encoder(tmp_path / "encoder", corpus=corpus, tiny=True)
    served = export(source, tmp_path / "served", overrides={"template_kind": kind}).path
    for name, value in ((scorer.MODEL, served), (scorer.THREADS, 1)):
        monkeypatch.setenv(name, str(value))
    rendered = Renderer.from_folder(served, load_manifest(served).manifest).render_pairs(pairs)
    assert scorer.Scorer().score(pairs) == pytest.approx(Offline(served).score(rendered, 4), abs=1e-5)
