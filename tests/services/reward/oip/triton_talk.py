"""Runs where `tritonclient` is installed, unmodified: `triton_talk.py TARGET`; prints as JSON what it was told.

The service's own message classes are imported beside it: both must live in one process.
"""

import json
import sys

import numpy as np
import tritonclient.grpc as triton
from google.protobuf.descriptor import FieldDescriptor
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from palate.oip.messages import SERVICE

MODEL = "chatty"
PAIRS = [("Is the plan honest?", "It is an honest plan."), ("What comes before?", "The costs come before customers.")]
TALKS = [[{"role": "user", "content": p}, {"role": "assistant", "content": c}] for p, c in PAIRS]


def given(name, values, datatype="BYTES"):
    array = np.array(values, dtype=object if datatype == "BYTES" else np.int64)
    array = array if array.ndim == 2 else array.reshape(-1, 1)
    tensor = triton.InferInput(name, array.shape, datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def texts(pairs):
    prompts, completions = zip(*pairs, strict=True)
    return [given("PROMPT", prompts), given("RESPONSE", completions)]


def column(result, name):
    return result.as_numpy(name).reshape(-1).tolist()


def refused(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except InferenceServerException as error:
        return error.status()
    return "OK"


def talk(client):
    """What every kind of call says."""
    plain = client.infer(MODEL, texts(PAIRS), request_id="seven")
    urgent = client.infer(MODEL, texts(PAIRS), priority=1, timeout=20_000_000, client_timeout=20)
    chat = client.infer(MODEL, [given("MESSAGES", [json.dumps(talk) for talk in TALKS])])
    wanted = [triton.InferRequestedOutput("REWARD")]
    partial = client.infer(MODEL, texts([*PAIRS, ("p", "")]), outputs=wanted, parameters={"partial": True})
    digest = plain.get_response().parameters["tokenizer_digest"].string_param
    ids = [given("INPUT_IDS", [[5, 6, 7], [8, 9, 0]], "INT64"), given("SEQUENCE_LENGTH", [3, 2], "INT64")]
    tokens = client.infer(MODEL, ids, parameters={"tokenizer_digest": digest, "truncation": "reject"})
    metadata = client.get_model_metadata(MODEL)
    return {
        "ready": [client.is_server_live(), client.is_server_ready(), client.is_model_ready(MODEL)],
        "absent ready": client.is_model_ready("nobody"),
        "server": client.get_server_metadata().name,
        "inputs": {each.name: each.datatype for each in metadata.inputs},
        "versions": list(metadata.versions),
        "id": plain.get_response().id,
        "version": plain.get_response().model_version,
        "type": str(plain.as_numpy("REWARD").dtype),
        "texts": column(plain, "REWARD"),
        "urgent": column(urgent, "REWARD"),
        "chat": column(chat, "REWARD"),
        "ids": column(tokens, "REWARD"),
        "tokens": column(tokens, "TOKENS"),
        "partial": [None if np.isnan(score) else score for score in column(partial, "REWARD")],
        "status": column(partial, "STATUS"),
        "errors": [text.decode() for text in column(client.infer(MODEL, texts(PAIRS)), "ERROR")],
        "refused": {
            "failed item": refused(client.infer, MODEL, texts([("p", "")])),
            "model": refused(client.infer, "nobody", texts(PAIRS)),
            "version": refused(client.infer, MODEL, texts(PAIRS), model_version="1"),
            "late": refused(client.infer, MODEL, texts(PAIRS), timeout=1),
            "extension": refused(client.get_model_config, MODEL),
        },
    }


def strange_fields():
    """Fields of the protocol as we have it that tritonclient has otherwise, or not at all."""
    theirs, ours = service_pb2.DESCRIPTOR, SERVICE.file
    found = []
    for name, message in ours.message_types_by_name.items():
        found += differences(message, theirs.message_types_by_name[name])
    return found


def differences(ours, theirs):
    found = []
    for field in ours.fields:
        other = theirs.fields_by_name.get(field.name)
        if other is None or kind(field) != kind(other):
            found.append(field.full_name)
    for name, nested in ours.nested_types_by_name.items():
        found += differences(nested, theirs.nested_types_by_name[name])
    return found


def kind(field):
    message = field.message_type.full_name if field.type == FieldDescriptor.TYPE_MESSAGE else ""
    oneof = field.containing_oneof.name if field.containing_oneof else ""
    return field.number, field.type, field.is_repeated, message, oneof


if __name__ == "__main__":
    with triton.InferenceServerClient(sys.argv[1]) as client:
        print(json.dumps({**talk(client), "strange fields": strange_fields()}))
