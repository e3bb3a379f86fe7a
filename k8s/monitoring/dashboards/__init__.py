"""The dashboards, by the names of their files."""

from __future__ import annotations

from typing import Any

from k8s.monitoring.dashboards.board import Board, built
from k8s.monitoring.dashboards.capacity import CAPACITY
from k8s.monitoring.dashboards.overview import OVERVIEW
from k8s.monitoring.dashboards.policy import POLICY
from k8s.monitoring.dashboards.reward import REWARD
from k8s.monitoring.dashboards.training import TRAINING

BOARDS: tuple[Board, ...] = (OVERVIEW, REWARD, POLICY, TRAINING, CAPACITY)


def dashboards() -> dict[str, dict[str, Any]]:
    """Name → what Grafana imports."""
    return {board.name: built(board) for board in BOARDS}
