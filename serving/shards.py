"""Safetensors files, written as their data come: no more in memory than a piece of a tensor.

The library's own writer wants all of a file's tensors at once. The format is simple: the length of
a header, the header (JSON: what lies where), the data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from serving.tensors import Tensor
from serving.weights_listing import INDEX

if TYPE_CHECKING:
    import torch

SHARD_BYTES = 500_000_000  # small, so that a server that loads them can show how far it is
ALIGNMENT = 8

Group = Sequence[Tensor]  # tensors that come in one go and stay in one file


def write_shards(
    folder: Path,
    groups: Sequence[Group],
    data: Callable[[int], Iterable[torch.Tensor]],
    count: Callable[[int], None],
) -> None:
    """Write the tensors of all groups into `folder`, and an index where it takes several files.

    `data(n)` gives the values of group n, one tensor behind the other, in pieces that have their
    final type already. `count` is told of bytes as they are written.
    """
    shards = list(_shards(groups))
    names = [_name(number, len(shards)) for number in range(1, len(shards) + 1)]
    for name, numbers in zip(names, shards, strict=True):
        with (folder / name).open("wb") as file:
            file.write(_header([tensor for number in numbers for tensor in groups[number]]))
            for piece in (piece for number in numbers for piece in data(number)):
                count(file.write(_bytes(piece)))
    if len(shards) > 1:
        _write_index(
            folder,
            {
                name: [groups[number] for number in numbers]
                for name, numbers in zip(names, shards, strict=True)
            },
        )


def _shards(groups: Sequence[Group]) -> Iterator[list[int]]:
    """The groups' numbers, file by file."""
    numbers: list[int] = []
    total = 0
    for number, group in enumerate(groups):
        size = sum(tensor.size for tensor in group)
        if numbers and total + size > SHARD_BYTES:
            yield numbers
            numbers, total = [], 0
        numbers.append(number)
        total += size
    yield numbers


def _name(number: int, of: int) -> str:
    return "model.safetensors" if of == 1 else f"model-{number:05d}-of-{of:05d}.safetensors"


def _header(tensors: Iterable[Tensor]) -> bytes:
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in tensors:
        offsets = [at, at + tensor.size]
        table[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": offsets,
        }
        at = offsets[1]
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _bytes(piece: torch.Tensor) -> memoryview:
    import torch

    return piece.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _write_index(folder: Path, shards: dict[str, list[Group]]) -> None:
    tensors = [(tensor, name) for name, groups in shards.items() for g in groups for tensor in g]
    index = {
        "metadata": {"total_size": sum(tensor.size for tensor, _ in tensors)},
        "weight_map": {tensor.name: name for tensor, name in tensors},
    }
    (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
