"""Who may call what: every RPC of the contract and the roles that may, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from services.runtime.errors import PermissionDenied


class Role(StrEnum):
    """What an identity is for."""

    SCORER = "scorer"
    EXPEDITER = "expediter"
    GENERATOR = "generator"
    TRAINER = "trainer"
    ADMIN = "admin"


_SCORING = frozenset({Role.SCORER, Role.EXPEDITER, Role.TRAINER, Role.ADMIN})
_SAMPLING = frozenset({Role.GENERATOR, Role.TRAINER, Role.ADMIN})
_PUBLISHING = frozenset({Role.TRAINER, Role.ADMIN})
_ADMINISTRATION = frozenset({Role.ADMIN})
ANY = frozenset(Role)

ABOVE_NORMAL = frozenset({Role.EXPEDITER, Role.ADMIN})
"""Who may ask for a priority above normal; such work goes before everybody else's, and is shared among such callers."""

TABLE: Mapping[str, frozenset[Role]] = {
    "/palate.v1.RewardService/Score": _SCORING,
    "/palate.v1.RewardService/ScoreStream": _SCORING,
    "/palate.v1.RewardService/Compare": _SCORING,
    "/palate.v1.RewardService/Rank": _SCORING,
    "/palate.v1.RewardService/Explain": _SCORING,
    "/palate.v1.RewardService/GetModelInfo": _SCORING,
    "/palate.v1.RewardService/ListModels": _SCORING,
    "/palate.v1.AdminService/LoadModel": _ADMINISTRATION,
    "/palate.v1.AdminService/UnloadModel": _ADMINISTRATION,
    "/palate.v1.AdminService/SetDefaultModel": _ADMINISTRATION,
    "/palate.v1.PolicyService/Generate": _SAMPLING,
    "/palate.v1.PolicyService/ComputeLogprobs": _SAMPLING,
    "/palate.v1.PolicyService/GetPolicyInfo": _SAMPLING,
    "/palate.v1.PolicyService/AcquirePublisher": _PUBLISHING,
    "/palate.v1.PolicyService/StageWeights": _PUBLISHING,
    "/palate.v1.PolicyService/CommitWeights": _PUBLISHING,
    "/palate.v1.PolicyService/RevertWeights": _PUBLISHING,
    "/palate.v1.PolicyService/AbortWeights": _PUBLISHING,
    "/inference.GRPCInferenceService/ServerMetadata": ANY,
    "/inference.GRPCInferenceService/ModelMetadata": ANY,
    "/inference.GRPCInferenceService/ModelInfer": _SCORING,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": ANY,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": ANY,
}
"""What is not here is for nobody, but for health, which is open to everyone: `grpc.health.v1`, and what follows."""

OPEN = frozenset(
    {
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
        "/inference.GRPCInferenceService/ModelReady",
    }
)
"""Another protocol's health: answered whoever asks, and whether or not the server takes other calls."""


def check_roles(name: str, held: frozenset[Role], allowed: frozenset[Role], act: str, remedy: str = "") -> None:
    """Whether somebody may do something.

    Args:
        name: Who.
        held: His roles.
        allowed: Those that may.
        act: What he wants to do.
        remedy: What he can do without the role.

    Raises:
        PermissionDenied: None of his roles may; the message names those that do, and the remedy.
    """
    if not held & allowed:
        roles = ", ".join(sorted(allowed)) or "nobody"
        raise PermissionDenied(f"{name} may not {act}; it is for: {roles}{remedy and f'. {remedy}'}")
