"""The client is light: what scores from another service must not bring a deep-learning framework along."""

import subprocess
import sys

HEAVY = (
    "torch",
    "transformers",
    "numpy",
    "pydantic",
    "tokenizers",
    "onnxruntime",
    "services",
    "trainer",
    "palate.models",
    "trl",
)


def test_importing_the_client_brings_nothing_heavy():
    adapters = ", ".join(f"palate.client.adapters.{name}" for name in ("trl", "verl", "openrlhf"))
    code = f"import sys, palate.client, {adapters}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
