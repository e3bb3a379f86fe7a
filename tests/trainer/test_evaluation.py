"""The distance of a policy to its reference, through real services."""

import pytest

from palate.client import PolicyClient, SamplingParams
from tests.servers import start_server
from tests.tiny_models import make_tiny_policy
from trainer.evaluation import mean_sequence_kl, sample


def test_kl_to_a_real_reference_policy(tmp_path):
    """A policy has no distance to itself, and some to another one."""
    same, other = (make_tiny_policy(tmp_path / str(seed), seed=seed) for seed in (0, 1))
    with (
        start_server("services.policy", same, "--frozen", "--threads", "1") as first,
        start_server("services.policy", other, "--frozen", "--threads", "1") as second,
        PolicyClient(first.target) as policy,
        PolicyClient(second.target) as ref,
    ):
        sampling = SamplingParams(temperature=0.7, max_new_tokens=12)
        completions = sample(policy, ["Once upon a time"] * 70, sampling, seed=3)  # more than one request
        assert mean_sequence_kl(completions, policy, 0.7) == pytest.approx(0.0, abs=1e-3)
        assert mean_sequence_kl(completions, ref, 0.7) > 1.0
