"""Maps of tensor names.

A map is {"rules": [...]}; the first rule whose "from" fits a tensor's name counts. `{n}` in it stands
for a number, any other `{word}` for a part of a name without dots. A rule has one of

    "to": "name"                  the new name, with the same words
    "to": ["a", "b"], "split": d  one tensor that is several, in equal parts along dimension d
    "drop": true                  not wanted, for the "reason"

and may have

    "transpose": true             the matrix lies the other way around (before splitting): Paddle keeps
                                  a linear layer's weight as [in, out], these layouts as [out, in]
    "squeeze": true               a convolution of 1 x 1 that is a matrix
    "mirror": "key"               {n} counts from the other end of that list in config.json
"""

import dataclasses
import json
import re

import numpy

_WORD = re.compile(r"\{(\w+)\}")
_KEYS = {"from", "to", "split", "transpose", "squeeze", "mirror", "drop", "reason"}


@dataclasses.dataclass(frozen=True)
class Rule:
    pattern: re.Pattern
    to: tuple
    split: int | None
    transpose: bool
    squeeze: bool
    mirror: str | None
    reason: str

    @property
    def drops(self):
        return not self.to


@dataclasses.dataclass
class Result:
    tensors: dict = dataclasses.field(default_factory=dict)
    origin: dict = dataclasses.field(default_factory=dict)  # new name -> old name
    unmapped: dict = dataclasses.field(default_factory=dict)  # old name -> shape
    dropped: dict = dataclasses.field(default_factory=dict)  # old name -> reason


def _pattern(template):
    def group(word):
        return f"(?P<{word}>\\d+)" if word == "n" else f"(?P<{word}>[^.]+)"

    pieces = _WORD.split(template)
    fixed, words = pieces[::2], pieces[1::2]
    found = re.escape(fixed[0])
    for word, after in zip(words, fixed[1:], strict=True):
        found += group(word) + re.escape(after)
    return re.compile(found)


def _rule(entry, where):
    unknown = set(entry) - _KEYS
    if unknown:
        raise ValueError(
            f"{where}: {sorted(unknown)[0]}: one of {', '.join(sorted(_KEYS))} expected"
        )
    if not isinstance(entry.get("from"), str):
        raise ValueError(f"{where}: from: a name expected")
    to = entry.get("to", [])
    to = (to,) if isinstance(to, str) else tuple(to)
    if bool(to) == bool(entry.get("drop")):
        raise ValueError(f"{where}: either to or drop expected")
    if (len(to) > 1) != ("split" in entry):
        raise ValueError(f"{where}: split: expected where to has several names, and only there")
    known = set(_WORD.findall(entry["from"]))
    for name in to:
        if not set(_WORD.findall(name)) <= known:
            raise ValueError(f"{where}: to: {name} has words that from lacks")
    if "mirror" in entry and "n" not in known:
        raise ValueError(f"{where}: mirror: from has no {{n}}")
    return Rule(
        _pattern(entry["from"]),
        to,
        entry.get("split"),
        bool(entry.get("transpose")),
        bool(entry.get("squeeze")),
        entry.get("mirror"),
        entry.get("reason", ""),
    )


def read(path):
    try:
        entries = json.loads(path.read_text())["rules"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: an object with rules expected: {error}") from error
    return [_rule(entry, f"{path}: rule {i}") for i, entry in enumerate(entries, 1)]


def _parts(rule, name, array):
    if rule.squeeze:
        if array.shape[2:] != (1, 1):
            raise ValueError(f"{name}: a convolution of 1 x 1 expected, it is {list(array.shape)}")
        array = array[:, :, 0, 0]
    if rule.transpose:
        if array.ndim != 2:
            raise ValueError(f"{name}: only a matrix can be transposed, it is {list(array.shape)}")
        array = array.T
    if rule.split is None:
        return [array]
    if not 0 <= rule.split < array.ndim or array.shape[rule.split] % len(rule.to):
        raise ValueError(
            f"{name}: {list(array.shape)} has no {len(rule.to)} equal parts along {rule.split}"
        )
    return numpy.split(array, len(rule.to), axis=rule.split)


def _words(rule, name, match, config):
    words = match.groupdict()
    if rule.mirror:
        if not isinstance(config.get(rule.mirror), list):
            raise ValueError(f"config: {rule.mirror}: a list expected")
        place = len(config[rule.mirror]) - 1 - int(words["n"])
        if place < 0:
            raise ValueError(f"{name}: {rule.mirror} of the config has fewer elements")
        words["n"] = str(place)
    return words


def apply(mapping, tensors, config):
    result = Result()
    for name, array in tensors.items():
        matches = ((rule, rule.pattern.fullmatch(name)) for rule in mapping)
        rule, match = next(((r, m) for r, m in matches if m), (None, None))
        if rule is None:
            result.unmapped[name] = tuple(array.shape)
            continue
        if rule.drops:
            result.dropped[name] = rule.reason
            continue
        words = _words(rule, name, match, config)
        for template, part in zip(rule.to, _parts(rule, name, array), strict=True):
            new = template.format(**words)
            if new in result.tensors:
                raise ValueError(f"{name}: {new} comes from {result.origin[new]}, too")
            result.tensors[new] = part
            result.origin[new] = name
    return result
