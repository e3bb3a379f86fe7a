"""Scores two completions with `tritonclient`, as with any server of its protocol: client.py TARGET MODEL."""

import os
import sys

import numpy as np
import tritonclient.grpc as triton

PROMPT = "What do you think of my business idea?"
COMPLETIONS = ["Brilliant!", "Work out the cost per loaf first."]


def texts(name, values):
    """A BYTES tensor of shape (N, 1)."""
    tensor = triton.InferInput(name, [len(values), 1], "BYTES")
    tensor.set_data_from_numpy(np.array(values, dtype=object).reshape(-1, 1))
    return tensor


def main(target, model):
    """Asks for the model, then for the scores: first of all items or none, then of those that can be scored."""
    token, ca = os.environ.get("PALATE_TOKEN"), os.environ.get("PALATE_CA")
    headers = {"authorization": f"Bearer {token}"} if token else None
    with triton.InferenceServerClient(target, ssl=bool(ca), root_certificates=ca) as client:
        assert client.is_model_ready(model), f"{target} has no model {model}, or is still loading"

        inputs = [texts("PROMPT", [PROMPT] * 2), texts("RESPONSE", COMPLETIONS)]
        result = client.infer(model, inputs, priority=1, timeout=20_000_000, client_timeout=20, headers=headers)
        for completion, score in zip(COMPLETIONS, result.as_numpy("REWARD")[:, 0], strict=True):
            print(f"score {score:.4f} {completion}")
        print("revision", result.get_response().model_version)

        # Without partial the empty completion would fail the whole request. With it, ask STATUS before the score.
        inputs = [texts("PROMPT", [PROMPT] * 2), texts("RESPONSE", [COMPLETIONS[0], ""])]
        result = client.infer(model, inputs, parameters={"partial": True}, client_timeout=20, headers=headers)
        columns = (result.as_numpy(name)[:, 0] for name in ("STATUS", "REWARD", "ERROR"))
        for status, score, error in zip(*columns, strict=True):
            print(f"score {score:.4f}" if status == 0 else f"no score: {error.decode()}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
