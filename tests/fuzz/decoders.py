"""Every decoder that is fuzzed, by name."""

from __future__ import annotations

from tests.fuzz import chat, files, policy, reward
from tests.fuzz.harness import Harness

HARNESSES: dict[str, Harness] = {
    harness.name: harness for module in (reward, policy, chat, files) for harness in module.harnesses()
}
