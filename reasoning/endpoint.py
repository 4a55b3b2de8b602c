"""The only module that talks to a model server: one streaming call, named failures.

It knows HTTP and the OpenAI shapes, and nothing of steps. Whatever a server does,
the caller gets pieces of text or one of errors.py's failures. It never retries:
who asks knows better what a second try is worth.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai

from reasoning import errors
from reasoning.capabilities import Capabilities, Format
from reasoning.parsing import whole_characters

DEFAULT_BASE_URL = "http://127.0.0.1:8000/v1"
Message = Mapping[str, str]  # {"role": ..., "content": ...}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as the server lists it. `max_model_len` is in tokens, None where it is not told.

    `vllm` says that the server is a vLLM, which takes sampling parameters of its own.
    """

    name: str
    max_model_len: int | None = None
    vllm: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One reply to ask for: a chat completion of `messages`, or a completion of `prompt`.

    `special_tokens` has them written into the text; a server hides them otherwise.
    `think` is False to ask a model that thinks natively for its plain answer. `go_on`:
    the last message is the model's own, and the reply goes on where it ends.
    """

    model: ServedModel
    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int | None = None
    format: Format = "text"
    schema: Mapping[str, Any] | None = None
    prompt: str = ""
    stop: tuple[str, ...] = ()
    special_tokens: bool = False
    think: bool = True
    top_p: float | None = None
    go_on: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the reply: its text, or the reasoning that a server tells apart.

    The finish_reason comes with the last text; token counts come with each piece
    from vLLM (so far) and with the last from other servers. `cached_tokens` are those
    of the prompt that the server had read before, where it tells.
    """

    text: str = ""
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    refusal: str = ""
    reasoning: str = ""
    cached_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds to wait. A read timeout cannot see a drip of a byte a second; `whole` can."""

    connect: float = 5.0
    first: float = 300.0  # a long queue, or a long prompt on a CPU
    idle: float = 60.0
    whole: float = 900.0


class RawReply:
    """A server's response as it is, of which only status and headers were read. Close it."""

    def __init__(self, response: httpx2.Response, named_failures: Callable[[], Any]) -> None:
        self._response, self._named_failures = response, named_failures
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes, in the encoding it has. Raises a StepwiseError."""
        with self._named_failures():
            async for part in self._response.aiter_raw():
                yield part

    async def close(self) -> None:
        """Ends the server's work on it. More than once is once."""
        await self._response.aclose()


