#!/usr/bin/env python3
"""Writes a component of a checkpoint with our tensor names from weights that have others.

    convert.py --map maps/ernie_vilg.json --config config.json --to FOLDER WEIGHTS... [--dry-run]

WEIGHTS are .pdparams (Paddle) or .safetensors files. The map says what each tensor is called here;
it is meant to be edited. First comes a report: what is missing, what nobody asked for, which shapes
do not fit, and which tensors are not finite in the type to write; --dry-run ends with it. Nothing is
written unless every tensor of the layout is there in its shape and finite; what the map does not know
is an error, too, unless --allow-unexpected. Without --dtype tensors keep the types that they have.

Exit status: 0 written (or, in a dry run, would be), 1 the report has faults, 2 a file cannot be read.
Needs numpy, ml_dtypes and safetensors.
"""

import argparse
import json
import pathlib
import shutil
import sys

import ml_dtypes
import numpy
import safetensors.numpy

import layouts
import rules
import sources

DTYPES = {"float32": numpy.float32, "float16": numpy.float16, "bfloat16": ml_dtypes.bfloat16}


def drop_tied(tied, result):
    """Takes the copy of a tied matrix away. A line if it is none: then the config is wrong."""
    if tied is None or tied[0] not in result.tensors:
        return []
    copy, original = (result.tensors.get(name) for name in tied)
    if original is None:
        return []  # that it is missing is reported anyway
    if not any(numpy.array_equal(one, original) for one in (copy, copy.T)):
        return [
            f"differs: {tied[0]} (from {result.origin[tied[0]]}) and {tied[1]}: "
            "tie_word_embeddings must be false"
        ]
    del result.tensors[tied[0]]
    result.dropped[result.origin[tied[0]]] = f"tied: it is {tied[1]}"
    return []


def cast(tensor, dtype):
    """As `dtype`; by default as it is."""
    with numpy.errstate(over="ignore"):
        return tensor if dtype is None else tensor.astype(DTYPES[dtype])


def unfit_values(expected, result, dtype):
    """Lines about tensors that cannot be stored as they are to be."""
    lines = []
    for name in expected:
        if name not in result.tensors:
            continue
        tensor, origin = result.tensors[name], result.origin[name]
        if dtype is None and tensor.dtype not in map(numpy.dtype, DTYPES.values()):
            lines.append(f"type: {name} is {tensor.dtype} (from {origin}): --dtype is needed")
            continue
        if not numpy.isfinite(tensor).all():
            lines.append(f"not finite: {name} (from {origin})")
        elif not numpy.isfinite(cast(tensor, dtype)).all():
            largest = numpy.abs(tensor.astype(numpy.float64)).max()
            lines.append(
                f"not finite: {name} (from {origin}) as {dtype}, its largest value is {largest:g}"
            )
    return lines


def report(expected, result):
    """Lines about everything that does not fit, and whether the layout is complete."""
    shapes = {name: tuple(tensor.shape) for name, tensor in result.tensors.items()}
    missing = [
        f"missing: {name} {list(shape)}" for name, shape in expected.items() if name not in shapes
    ]
    misfits = [
        f"shape: {name} is {list(shapes[name])} (from {result.origin[name]}), {list(shape)} expected"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    unexpected = [f"unexpected: {name} {list(shape)}" for name, shape in result.unmapped.items()]
    unexpected += [
        f"unexpected: {name} (from {result.origin[name]}) is not in this layout"
        for name in shapes
        if name not in expected
    ]
    return missing + misfits, unexpected


def convert(arguments):
    config = json.loads(arguments.config.read_text())
    expected = layouts.expected_tensors(config)
    mapping = rules.read(arguments.map)
    result = rules.apply(mapping, sources.read_all(arguments.weights), config)
    differing = drop_tied(layouts.tied_tensors(config), result)
    faults, unexpected = report(expected, result)
    faults += differing + unfit_values(expected, result, arguments.dtype)
    dropped = [f"dropped: {name}: {reason}" for name, reason in result.dropped.items()]
    for line in [*faults, *unexpected, *dropped]:
        print(line)
    print(
        f"{len(expected)} tensors in the layout, {len(faults)} missing or unfit, "
        f"{len(unexpected)} unexpected, {len(dropped)} dropped"
    )
    if faults or (unexpected and not arguments.allow_unexpected):
        return 1
    if not arguments.dry_run:
        arguments.to.mkdir(parents=True, exist_ok=True)
        tensors = {
            name: numpy.ascontiguousarray(cast(result.tensors[name], arguments.dtype))
            for name in expected
        }
        safetensors.numpy.save_file(tensors, arguments.to / "model.safetensors")
        if arguments.config.resolve() != (arguments.to / "config.json").resolve():
            shutil.copy(arguments.config, arguments.to / "config.json")
        print(f"written: {arguments.to / 'model.safetensors'}")
    return 0


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", nargs="+", type=pathlib.Path)
    parser.add_argument("--map", required=True, type=pathlib.Path, help="rules of names")
    parser.add_argument("--config", required=True, type=pathlib.Path, help="of the layout")
    parser.add_argument("--to", type=pathlib.Path, default=pathlib.Path("."), help="folder")
    parser.add_argument("--dtype", choices=DTYPES, help="to write; by default as they are")
    parser.add_argument("--dry-run", action="store_true", help="report only")
    parser.add_argument("--allow-unexpected", action="store_true", help="leave them out")
    try:
        return convert(parser.parse_args(argv))
    except (OSError, ValueError) as error:
        print(f"convert.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
