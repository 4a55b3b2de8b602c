"""What a server can do wrong to one request, on real sockets, and the failure that it is called."""

from __future__ import annotations

import gzip
import json

from reasoning import errors
from tests.stub import EVENTS, Play, chunk, head, raw, status


def error(text: object) -> dict[str, object]:
    return {"error": {"message": text, "type": "x", "param": None, "code": None}}


HELLO = chunk("Hello")
DEEP, DEEP_500 = b"[" * 100_000, json.loads("[" * 500 + "]" * 500)
BOMB = gzip.compress(b": ping\n\n" * 1_000_000)  # 8 MB in 8 kB

FAULTS: dict[str, tuple[Play, type[errors.StepwiseError]]] = {
    "401": (status(401, error("bad key")), errors.KeyRefused),
    "403": (status(403, {"error": "Forbidden"}), errors.KeyRefused),
    "model": (status(404, error("The model `x` does not exist.")), errors.UnknownModel),
    "404": (status(404, {"detail": "Not Found"}), errors.NotOpenAI),
    "408": (status(408, error("late")), errors.Busy),
    "409": (status(409, error("conflict")), errors.Busy),
    "425": (status(425, error("early")), errors.Busy),
    "429": (status(429, error("slow down")), errors.Busy),
    "503": (status(503, error("full")), errors.Busy),
    "413": (status(413, b"too large", kind="text/plain"), errors.TooLong),
    "422": (status(422, {"detail": [{"msg": "bad"}]}), errors.Refused),
    "400": (status(400, error("no such parameter")), errors.Refused),
    "context": (
        status(400, error("This model's maximum context length is 512 tokens.")),
        errors.TooLong,
    ),
    "500": (status(500, error("boom")), errors.ServerFault),
    "502": (status(502, b"<html>", kind="text/html"), errors.ServerFault),
    "html": (status(200, b"<html></html>", kind="text/html"), errors.NotOpenAI),
    "error with 200": (status(200, error("boom")), errors.ServerFault),
    "reset at once": (raw(end="reset"), errors.ServerFault),
    "reset after headers": (raw(EVENTS, end="reset"), errors.ServerFault),
    "reset in the body": (raw(EVENTS, HELLO, end="reset"), errors.ServerFault),
    "ends without finish_reason": (raw(EVENTS, HELLO), errors.ServerFault),
    "done, not finished": (raw(EVENTS, HELLO, b"data: [DONE]\n\n"), errors.ServerFault),
    "bad JSON": (raw(EVENTS, b"data: {oops\n\n"), errors.ServerFault),
    "bad UTF-8": (raw(EVENTS, b"data: \xff\xfe\n\n"), errors.ServerFault),
    "error event": (raw(EVENTS, b'data: {"error": {"message": "x"}}\n\n'), errors.ServerFault),
    "null choices": (raw(EVENTS, b'data: {"choices": null}\n\n'), errors.ServerFault),
    "abort": (raw(EVENTS, HELLO, chunk(finish_reason="abort")), errors.ServerFault),
    "hangs before headers": (raw(end="hang"), errors.Silent),
    "hangs in the body": (raw(EVENTS, HELLO, end="hang"), errors.Silent),
    "only comments": (raw(EVENTS, *[b": ping\n\n"] * 20, pause=0.1), errors.Silent),
    "a slow drip": (raw(EVENTS, *[HELLO] * 40, pause=0.1), errors.Silent),
    "not HTTP": (raw(b"\x00\x01 not http\r\n\r\n"), errors.ServerFault),
    "deep event": (raw(EVENTS, b"data: " + DEEP + b"\n\n"), errors.ServerFault),
    "deep error": (status(500, DEEP), errors.ServerFault),
    "deep words": (status(400, {"error": DEEP_500}), errors.Refused),
    "no choices": (raw(EVENTS, b'data: {"choices": {"a": 1}}\n\n'), errors.ServerFault),
    "no event": (raw(EVENTS, b"data: 5\n\n"), errors.ServerFault),
    "busy in the stream": (
        raw(EVENTS, b'data: {"error": {"message": "full", "code": 503}}\n\n'),
        errors.Busy,
    ),
    "304": (status(304), errors.NotOpenAI),
    "302 to nowhere": (status(302), errors.NotOpenAI),
    "418": (status(418, error("teapot")), errors.Refused),
    "another path": (status(307, None, "Location: /v1/x"), errors.NotOpenAI),
    "port 99999": (status(307, None, "Location: http://h:99999/"), errors.NotOpenAI),
    "half an address": (status(307, None, "Location: http://[::1"), errors.NotOpenAI),
    "packed": (
        raw(head(200, "text/event-stream", "Content-Encoding: gzip"), BOMB),
        errors.ServerFault,
    ),
    "packed 401": (status(401, gzip.compress(b"No."), "Content-Encoding: gzip"), errors.KeyRefused),
    "one event": (raw(EVENTS, b"data: " + b"x" * 5_000_000), errors.ServerFault),
    "long words": (status(400, b"x" * 5_000_000), errors.Refused),
}
