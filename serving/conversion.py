"""Weights made into another form: a bundle's GGUF file into safetensors, either into int8.

    python -m serving.conversion SOURCE FOLDER FORM

is the process of its own in which that happens, so that the memory torch takes is given back
before a server starts. SOURCE is a GGUF file or a folder of safetensors, FORM `bfloat16` or `int8`.
It writes how many bytes are done, a line each time, and the reason it fails as its last line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any

from serving.catalogue import ROOT
from serving.progress import Progress
from serving.quantise import (
    CONFIG,
    INT8,
    has_head,
    int8_data,
    int8_form,
    int8_source,
    quantised_config,
)
from serving.report import Report
from serving.shards import write_shards
from serving.tensors import Gguf, Safetensors, Source, Tensor
from serving.weights_errors import Unprepared, WeightsError
from serving.weights_files import MANIFEST
from serving.weights_listing import INDEX

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "transformers", "gguf")
QUIET = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}
QUIET |= {"TRANSFORMERS_VERBOSITY": "error"}


def check_packages() -> None:
    """Raises Unprepared where this Python cannot convert."""
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise Unprepared(
            f"Converting it needs {', '.join(missing)}, which this Python lacks.",
            "Run ./serve.sh once: it installs them.",
        )


def convert_apart(source: Path, folder: Path, form: str, size: int, report: Report) -> None:
    """Fill `folder` with the model of `source`, about `size` bytes. Raises Unprepared."""
    progress = Progress(size, report)
    argv = [sys.executable, "-m", "serving.conversion", str(source), str(folder), form]
    words = folder / ".words"
    with words.open("w+", errors="replace") as said:
        child = subprocess.Popen(
            argv, cwd=ROOT, env={**os.environ, **QUIET}, stdout=subprocess.PIPE, stderr=said
        )
        try:
            assert child.stdout is not None
            for line in child.stdout:
                progress.reach(int(line))
        finally:
            child.kill()  # of no effect once it has ended
        if child.wait():
            raise _failure(words)
    words.unlink()


def _failure(words: Path) -> WeightsError:
    lines = [line for line in words.read_text(errors="replace").splitlines() if line.strip()]
    said = lines[-1].strip() if lines else "it was killed, perhaps for want of memory"
    return Unprepared(f"The model could not be converted ({said}).", "Run it again.")


def convert(source: Path, folder: Path, form: str, tell: Callable[[int], None]) -> None:
    """Write the model of `source` into `folder` in that form; `tell` hears the bytes done."""
    if source.is_dir():
        model: Source = Safetensors(source)
        config = _take_over(source, folder)
    else:
        model, config = _from_gguf(source, folder)
    form_of: Form = _same
    if form == INT8:
        model, form_of = int8_source(model, config), partial(int8_form, head=has_head(config))
        config = quantised_config(config)
    (folder / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
    groups = [form_of(tensor) for tensor in model.tensors]
    write_shards(folder, groups, lambda n: _data(model, model.tensors[n], groups[n]), _Sum(tell))


class _Sum:
    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._done = 0

    def __call__(self, size: int) -> None:
        self._done += size
        self._tell(self._done)


Form = Callable[[Tensor], tuple[Tensor, ...]]


def _same(tensor: Tensor) -> tuple[Tensor, ...]:
    return (tensor,)


def _data(model: Source, tensor: Tensor, form: tuple[Tensor, ...]) -> Iterator[torch.Tensor]:
    """The values of what becomes of a tensor."""
    return int8_data(model, tensor) if len(form) > 1 else _typed(model, tensor)


def _typed(model: Source, tensor: Tensor) -> Iterator[torch.Tensor]:
    import torch

    kind = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[tensor.dtype]
    return (block.to(kind) for block in model.blocks(tensor))


def _take_over(source: Path, folder: Path) -> dict[str, Any]:
    """Copy what is no weight: tokenizer, chat template, licence. Gives the configuration."""
    for path in source.iterdir():
        weights = path.suffix == ".safetensors" or path.name in (INDEX, MANIFEST, CONFIG)
        if path.is_file() and not weights and not path.name.startswith("."):
            copyfile(path, folder / path.name)
    config: dict[str, Any] = json.loads((source / CONFIG).read_text(encoding="utf-8"))
    return config


def _from_gguf(file: Path, folder: Path) -> tuple[Source, dict[str, Any]]:
    """The tensors, and the configuration; the tokenizer is written into the folder."""
    import gguf
    import torch
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    # reading a file's metadata takes ten seconds, and all three below do it anew
    vars(gguf)["GGUFReader"] = cache(gguf.GGUFReader)
    model = Gguf(file)
    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    config.tie_word_embeddings = model.tied
    config.dtype = torch.bfloat16
    config.architectures = [type_name(config.model_type)]
    config.name_or_path = ""  # what the maker's tool happened to write into the file
    GenerationConfig.from_model_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    made: dict[str, Any] = json.loads(config.to_json_string())
    return model, made


def type_name(model_type: str) -> str:
    """The class that a configuration is for, as config.json names it."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type])


def main(source: str, folder: str, form: str) -> int:
    try:
        convert(Path(source), Path(folder), form, partial(print, flush=True))
    except (WeightsError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
