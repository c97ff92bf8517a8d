"""Calls of NVIDIA's client: tensors, and taking answers apart."""

import numpy as np
import pytest
from calls import LANDSCAPE, POEM
from observe import PATIENCE
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

PROMPT = POEM + "\n"
SMALL = {"width": 64, "height": 64, "steps": 4}
REASONS = ["unspecified", "eos", "stop", "length"]  # as FinishReason counts


def tensor(name, values, shape=None):
    """Strings become BYTES, the rest what NumPy calls it."""
    array = np.asarray(values)
    if array.dtype.kind in "US":
        array = np.array([str(value).encode() for value in array.flat], dtype=np.object_)
    array = array.reshape(shape or (-1,))
    one = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    one.set_data_from_numpy(array)
    return one


def wanted(*names):
    return [triton.InferRequestedOutput(name) for name in names]


def infer(client, model, inputs, **options):
    return client.infer(model, inputs, client_timeout=PATIENCE, **options)


def texts(result, name="text_output"):
    return [value.decode() for value in result.as_numpy(name).flat]


def token_ids(row):
    return [int(i) for i in row if i >= 0]


def refused(call, *arguments, **options):
    with pytest.raises(InferenceServerException) as error:
        call(*arguments, **options)
    return error.value


def endless():
    """A picture that takes far longer than a test."""
    return [tensor("prompt", [LANDSCAPE]), tensor("steps", [900]), tensor("width", [256])]
