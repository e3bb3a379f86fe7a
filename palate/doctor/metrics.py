"""Asks a server's Prometheus endpoint whether it is one, of the right service, and ready."""

from __future__ import annotations

import http.client
from urllib.request import urlopen

from palate.doctor.findings import Answer, Role, bad, good

CHECK = "metrics"
_MOST_BYTES = 16 * 2**20


def examine_metrics(host: str, port: int, role: Role, timeout: float) -> Answer:
    """What /metrics there shows."""
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        with urlopen(f"http://{place}/metrics", timeout=timeout) as reply:
            values = parsed(reply.read(_MOST_BYTES).decode("utf-8", "replace"))
    except http.client.HTTPException:
        return bad(
            CHECK, f"what listens at {place} does not speak HTTP", "Give the metrics port, not that of the calls"
        )
    except OSError as error:
        remedy = "Its --metrics-host is loopback by default: set it, and let the monitoring through network policies"
        return bad(CHECK, f"no answer from {place}: {getattr(error, 'reason', error)}", remedy)
    queue = f"palate_{'reward' if role is Role.REWARD else 'policy'}_queue_tokens"
    if "palate_ready" not in values or queue not in values:
        return bad(CHECK, f"{place} shows no {queue}", f"Another program is there: give the port of the {role} server")
    return good(CHECK, f"ready {values['palate_ready']:g}, {values[queue]:g} tokens wait")


def parsed(page: str) -> dict[str, float]:
    """Name → value of the samples without labels, in Prometheus' text format."""
    found = {}
    for line in page.splitlines():
        name, _, value = line.partition(" ")
        if name.startswith("palate_") and "{" not in name:
            found[name] = float(value.split()[0])
    return found
