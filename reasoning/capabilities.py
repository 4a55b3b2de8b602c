"""What a server takes of what it may be asked for, as far as it was seen. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Format = Literal["json_schema", "json_object", "text"]
FORMATS: tuple[Format, ...] = get_args(Format)  # the strictest first


def weaker(one: Format, other: Format) -> Format:
    return max(one, other, key=FORMATS.index)


@dataclass(slots=True)
class Capabilities:
    """`format` is the strictest response format that the server is known to take.

    `goes_on` is False once it was seen not to go on from a message of the model's.
    """

    format: Format = FORMATS[0]
    goes_on: bool = True

    def fell_back_to(self, format: Format) -> None:
        """A reply came in this format, where a stricter one was refused."""
        self.format = weaker(self.format, format)

    def refused_to_go_on(self) -> None:
        """A reply came to words of ours, where going on was refused."""
        self.goes_on = False