class Endpoint:
    """An OpenAI-compatible server. One keep-alive client, for one event loop.

    `capabilities` is what it was seen to take, for the model that it serves now.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_BASE_URL,
        api_key: str = "",
        model: str = "",
        patience: Patience = Patience(),
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.wanted = model
        self.capabilities = Capabilities()
        self._patience = patience
        self.api_key = api_key
        self._special: dict[str, bool] = {}
        self._served: tuple[ServedModel, ...] = ()
        local = urlsplit(self.base_url).hostname in ("127.0.0.1", "localhost", "::1")
        self._http = openai.DefaultAsyncHttpxClient(
            limits=httpx2.Limits(max_connections=None),  # a server has a queue of its own
            trust_env=not local,  # this machine is not beyond its HTTP_PROXY
        )
        self._client = openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=api_key or "none",
            max_retries=0,
            timeout=httpx2.Timeout(patience.first, connect=patience.connect),
            http_client=self._http,  # which it closes
        )

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ, patience: Patience = Patience()
    ) -> Endpoint:
        """The server that OPENAI_BASE_URL, OPENAI_API_KEY and MODEL name."""
        return cls(
            environment.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL,
            environment.get("OPENAI_API_KEY", ""),
            environment.get("MODEL", ""),
            patience,
        )

    async def close(self) -> None:
        await self._client.close()

    async def entries(self) -> list[dict[str, Any]]:
        """The models that the server lists, as it tells of them. Raises a StepwiseError."""
        with self._named_failures():
            async with asyncio.timeout(2 * self._patience.connect):
                # not models.list(), which raises AttributeError for a body that is no object
                body: Any = await self._client.get("/models", cast_to=object)
        listed = body.get("data") if isinstance(body, dict) else None
        if not isinstance(listed, list):
            raise self._not_openai()
        return [entry for entry in listed if isinstance(entry, dict)]

    async def models(self) -> tuple[ServedModel, ...]:
        """What the server serves. Raises a StepwiseError when it cannot be asked."""
        served = tuple(map(_served, await self.entries()))
        if served != self._served:  # another model knows other tokens and takes other formats
            self._served, self._special, self.capabilities = served, {}, Capabilities()
        return served

    async def model(self) -> ServedModel:
        """The model to use: the one asked for by MODEL, else the first one served."""
        served = await self.models()
        for model in served:
            if self.wanted in ("", model.name):
                return model
        raise self._unknown_model(self.wanted, served)

    async def chat(self, request: Request) -> AsyncGenerator[Piece, None]:
        """The reply to the request, piece by piece; closing the iterator ends it there.

        Raises a StepwiseError. A stream that ends with no finish_reason raises
        ServerFault: what came was not the whole reply.
        """
        began, finished = time.monotonic(), False
        with self._named_failures(request):
            async with asyncio.timeout(self._patience.first):
                stream = await self._create(request)
            try:
                self._check_event_stream(stream.response)
                async for piece in self._pieces(stream, began):
                    finished = finished or piece.finish_reason is not None
                    yield piece
            finally:
                await stream.close()
        if not finished:
            raise errors.ServerFault("The server's reply ended before it was finished.", _LOOK)

    async def _create(self, request: Request) -> Any:
        if request.prompt:
            return await self._client.completions.create(**_arguments(request))
        return await self._client.chat.completions.create(**_arguments(request))

    async def forward(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> RawReply:
        """A request sent on as it is, with our key; `path` is below the base URL.

        Whatever the server answers is a reply, but a refused key, which is ours: then, and
        where there is no reply, a StepwiseError is raised.
        """
        key = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        request = self._http.build_request(
            method,
            f"{self.base_url}/{path}",
            content=body,
            headers={**(headers or {}), **key},
            timeout=httpx2.Timeout(self._patience.whole, connect=self._patience.connect),
        )
        with self._named_failures():
            response = await self._http.send(request, stream=True, follow_redirects=False)
        if response.status_code in (401, 403):
            await response.aclose()
            raise self._key_refused(response.status_code)
        return RawReply(response, self._named_failures)

    async def count(self, text: str) -> int | None:
        """How many tokens the text is, special ones included; None where no /tokenize tells."""
        body = {"prompt": text, "add_special_tokens": False}
        try:
            counted: Any = await self._client.post(
                self._beside_v1("/tokenize"), body=body, cast_to=object
            )
        except (openai.OpenAIError, httpx2.HTTPError, ValueError):
            return None
        found = counted.get("count") if isinstance(counted, dict) else None
        return found if isinstance(found, int) else None

    async def special_tokens(self, candidates: Iterable[str]) -> frozenset[str]:
        """Those of the candidates that the model's tokenizer reads as one token.

        A server without /tokenize (only vLLM has it) cannot tell: then all of them.
        """
        for text in candidates:
            if text not in self._special:
                self._special[text] = await self.count(text) in (1, None)
        return frozenset(text for text in candidates if self._special[text])

    def _beside_v1(self, path: str) -> str:
        return self.base_url.removesuffix("/v1") + path

    async def _pieces(self, stream: Any, began: float) -> AsyncGenerator[Piece, None]:
        """The stream's pieces, each within its time. Comments and empty chunks are no data."""
        chunks = aiter(stream)
        heard, wait = time.monotonic(), self._patience.first
        while True:
            deadline = min(heard + wait, began + self._patience.whole)
            async with asyncio.timeout(deadline - time.monotonic()):
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            piece = _piece(chunk)
            if piece != Piece():
                heard, wait = time.monotonic(), self._patience.idle
                yield piece

    def _check_event_stream(self, response: Any) -> None:
        kind = response.headers.get("content-type", "")
        if "text/html" in kind:
            raise self._not_openai()
        if "event-stream" not in kind:
            raise errors.ServerFault(
                f"Expected a stream of events, got {kind or 'nothing'}.", _LOOK
            )

    @contextmanager
    def _named_failures(self, request: Request | None = None) -> Any:
        """Whatever the client raises becomes one of our errors; no secret is in them."""
        try:
            yield
        except errors.StepwiseError:
            raise
        except openai.APIStatusError as error:
            raise self._status(error, request) from None
        except (TimeoutError, openai.APITimeoutError, httpx2.TimeoutException) as error:
            raise self._late(error) from None
        except (openai.APIConnectionError, httpx2.TransportError, httpx2.InvalidURL) as error:
            raise self._no_connection(error) from None
        except openai.APIResponseValidationError:
            raise self._not_openai() from None
        except openai.APIError as error:
            raise self._told_in_stream(error, request) from None
        except (openai.OpenAIError, httpx2.HTTPError, httpx2.StreamError, ValueError):
            # ValueError: bad JSON and bad UTF-8 in a body or a stream escape the client as such
            raise errors.ServerFault("The server's reply could not be read.", _LOOK) from None

    def _late(self, error: Exception) -> errors.StepwiseError:
        if httpx2.ConnectTimeout in (type(error), type(error.__cause__)):
            return self._no_connection(error)
        return errors.Silent(f"The server at {self.base_url} stopped answering.", _LOOK)

    def _no_connection(self, error: Exception) -> errors.StepwiseError:
        if isinstance(error, _BROKEN) or isinstance(error.__cause__, _BROKEN):
            return errors.ServerFault("The connection to the server broke.", _LOOK)
        host = urlsplit(self.base_url).netloc or self.base_url
        if "known" in str(error.__cause__) or "resolution" in str(error.__cause__):
            return errors.Unreachable(f"The name of {host} is not known.", _CHECK_URL)
        return errors.Unreachable(
            f"No server answers at {self.base_url}.", "Start one with ./serve.sh, then try again."
        )

    def _not_openai(self) -> errors.StepwiseError:
        return errors.NotOpenAI(
            f"What answers at {self.base_url} is not an OpenAI-compatible server.", _CHECK_URL
        )

    def _told_in_stream(
        self, error: openai.APIError, request: Request | None
    ) -> errors.StepwiseError:
        """An error event after a 200: vLLM refuses a schema that way, with a 400 in the body."""
        code = error.body.get("code") if isinstance(error.body, dict) else None
        if isinstance(code, int) and 400 <= code < 500:
            return _refusal(code, _said(error.body), request)
        return errors.ServerFault(f"The server failed. {_sentence(str(error))}", _LOOK)

    def _status(
        self, error: openai.APIStatusError, request: Request | None
    ) -> errors.StepwiseError:
        status, said = error.status_code, _said(error.body)
        if status in (401, 403):
            return self._key_refused(status)
        if status == 404:
            return self._not_found(said, request)
        if status in (408, 409, 425, 429, 503):
            after = retry_after(error.response.headers.get("retry-after"))
            return errors.Busy(f"The server is busy ({status}).", "Try again later.", after)
        if status >= 500:
            return errors.ServerFault(f"The server failed ({status}). {said}".strip(), _LOOK)
        return _refusal(status, said, request)

    def _key_refused(self, status: int) -> errors.StepwiseError:
        return errors.KeyRefused(
            f"The server at {self.base_url} refuses the API key ({status}).",
            "Set OPENAI_API_KEY to the key the server was started with.",
        )

    def _not_found(self, said: str, request: Request | None) -> errors.StepwiseError:
        if request is None or "model" not in said.casefold():
            return self._not_openai()
        return self._unknown_model(request.model.name, ())

    def _unknown_model(self, name: str, served: Iterable[ServedModel]) -> errors.StepwiseError:
        names = ", ".join(model.name for model in served)
        message = f"The server at {self.base_url} does not serve {name or 'any model'}."
        return errors.UnknownModel(
            message, f"It serves: {names}." if names else "Ask it: GET /v1/models."
        )


