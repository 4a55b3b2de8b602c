"""An OpenAI-compatible server that says, or does, what its script says, on real sockets.

For what a real server will not do on demand: drip, break, refuse, talk nonsense. It
remembers every request for a reply. `with Stub(step("A", "a"), says("text")) as server:`
plays one reply per request, the last one for ever.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

NEVER = threading.Event()  # for a reply that stops in its middle until its client hangs up
Reader = asyncio.StreamReader
Play = Callable[[asyncio.StreamWriter], Coroutine[Any, Any, None]]
Script = Play | Callable[[dict[str, Any]], Play]


def head(status: int, kind: str, *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", "Connection: close", *headers]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunk(text: str | None = None, finish_reason: str | None = None, **delta: Any) -> bytes:
    """One server-sent event of a streamed chat completion."""
    if text is not None:
        delta["content"] = text
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return _event({"choices": [choice]})


def _event(values: dict[str, Any]) -> bytes:
    whole = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "stub", **values}
    return b"data: " + json.dumps(whole).encode() + b"\n\n"


def usage(prompt: int, completion: int) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return _event({"choices": [], "usage": {**counts, "total_tokens": prompt + completion}})


def says(
    text: str,
    finish_reason: str | None = "stop",
    prompt_tokens: int = 10,
    until: threading.Event | None = None,
) -> Play:
    """The text in pieces of four characters, then the usage; its second half waits for `until`."""
    pieces = [chunk(text[start : start + 4]) for start in range(0, len(text), 4)]
    end = chunk(finish_reason=finish_reason) + usage(prompt_tokens, max(1, len(text) // 4))
    return streams(pieces, end, until)


def recites(
    text: str,
    finish_reason: str | None = "stop",
    size: int = 4,
    until: threading.Event | None = None,
) -> Play:
    """As `says`, for a completion of a prompt: the text is the choice's own."""
    pieces = []
    for start in range(0, len(text), size):
        piece = {"index": 0, "text": text[start : start + size], "finish_reason": None}
        counts = {"prompt_tokens": 10, "completion_tokens": start // size + 1, "total_tokens": 0}
        pieces.append(_event({"choices": [piece], "usage": counts}))
    end = _event({"choices": [{"index": 0, "text": "", "finish_reason": finish_reason}]})
    return streams(pieces, end + usage(10, max(1, len(text) // 4)), until)


def thinks(thought: str, text: str) -> Play:
    """A thought in a field of its own, then the text, as a model with a reasoning parser."""
    pieces = [chunk(reasoning=thought[start : start + 4]) for start in range(0, len(thought), 4)]
    end = chunk(text) + chunk(finish_reason="stop") + usage(10, (len(thought) + len(text)) // 4)
    return streams(pieces, end)


def streams(pieces: Sequence[bytes], end: bytes, until: threading.Event | None = None) -> Play:
    async def play(writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, "text/event-stream"))
        for number, piece in enumerate(pieces):
            while until and number >= len(pieces) / 2 and not until.is_set():  # noqa: ASYNC110 - a thread sets it
                await asyncio.sleep(0.01)
            writer.write(piece)
            await writer.drain()
        writer.write(end + b"data: [DONE]\n\n")

    return play


def paced(text: str, pause: float, size: int = 8) -> Play:
    """As `says`, in pieces of `size` characters, `pause` seconds apart."""

    async def play(writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, "text/event-stream"))
        for start in range(0, len(text), size):
            writer.write(chunk(text[start : start + size]))
            await writer.drain()
            await asyncio.sleep(pause)
        writer.write(chunk(finish_reason="stop") + usage(10, len(text) // 4) + b"data: [DONE]\n\n")

    return play


def step_text(title: str, content: str, action: str = "continue") -> str:
    return json.dumps({"title": title, "content": content, "next_action": action})


def step(
    title: str, content: str, action: str = "continue", until: threading.Event | None = None
) -> Play:
    return says(step_text(title, content, action), until=until)


def step_number(request: dict[str, Any]) -> int:
    """The number of the step that is asked for: one more than the model's message holds."""
    turns = request["messages"]
    said = [str(turn["content"]) for turn in turns if turn["role"] == "assistant"]
    return 1 + sum(text.count('"next_action"') for text in said)


def status(code: int, body: Any = None, *headers: str, kind: str = "application/json") -> Play:
    """A whole, short response: an error, or whatever body with whatever type."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def play(writer: asyncio.StreamWriter) -> None:
        writer.write(head(code, kind, *headers, length=len(data)) + data)

    return play


def raw(*parts: bytes, pause: float = 0.0, end: str = "close") -> Play:
    """Bytes as they are, `pause` seconds apart; then "close", "reset" or "hang"."""

    async def play(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
        if end == "hang":
            await asyncio.sleep(60)
        if end == "reset":
            await asyncio.sleep(0.05)  # or the reset overtakes what was written
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    return play


EVENTS = head(200, "text/event-stream")


class Stub:
    """The server. `requests` are the bodies of the requests for a reply; `gone` counts hang-ups,
    `playing` the replies that are under way.

    /tokenize plays `tokenize`, else reads each of the `special` texts as one token, and
    is not there without them; `counted` counts its requests.
    """

    def __init__(
        self,
        *script: Script,
        models: Any = None,
        port: int = 0,
        max_model_len: int | None = None,
        special: Iterable[str] = (),
        tokenize: Play | None = None,
    ) -> None:
        self.script, self.port = list(script), port
        self.special = frozenset(special)
        self.tokenize, self.counted = tokenize, 0
        model = {"id": "stub", "object": "model", "owned_by": "stub", "created": 0}
        if max_model_len:
            model["max_model_len"] = max_model_len
        self.models = status(200, {"object": "list", "data": [model]}) if models is None else models
        self.requests: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.gone = self.playing = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Stub:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    def _serve(self) -> None:
        self._loop.run_until_complete(self._listen())
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()

    async def _listen(self) -> None:
        self._stopping = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopping.wait()
        server.close()

    async def _connection(self, reader: Reader, writer: asyncio.StreamWriter) -> None:
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int((re.findall(r"(?i)content-length: (\d+)", lines) or ["0"])[0])
            body = await reader.readexactly(length)
            self.playing += 1
            try:
                await self._while_heard(self._play(lines, body)(writer), reader)
            finally:
                self.playing -= 1
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone += 1
        finally:
            writer.close()

    async def _while_heard(self, playing: Coroutine[Any, Any, None], reader: Reader) -> None:
        """Plays to the end, or until the client hangs up: it has nothing more to say."""
        play, left = asyncio.ensure_future(playing), asyncio.ensure_future(reader.read(1))
        await asyncio.wait({play, left}, return_when=asyncio.FIRST_COMPLETED)
        left.cancel()
        if not play.done():
            play.cancel()
            raise ConnectionResetError
        play.result()

    def _play(self, lines: str, body: bytes) -> Play:
        path = lines.split(" ")[1]
        if path.endswith("/models"):
            return self.models
        self.counted += path.endswith("/tokenize")
        if path.endswith("/tokenize") and self.tokenize:
            return self.tokenize
        if path.endswith("/tokenize") and self.special:
            text = json.loads(body)["prompt"]
            return status(200, {"count": 1 if text in self.special else 2 + len(text) // 4})
        if not path.endswith(("/completions", "/responses")):
            return status(404, {"detail": "Not Found"})
        self.headers.append(lines)
        self.requests.append(json.loads(body))
        scripted: Any = self.script[min(len(self.requests), len(self.script)) - 1]
        play: Play = scripted(self.requests[-1]) if _takes_request(scripted) else scripted
        return play


def _takes_request(scripted: Any) -> bool:
    return "request" in getattr(scripted, "__code__", Stub.__init__.__code__).co_varnames[:1]
