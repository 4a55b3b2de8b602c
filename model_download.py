#!/usr/bin/env python3
"""Fetch a model once and print the folder it lies in.

    python model_download.py smollm2-135m-instruct
    python model_download.py llama-3.1-8b-instruct --source huggingface
    folder=$(python model_download.py Qwen/Qwen3-8B --to /data/models)

The folder is all that goes to stdout; what happens meanwhile goes to stderr. A
second call, and one after an interrupted call, costs only what is missing. No
decision is made here: the names are serving/catalogue.py's, the work is
serving/weights.py's.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from serving.catalogue import CatalogueError, Model, find, load, models_root
from serving.conversion import PACKAGES
from serving.quantise import BFLOAT16, INT8
from serving.report import Report
from serving.weights import SOURCES, WeightsError, fetch, present

HUB_CLIENTS = ("modelscope_hub", "huggingface_hub")
INTERRUPTED = 130  # what shells give for Ctrl-C


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Fetch a model once and print the folder it lies in.",
        epilog="./serve.sh --list shows the names. HF_TOKEN and MODELSCOPE_API_TOKEN open gated "
        "models. Run again after an interruption, it goes on where it stopped.",
    )
    parser.add_argument("name", help="a name of models.toml, a hub id (org/name) or a folder")
    parser.add_argument(
        "--source",
        choices=tuple(SOURCES),
        help="ask only this hub (default: ModelScope, then the other); a bundled model's first",
    )
    parser.add_argument(
        "--precision",
        choices=(BFLOAT16, INT8),
        default=BFLOAT16,
        help="int8: what a CPU with AVX-512 VNNI, AMX or i8mm decodes fastest, made here, once",
    )
    parser.add_argument(
        "--to",
        type=Path,
        metavar="DIR",
        help="the folder for models, each in one of its own (default: STEPWISE_MODELS, or models/)",
    )
    return parser


def main(argv: list[str]) -> int:
    flags = arguments().parse_args(argv)
    root = flags.to.expanduser().absolute() if flags.to else models_root()
    try:
        model = find(flags.name, load())
        _enter_environment(model, root, flags.precision)
        folder = fetch(model, root, flags.source, Report(sys.stderr), flags.precision)
    except (CatalogueError, WeightsError) as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        _say("Stopped. What has arrived is kept: run it again to go on.")
        return INTERRUPTED
    print(folder)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _enter_environment(model: Model, root: Path, precision: str) -> None:
    """Go on in the project's .venv where this Python lacks what the download needs."""
    converts = model.package or precision == INT8
    needed = (*PACKAGES, *HUB_CLIENTS) if converts else HUB_CLIENTS
    here = (model.folder and not converts) or present(model, root, precision)
    if here or all(find_spec(package) for package in needed):
        return

    from serving import hardware, setup

    try:
        python = setup.ensure(hardware.detect(), Report(sys.stderr))
    except setup.SetupError as error:
        raise WeightsError(str(error), "") from None
    if Path(sys.prefix).resolve() != setup.Place().folder.resolve():
        os.execv(python, [str(python), str(Path(__file__).resolve()), *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
