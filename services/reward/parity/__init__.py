"""The parity gate: before a model is served, a text must score the same alone and in any company."""

from services.reward.parity.check import Parity, check_parity
from services.reward.parity.probing import ParityError
from services.reward.parity.strict import prove_strict

__all__ = ["Parity", "ParityError", "check_parity", "prove_strict"]