# What was begun did not come to its end.
_BROKEN = (httpx2.ReadError, httpx2.WriteError, httpx2.CloseError, httpx2.ProtocolError)
_LOOK = "Look at the server's log, then try again."
_CHECK_URL = "Check OPENAI_BASE_URL: it usually ends in /v1."
_TOO_LONG = re.compile(
    r"context.{0,10}(length|window|size)|too long|max_model_len|maximum.{0,20}tokens", re.I
)


def _refusal(status: int, said: str, request: Request | None) -> errors.StepwiseError:
    """Any other 4xx, by what the server said of it."""
    if status == 413 or _TOO_LONG.search(said):
        return errors.TooLong(
            f"The question and its steps do not fit the model's context. {said}".strip(),
            "Ask a shorter question, or serve the model with a larger --max-model-len.",
        )
    if request is not None and request.format != "text":
        return errors.FormatRefused(
            f"The server refuses {request.format} ({status}). {said}".strip(), ""
        )
    return errors.Refused(
        f"The server refused the request ({status}). {said}".strip(), "Check the settings."
    )


def _served(model: Mapping[str, Any]) -> ServedModel:
    length = model.get("max_model_len")
    known = length if isinstance(length, int) and length > 0 else None
    return ServedModel(str(model.get("id")), known, model.get("owned_by") == "vllm")


