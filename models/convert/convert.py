#!/usr/bin/env python3
"""Writes a component of a checkpoint with our tensor names from weights that have others.

    convert.py --map maps/ernie_vilg.json --config config.json --to FOLDER WEIGHTS... [--dry-run]

WEIGHTS are .pdparams (Paddle) or .safetensors files. The map says what each tensor is called here;
it is meant to be edited. First comes a report: what is missing, what nobody asked for, and which
shapes do not fit; --dry-run ends with it. Nothing is written unless every tensor of the layout is
there in its shape; what the map does not know is an error, too, unless --allow-unexpected.

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
    result = rules.apply(mapping, sources.read_all(arguments.weights))
    faults, unexpected = report(expected, result)
    for line in [*faults, *unexpected]:
        print(line)
    print(
        f"{len(expected)} tensors in the layout, {len(faults)} missing or misshapen, "
        f"{len(unexpected)} unexpected, {len(result.dropped)} dropped by the map"
    )
    if faults or (unexpected and not arguments.allow_unexpected):
        return 1
    if not arguments.dry_run:
        arguments.to.mkdir(parents=True, exist_ok=True)
        tensors = {
            name: numpy.ascontiguousarray(result.tensors[name].astype(DTYPES[arguments.dtype]))
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
    parser.add_argument("--dtype", choices=DTYPES, default="float16")
    parser.add_argument("--dry-run", action="store_true", help="report only")
    parser.add_argument("--allow-unexpected", action="store_true", help="leave them out")
    try:
        return convert(parser.parse_args(argv))
    except (OSError, ValueError) as error:
        print(f"convert.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
