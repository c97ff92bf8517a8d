"""Weights as published elsewhere: name -> numpy array. Reading runs nothing that a file contains."""

import collections
import pickle

import ml_dtypes
import numpy
import safetensors.numpy


class _ArraysOnly(pickle.Unpickler):
    """What paddle.save writes: dicts of numpy arrays. Everything else is refused."""

    ALLOWED = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("numpy", "dtype"): numpy.dtype,
        ("numpy", "ndarray"): numpy.ndarray,
        ("_codecs", "encode"): lambda text, encoding: text.encode(encoding),
    }
    RECONSTRUCT = ("numpy.core.multiarray", "numpy._core.multiarray")

    def find_class(self, module, name):
        if module in self.RECONSTRUCT and name == "_reconstruct":
            return _reconstruct
        if (module, name) in self.ALLOWED:
            return self.ALLOWED[module, name]
        raise ValueError(f"{module}.{name} in a pickle: only numpy arrays are read")


def _reconstruct(kind, shape, typecode):
    if kind is not numpy.ndarray:
        raise ValueError(f"{kind} in a pickle: only numpy arrays are read")
    return numpy.ndarray.__new__(kind, shape, typecode)


def _array(value):
    """A tensor: the array, or Paddle's pair of its name and the array; None for anything else."""
    if isinstance(value, tuple) and len(value) == 2:
        value = value[1]
    if not isinstance(value, numpy.ndarray) or value.dtype == object:
        return None
    # Paddle has no numpy type for bfloat16 and writes its bits.
    return value.view(ml_dtypes.bfloat16) if value.dtype == numpy.uint16 else value


def read_paddle(path):
    with path.open("rb") as file:
        try:
            state = _ArraysOnly(file).load()
        except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, TypeError) as error:
            raise ValueError(f"{path}: no pickle of tensors: {error}") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path}: a dict of tensors expected")
    return {name: array for name, value in state.items() if (array := _array(value)) is not None}


def read_safetensors(path):
    try:
        return safetensors.numpy.load_file(path)
    except Exception as error:
        raise ValueError(f"{path}: {error}") from error


READERS = {".pdparams": read_paddle, ".safetensors": read_safetensors}


def read_all(paths):
    tensors = {}
    for path in paths:
        if path.suffix not in READERS:
            raise ValueError(f"{path}: one of {', '.join(READERS)} expected")
        for name, array in READERS[path.suffix](path).items():
            if name in tensors:
                raise ValueError(f"{path}: {name} is in an earlier file, too")
            tensors[name] = array
    return tensors