def _arguments(request: Request) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "model": request.model.name,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.prompt:
        arguments["prompt"] = request.prompt
    else:
        arguments["messages"] = list(request.messages)
    if request.seed is not None:
        arguments["seed"] = request.seed
    if request.top_p is not None:
        arguments["top_p"] = request.top_p
    if request.stop:
        arguments["stop"] = list(request.stop)
    if request.format == "json_schema":
        named = {"name": "step", "schema": request.schema, "strict": True}
        arguments["response_format"] = {"type": "json_schema", "json_schema": named}
    elif request.format == "json_object":
        arguments["response_format"] = {"type": "json_object"}
    if request.model.vllm:  # other servers refuse what they do not know
        arguments["stream_options"]["continuous_usage_stats"] = True
        arguments["extra_body"] = _vllm_only(request)
    if request.prompt and "response_format" in arguments:  # the client knows none for a prompt
        form = {"response_format": arguments.pop("response_format")}
        arguments["extra_body"] = arguments.get("extra_body", {}) | form
    return arguments


def _vllm_only(request: Request) -> dict[str, Any]:
    extra: dict[str, Any] = {"repetition_detection": _REPETITION}
    if request.special_tokens:
        extra["skip_special_tokens"] = False
    if not request.think:
        extra["chat_template_kwargs"] = {"enable_thinking": False}
    if request.go_on:
        extra |= {"continue_final_message": True, "add_generation_prompt": False}
    return extra


# A loop inside one reply ends after 4 rounds of 10 to 60 tokens, not at max_tokens; a shorter
# pattern is a multiple of itself, and four columns of a table are none.
_REPETITION = {"max_pattern_size": 60, "min_pattern_size": 10, "min_count": 4}


def _piece(chunk: Any) -> Piece:
    usage, choices = getattr(chunk, "usage", None), getattr(chunk, "choices", None) or ()
    choice = choices[0] if choices else None
    delta = getattr(choice, "delta", None)
    finish = getattr(choice, "finish_reason", None)
    if finish in ("abort", "error"):
        raise errors.ServerFault(f"The server gave up on the reply ({finish}).", _LOOK)
    text = getattr(delta, "content", None) or getattr(choice, "text", None) or ""
    # vLLM's name for it now, and the older name that other servers keep
    reasoning = getattr(delta, "reasoning", None) or getattr(delta, "reasoning_content", None) or ""
    details = getattr(usage, "prompt_tokens_details", None)
    return Piece(
        whole_characters(text),
        finish,
        getattr(usage, "prompt_tokens", None),
        getattr(usage, "completion_tokens", None),
        getattr(delta, "refusal", None) or "",
        whole_characters(reasoning if isinstance(reasoning, str) else ""),
        getattr(details, "cached_tokens", None),
    )


def _said(body: object) -> str:
    """The server's own words, in any of the three shapes that errors come in."""
    if isinstance(body, dict):
        inner = body.get("error", body.get("detail", body))
        body = inner.get("message", inner) if isinstance(inner, dict) else inner
    return _sentence(body if isinstance(body, str) else json.dumps(body, default=str))


def _sentence(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:300] + "..."


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """The seconds that a Retry-After header asks to wait; None for none or nonsense."""
    if value is None:
        return None
    try:
        return seconds if (seconds := float(value)) >= 0 and seconds < float("inf") else None
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, moment - (time.time() if now is None else now))
