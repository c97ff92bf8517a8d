"""Names in place of the numbers of a protobuf enum."""

from enum import StrEnum
from typing import Any, TypeVar

E = TypeVar("E", bound=StrEnum)


def from_proto(kind: type[E], proto_kind: Any, number: int) -> E:
    """The member that the number's name ends with; UNSPECIFIED for those of a newer server."""
    prefix = proto_kind.Name(0).removesuffix("UNSPECIFIED")
    try:
        return kind[proto_kind.Name(number).removeprefix(prefix)]
    except (KeyError, ValueError):
        return kind["UNSPECIFIED"]
