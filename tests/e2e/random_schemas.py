"""Random JSON schemas whose documents are short: nothing in them repeats without a bound."""

import random

KEYS = [
    "name",
    "id",
    "年龄",
    "诗",
    "a b",
    "x-y",
    'quo"te',
    "emoji😀",
    "ключ",
    "\\",
    "é",
    "items",
    "$",
    "",
]
WORDS = ["山", "水", "spring", "", "a\nb", '"', "\\u0041", "0", "李白", "tab\t", "😀", "null"]
PATTERNS = [
    "^[a-z]{2,5}$", "^[0-9]{3}-[0-9]{4}$", "^(山|水|风|月){1,4}$", "^[A-Z][a-z]{0,6}$", "^\\d{1,3}%$",
    "^(red|green|blue)$", "^[一-龥]{2,4}$", "^v[0-9]+(\\.[0-9]{1,2}){0,2}$", "^.{1,6}$",
]  # fmt: skip
FORMATS = ["date", "time", "date-time", "uuid", "ipv4"]


class RandomSchemas:
    def __init__(self, seed):
        self.draw = random.Random(seed)

    def schema(self):
        """An object or an array, mostly; now and then anything."""
        kind = self.draw.random()
        depth = self.draw.randint(1, 3)
        if kind < 0.2:
            return self.object(depth) | {"$defs": {"d": self.any(1)}} | self.referring()
        if kind < 0.7:
            return self.object(depth)
        if kind < 0.85:
            return self.array(depth)
        return self.any(depth)

    def any(self, depth):
        leaves = [self.string, self.integer, self.number, self.enum, self.const, self.simple]
        if depth == 0:
            return self.draw.choice(leaves)()
        nodes = [lambda: self.object(depth), lambda: self.array(depth), lambda: self.any_of(depth)]
        nodes += [lambda: self.tuple(depth), lambda: self.all_of(depth)]
        return self.draw.choice(leaves + nodes + nodes)()

    def object(self, depth):
        keys = self.draw.sample(KEYS, self.draw.randint(0, 4))
        schema = {"type": "object", "properties": {key: self.any(depth - 1) for key in keys}}
        required = [key for key in keys if self.draw.random() < 0.7]
        if required or self.draw.random() < 0.3:
            schema["required"] = required
        schema["additionalProperties"] = False
        return schema

    def array(self, depth):
        low = self.draw.randint(0, 2)
        high = low + self.draw.randint(0, 2)
        return {"type": "array", "items": self.any(depth - 1), "minItems": low, "maxItems": high}

    def tuple(self, depth):
        items = [self.any(depth - 1) for _ in range(self.draw.randint(1, 3))]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}

    def any_of(self, depth):
        return {"anyOf": [self.any(depth - 1) for _ in range(self.draw.randint(1, 3))]}

    def referring(self):
        """Properties of the root that are defined elsewhere in it."""
        keys = self.draw.sample(KEYS, 2)
        return {"properties": {key: {"$ref": "#/$defs/d"} for key in keys}, "required": keys[:1]}

    def all_of(self, depth):
        return {"allOf": [self.object(depth)]}

    def string(self):
        kind = self.draw.random()
        if kind < 0.35:
            return {"type": "string", "pattern": self.draw.choice(PATTERNS)}
        if kind < 0.45:
            return {"type": "string", "format": self.draw.choice(FORMATS)}
        low = self.draw.randint(0, 4)
        return {"type": "string", "minLength": low, "maxLength": low + self.draw.randint(0, 8)}

    def integer(self):
        low = self.draw.choice([-1000, -7, 0, 1, 12, 99, 123456])
        high = low + self.draw.choice([0, 1, 9, 100, 12345])
        schema = {"type": "integer", "minimum": low, "maximum": high}
        if self.draw.random() < 0.2:
            schema |= {"minimum": 0, "maximum": 300, "multipleOf": self.draw.choice([2, 3, 5, 10])}
        return schema

    def number(self):
        low = self.draw.choice([-99.5, -1, 0, 0.25, 3, 1000])
        high = low + self.draw.choice([0.5, 1, 10, 250.75])
        if self.draw.random() < 0.5:
            return {"type": "number", "minimum": low, "maximum": high}
        return {"type": "number", "exclusiveMinimum": low, "exclusiveMaximum": high}

    def enum(self):
        values = [*WORDS, 0, -1, 2.5, True, None, [], {"k": [1, "山"]}]
        return {"enum": self.draw.sample(values, self.draw.randint(1, 5))}

    def const(self):
        return {"const": self.draw.choice([*WORDS, 7, False, None, [1, {"山": "水"}]])}

    def simple(self):
        return {"type": self.draw.choice(["boolean", "null", ["boolean", "null"]])}
