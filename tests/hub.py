"""A small hub on loopback that speaks what the real clients of both hubs speak.

It serves files a test made, by the subset of Hugging Face's and ModelScope's
HTTP that huggingface_hub and modelscope use for listing and fetching, counts
the bytes of each file it sends, and misbehaves where it is told to.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PIECE = 1 << 16


def safetensors(size: int, seed: int = 0) -> bytes:
    """A valid safetensors file with one tensor of `size` bytes."""
    header = {"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    block = hashlib.sha256(str(seed).encode()).digest() * (PIECE // 32)
    data = (block * (size // PIECE + 1))[:size]
    return len(text).to_bytes(8, "little") + text + data


def model_files(shard_bytes: int = 100_000) -> dict[str, bytes]:
    """A repository as they are: two shards and an index, and what vLLM does not read."""
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index = {"weight_map": {"a": shards[0], "b": shards[1]}}
    return {
        "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": b"{}",
        "model.safetensors.index.json": json.dumps(index).encode(),
        shards[0]: safetensors(shard_bytes, 1),
        shards[1]: safetensors(shard_bytes, 2),
        "LICENSE": b"free",
        "README.md": b"# a model",
        ".gitattributes": b"*.safetensors filter=lfs",
        "original/consolidated.00.pth": b"pickle" * 100,
        "pytorch_model.bin": b"pickle" * 100,
        "figure.png": b"png",
    }


@dataclass
class Hub:
    """The files of every repository, and how it misbehaves. Any `org/name` is served."""

    files: dict[str, bytes] = field(default_factory=model_files)
    listed_only: list[str] = field(default_factory=list)  # names in the listing, no file behind
    sizes: dict[str, int] = field(default_factory=dict)  # what the listing says instead
    symlinks: set[str] = field(default_factory=set)
    flipped: set[str] = field(default_factory=set)  # one byte is wrong in what is sent
    cuts: Counter[str] = field(default_factory=Counter)  # how many more answers break half-way
    stalls: dict[str, int] = field(default_factory=dict)  # after so many bytes nothing more comes
    listing_status: tuple[int, str] = (200, "")  # status and Hugging Face's X-Error-Code
    file_status: tuple[int, str] = (200, "")
    token: str | None = None  # with it, both statuses are 200 again
    html: bool = False  # a captive portal
    sent: Counter[str] = field(default_factory=Counter)
    requests: list[str] = field(default_factory=list)
    url: str = ""

    @contextmanager
    def serve(self) -> Iterator[Hub]:
        server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    def huggingface_listing(self, repo: str) -> dict[str, Any]:
        siblings = [_sibling(name, data) for name, data in self.files.items()]
        for sibling in siblings:
            sibling["size"] = self.sizes.get(sibling["rfilename"], sibling["size"])
        siblings += [_sibling(name, b"x") for name in self.listed_only]
        return {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "tags": []}

    def huggingface_tree(self) -> list[dict[str, Any]]:
        siblings = [_sibling(name, data) for name, data in self.files.items()]
        return [_tree_entry(sibling) for sibling in siblings]

    def modelscope_listing(self) -> dict[str, Any]:
        entries = [self._entry(name, data) for name, data in self.files.items()]
        entries += [self._entry(name, b"x") for name in self.listed_only]
        entries.append({"Path": "original", "Type": "tree", "Size": 0, "Mode": "16384"})
        return {"Code": 200, "Success": True, "Data": {"Files": entries}}

    def _entry(self, name: str, data: bytes) -> dict[str, Any]:
        return {
            "Path": name,
            "Name": name.rsplit("/", maxsplit=1)[-1],
            "Type": "blob",
            "Mode": "40960" if name in self.symlinks else "33188",
            "Size": self.sizes.get(name, len(data)),
            "Sha256": hashlib.sha256(data).hexdigest(),
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no news; anything else is a fault of this hub."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _sibling(name: str, data: bytes) -> dict[str, Any]:
    git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git}
    if name.endswith((".safetensors", ".bin", ".pth")):
        sha256 = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 130}
    return entry


def _tree_entry(sibling: dict[str, Any]) -> dict[str, Any]:
    entry = {"type": "file", "path": sibling["rfilename"], "size": sibling["size"]}
    entry["oid"] = sibling["blobId"]
    if lfs := sibling.get("lfs"):
        entry["lfs"] = {"oid": lfs["sha256"], "size": lfs["size"], "pointerSize": 130}
    return entry


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            hub.requests.append(self.path)
            split = urlsplit(self.path)
            parts = [unquote(part) for part in split.path.strip("/").split("/")]
            query = parse_qs(split.query)
            if hub.html:
                self._answer(200, b"<html>Please log in</html>", {"Content-Type": "text/html"})
            elif parts[:3] == ["api", "v1", "models"] and parts[5:] == ["repo", "files"]:
                self._listing(hub.modelscope_listing())
            elif parts[:3] == ["api", "v1", "models"] and parts[5:] == ["repo"]:
                self._file(query["FilePath"][0])
            elif parts[:2] == ["api", "models"] and parts[4:5] == ["tree"]:
                self._listing(hub.huggingface_tree())
            elif parts[:2] == ["api", "models"]:
                self._listing(hub.huggingface_listing("/".join(parts[2:4])))
            elif parts[2:3] == ["resolve"] and "/".join(parts[4:]).endswith(".safetensors"):
                target = f"/cdn/{'/'.join(parts[4:])}"  # as the real one does for large files
                if not self._refused(hub.file_status):
                    self._answer(302, b"", {"Location": f"{hub.url}{target}"})
            elif parts[2:3] == ["resolve"]:
                self._file("/".join(parts[4:]))
            elif parts[0] == "cdn":
                self._file("/".join(parts[1:]))
            else:
                self._answer(404, b"{}", {})

        def _refused(self, status: tuple[int, str]) -> bool:
            known = hub.token and self.headers.get("Authorization") == f"Bearer {hub.token}"
            if status[0] == 200 or known:
                return False
            self._answer(status[0], b'{"Message": "no"}', {"X-Error-Code": status[1]})
            return True

        def do_HEAD(self) -> None:
            name = "/".join(unquote(urlsplit(self.path).path).strip("/").split("/")[4:])
            etag = f'"{hashlib.sha256(hub.files[name]).hexdigest()}"'
            self._head(200, len(hub.files[name]), {"X-Repo-Commit": COMMIT, "ETag": etag})

        def _listing(self, value: dict[str, Any] | list[dict[str, Any]]) -> None:
            if not self._refused(hub.listing_status):
                self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _file(self, name: str) -> None:
            if self._refused(hub.file_status):
                return
            data = hub.files.get(name)
            if data is None:
                self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
                return
            if name in hub.flipped:
                data = data[:-1] + bytes([data[-1] ^ 1])
            start = self._start()
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.md5(data).hexdigest()}"'}
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._head(206 if start else 200, len(data) - start, headers)
            self._body(name, data[start:], start)

        def _start(self) -> int:
            value = self.headers.get("Range", "bytes=0-").removeprefix("bytes=")
            return int(value.split("-")[0])

        def _body(self, name: str, data: bytes, start: int) -> None:
            end = len(data)
            if hub.cuts[name] > 0:
                hub.cuts[name] -= 1
                end //= 2
                self.close_connection = True
            for at in range(0, end, PIECE):
                if start + at >= hub.stalls.get(name, start + end):
                    threading.Event().wait()  # for ever: the client is killed meanwhile
                piece = data[at : min(at + PIECE, end)]
                self.wfile.write(piece)
                hub.sent[name] += len(piece)

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self._head(status, len(body), headers)
            self.wfile.write(body)

        def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()

    return Handler
