"""Publishing, measured in small: through a real policy server."""

from benchmarks.publish.__main__ import PARTS
from tests.benchmarks.quick import check_measured, quick_run


def test_the_bandwidth_of_a_publication_is_measured(tmp_path):
    found = quick_run(PARTS, tmp_path, "bandwidth")
    check_measured(found, "publish/bandwidth")
    beside = found["publish/bandwidth"]["beside"]
    assert min(beside[name] for name in ("MB", "bare, MB/s", "publish, MB/s")) > 0
