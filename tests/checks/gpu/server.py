"""A reward server there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from palate.client import RewardClient
from palate.local_server import local_server
from tests.checks.gpu.seen import Place, Seen, agreement, pairs
from tests.services.reward.references import open_folder, rows_of, scores_of


def reward_server(place: Place) -> Iterator[Seen]:
    """A served model passes its check at start there, and its scores arrive."""
    folder, given = place.served("encoder"), pairs(64)
    reference, renderer = open_folder(folder, "torch")
    expected = scores_of(reference, rows_of(renderer, given), 16)
    for dtype in ("float32", "bfloat16"):
        flags = ("--model", str(folder), "--engine", "torch", "--dtype", dtype, "--device", place.device)
        with local_server(["-m", "services.reward", *flags]) as server, RewardClient(server.target) as client:
            found = np.array(client.score(*zip(*given, strict=True)).scores())
        yield agreement(f"encoder served, {dtype}", expected, found, dtype)
