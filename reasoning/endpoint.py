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
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai

from reasoning import errors
from reasoning.address import bad_proxy, find_fault, is_this_machine, proxy_of, shown
from reasoning.capabilities import Capabilities, Format
from reasoning.chunks import LOOK, count_of, read_chunk, server_words, waiting_of
from reasoning.chunks import Piece as Piece
from reasoning.parsing import printable
from reasoning.transport import AS_IT_IS, guard

DEFAULT_BASE_URL = "http://127.0.0.1:8000/v1"
RESTARTED = "STEPWISE_RESTARTED"  # what ./serve.sh sets for those in front of a server of its own
SESSION = "X-Session-ID"  # what vllm-router and vLLM's production-stack keep together
LOOKED = 0.25  # seconds for which what a server told of its queue is taken for true
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
class Replicas:
    """How many servers stand behind one address, and how many of them answer."""

    all: int
    up: int


@dataclass(frozen=True, slots=True)
class Request:
    """One reply to ask for: a chat completion of `messages`, or a completion of `prompt`.

    `special_tokens` has them written into the text; a server hides them otherwise.
    `think` is False to ask a model that thinks natively for its plain answer. `go_on`:
    the last message is the model's own, and the reply goes on where it ends. `begun` is what the
    model's message begins with, and `grammar` (EBNF) holds what follows in the place of `schema`:
    for a vLLM alone. `session` is the chain's: a router sends all of its requests to the server
    that has their prefix.
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
    begun: str = ""
    grammar: str = ""
    session: str = field(default="", compare=False)  # where it goes, not what is asked


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds to wait. A read timeout cannot see a drip of a byte a second; `whole` can.

    `restart` is for a server that has answered and is gone: who starts it again says so.
    """

    connect: float = 5.0
    first: float = 300.0  # a long queue, or a long prompt on a CPU
    idle: float = 60.0
    whole: float = 900.0
    short: float = 10.0  # for what a server need not think about: its models, a count of tokens
    mute: float = 60.0  # before one that was late with a count is asked for another
    restart: float = 0.0


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
        self._counts_from = 0.0  # when it may be asked for a count again
        self._waiting: tuple[float, int | None] = (0.0, None)  # when it was asked, what it told
        self._looking = asyncio.Lock()
        self._fault = find_fault(self.base_url, api_key)  # told where the server is asked
        self._http = self._http_client()
        usable = self._fault is None
        self._client = openai.AsyncOpenAI(
            base_url=self.base_url if usable else DEFAULT_BASE_URL,
            api_key=(api_key if usable else "") or "none",
            max_retries=0,
            timeout=httpx2.Timeout(patience.first, connect=patience.connect),
            http_client=self._http,  # which it closes
        )

    def _http_client(self) -> httpx2.AsyncClient:
        # this machine is not beyond its HTTP_PROXY
        beyond = self._fault is None and not is_this_machine(self.base_url)
        try:
            return _http_client(trust_env=beyond)
        except (ImportError, ValueError, httpx2.InvalidURL):  # socks5:// without its package
            self._fault = bad_proxy(self.base_url)
            return _http_client(trust_env=False)

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ, patience: Patience = Patience()
    ) -> Endpoint:
        """The server that OPENAI_BASE_URL, OPENAI_API_KEY and MODEL name.

        RESTARTED says for how many seconds it is waited for when it is gone in mid-chain.
        """
        if (seconds := environment.get(RESTARTED, "")).isdecimal():
            patience = replace(patience, restart=float(seconds))
        return cls(
            environment.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL,
            environment.get("OPENAI_API_KEY", ""),
            environment.get("MODEL", ""),
            patience,
        )

    @property
    def restart_wait(self) -> float:
        """Seconds for which it may be gone in mid-chain."""
        return self._patience.restart

    async def close(self) -> None:
        await self._client.close()

    async def entries(self) -> list[dict[str, Any]]:
        """The models that the server lists, as it tells of them. Raises a StepwiseError."""
        with self._named_failures():
            async with asyncio.timeout(self._patience.short):
                # not models.list(), which raises AttributeError for a body that is no object
                body: Any = await self._client.get("/models", cast_to=object)
        listed = body.get("data") if isinstance(body, dict) else None
        if not isinstance(listed, list):
            raise self._not_openai()
        return [entry for entry in listed if isinstance(entry, dict) and _is_named(entry)]

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
        began, finished, begun = time.monotonic(), False, request.begun
        with self._named_failures(request):
            async with asyncio.timeout(self._patience.first):
                stream = await self._create(request)
            try:
                self._check_event_stream(stream.response)
                async for piece in self._pieces(stream, began):
                    finished = finished or piece.finish_reason is not None
                    if begun and piece.text:
                        piece, begun = replace(piece, text=begun + piece.text), ""
                    yield piece
            finally:
                await stream.close()
        if not finished:
            raise errors.ServerFault("The server's reply ended before it was finished.", LOOK)

    async def _create(self, request: Request) -> openai.AsyncStream[object]:
        """The reply as a stream of JSON values: what they hold is chunks.py's to read."""
        headers = {SESSION: request.session} if request.session else {}
        return await self._client.post(
            "/completions" if request.prompt else "/chat/completions",
            body=_body(request),
            options={"headers": headers},
            cast_to=object,
            stream=True,
            stream_cls=openai.AsyncStream[object],
        )

    async def forward(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> RawReply:
        """A request sent on as it is, with our key; `path` is below the base URL.

        Whatever the server answers is a reply, but a refused key, which is ours: then, and
        where there is no reply, a StepwiseError is raised.
        """
        key = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        with self._named_failures():
            request = self._http.build_request(
                method,
                f"{self.base_url}/{path}",
                content=body,
                headers={**(headers or {}), **key},
                timeout=httpx2.Timeout(self._patience.whole, connect=self._patience.connect),
                extensions={AS_IT_IS: True},
            )
            response = await self._http.send(request, stream=True, follow_redirects=False)
        if response.status_code in (401, 403):
            await response.aclose()
            raise self._key_refused(response.status_code)
        return RawReply(response, self._named_failures)

    async def count(self, text: str) -> int | None:
        """How many tokens the text is, special ones included; None where no /tokenize tells."""
        if time.monotonic() < self._counts_from:
            return None
        try:
            return count_of(await self._tokenized(text), "count")
        except errors.Silent:
            self._counts_from = time.monotonic() + self._patience.mute
        except errors.StepwiseError:
            pass
        return None

    async def _tokenized(self, text: str) -> object:
        body = {"prompt": text, "add_special_tokens": False}
        with self._named_failures():
            async with asyncio.timeout(self._patience.short):
                path = self._beside_v1("/tokenize")
                return await self._client.post(path, body=body, cast_to=object)

    async def waiting(self) -> int | None:
        """How many requests wait there for their turn; None where no vLLM tells of it.

        All who ask within LOOKED seconds are told the same: a vLLM takes some milliseconds
        to tell.
        """
        async with self._looking:
            at, told = self._waiting
            if time.monotonic() - at >= LOOKED:
                told = waiting_of(await self._read_beside("/metrics") or "")
                self._waiting = (time.monotonic(), told)
            return told

    async def replicas(self) -> Replicas | None:
        """The servers behind ./serve.sh --replicas; None where it is one, or does not tell."""
        try:
            told = json.loads(await self._read_beside("/health") or "null")
        except ValueError:
            return None
        every, up = count_of(told, "replicas"), count_of(told, "up")
        return Replicas(every, up) if every is not None and up is not None else None

    async def _read_beside(self, path: str) -> str | None:
        """A text that stands beside /v1; None where there is none."""
        try:
            with self._named_failures():
                async with asyncio.timeout(self._patience.short):
                    return await self._client.get(self._beside_v1(path), cast_to=str)
        except errors.StepwiseError:
            return None

    async def special_tokens(self, candidates: Iterable[str]) -> frozenset[str]:
        """Those of the candidates that the model's tokenizer reads as one token.

        A server without /tokenize (only vLLM has it) cannot tell: then all of them.
        """
        return frozenset([text for text in candidates if await self._is_special(text)])

    async def _is_special(self, text: str) -> bool:
        if text in self._special:
            return self._special[text]
        special = await self.count(text) in (1, None)
        if time.monotonic() >= self._counts_from:  # not for want of an answer
            self._special[text] = special
        return special

    def _beside_v1(self, path: str) -> str:
        return self.base_url.removesuffix("/v1") + path

    async def _pieces(
        self, stream: openai.AsyncStream[object], began: float
    ) -> AsyncGenerator[Piece, None]:
        """The stream's pieces, each within its time. Comments and empty chunks are no data."""
        chunks = aiter(stream)
        heard, wait = time.monotonic(), self._patience.first
        while True:
            deadline = min(heard + wait, began + self._patience.whole)
            async with asyncio.timeout(deadline - time.monotonic()):
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            piece = read_chunk(chunk)
            if piece != Piece():
                heard, wait = time.monotonic(), self._patience.idle
                yield piece

    def _check_event_stream(self, response: Any) -> None:
        kind = response.headers.get("content-type", "")
        if "text/html" in kind:
            raise self._not_openai()
        if "event-stream" not in kind:
            raise errors.ServerFault(f"Expected a stream of events, got {kind or 'nothing'}.", LOOK)

    @contextmanager
    def _named_failures(self, request: Request | None = None) -> Any:
        """Whatever the client raises becomes one of our errors; no secret is in them."""
        if self._fault is not None:
            raise self._fault
        try:
            yield
        except errors.StepwiseError:
            raise
        except openai.APIStatusError as error:
            after = retry_after(error.response.headers.get("retry-after"))
            raise self._status(
                error.status_code, server_words(error.body), request, after
            ) from None
        except (TimeoutError, openai.APITimeoutError, httpx2.TimeoutException) as error:
            raise self._late(error) from None
        except (openai.APIConnectionError, httpx2.RequestError, httpx2.InvalidURL) as error:
            raise self._no_connection(error) from None
        except openai.APIResponseValidationError:
            raise self._not_openai() from None
        except openai.APIError as error:
            raise self._told_in_stream(error, request) from None
        except (openai.OpenAIError, httpx2.HTTPError, httpx2.StreamError, ValueError):
            # ValueError: bad JSON and bad UTF-8 in a body or a stream escape the client as such
            raise errors.ServerFault("The server's reply could not be read.", LOOK) from None
        except RecursionError:
            message = "The server's reply is JSON that is nested too deep."
            raise errors.ServerFault(message, LOOK) from None

    def _late(self, error: Exception) -> errors.StepwiseError:
        if httpx2.ConnectTimeout in (type(error), type(error.__cause__)):
            return self._no_connection(error)
        proxy = proxy_of(self.base_url)
        by = f", asked through the proxy {proxy[1]}," if proxy else ""
        return errors.Silent(f"The server at {self._address}{by} stopped answering.", LOOK)

    def _no_connection(self, error: Exception) -> errors.StepwiseError:
        wrapped = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
        cause = wrapped or error
        if isinstance(cause, _BROKEN):
            return errors.ServerFault("The connection to the server broke.", LOOK)
        if isinstance(cause, httpx2.TooManyRedirects):
            message = f"The server at {self._address} redirects in a circle."
            return errors.NotOpenAI(message, _CHECK_URL)
        if proxy := proxy_of(self.base_url):
            return _no_proxy(proxy, self._host, cause)
        if "known" in str(cause) or "resolution" in str(cause):
            return errors.Unreachable(f"The name of {self._host} is not known.", _CHECK_URL)
        if "SSL" in str(cause):
            message = f"No secure connection to {self._host}: {server_words(str(cause))}."
            return errors.Unreachable(message, "Check OPENAI_BASE_URL: is it http or https?")
        return errors.Unreachable(
            f"No server answers at {self._address}.", "Start one with ./serve.sh, then try again."
        )

    @property
    def _address(self) -> str:
        return shown(self.base_url)

    @property
    def _host(self) -> str:
        return urlsplit(self._address).netloc

    def _not_openai(self) -> errors.StepwiseError:
        return errors.NotOpenAI(
            f"What answers at {self._address} is not an OpenAI-compatible server.", _CHECK_URL
        )

    def _told_in_stream(
        self, error: openai.APIError, request: Request | None
    ) -> errors.StepwiseError:
        """An error event after a 200: vLLM refuses a schema that way, with a 400 in the body."""
        said = server_words({"error": error.body})
        code = count_of(error.body, "code")
        if code is not None and 400 <= code < 600:
            return self._status(code, said, request)
        return errors.ServerFault(f"The server failed. {said}", LOOK)

    def _status(
        self, status: int, said: str, request: Request | None, after: float | None = None
    ) -> errors.StepwiseError:
        """What a status that is no success means; `said` are the server's words."""
        if status < 400:
            message = f"What answers at {self._address} gives no reply, but a status of {status}."
            return errors.NotOpenAI(message, _CHECK_URL)
        if status in (401, 403):
            return self._key_refused(status)
        if status == 404:
            return self._not_found(said, request)
        if status in (408, 409, 425, 429, 503):
            return errors.Busy(f"The server is busy ({status}).", "Try again later.", after)
        if status >= 500:
            return errors.ServerFault(f"The server failed ({status}). {said}".strip(), LOOK)
        return _refusal(status, said, request)

    def _key_refused(self, status: int) -> errors.StepwiseError:
        return errors.KeyRefused(
            f"The server at {self._address} refuses the API key ({status}).",
            "Set OPENAI_API_KEY to the key the server was started with.",
        )

    def _not_found(self, said: str, request: Request | None) -> errors.StepwiseError:
        if request is None or "model" not in said.casefold():
            return self._not_openai()
        return self._unknown_model(request.model.name, ())

    def _unknown_model(self, name: str, served: Iterable[ServedModel]) -> errors.StepwiseError:
        names = ", ".join(model.name for model in served)
        message = f"The server at {self._address} does not serve {name or 'any model'}."
        return errors.UnknownModel(
            message, f"It serves: {names}." if names else "Ask it: GET /v1/models."
        )


# What was begun did not come to its end.
_BROKEN = (httpx2.ReadError, httpx2.WriteError, httpx2.CloseError, httpx2.ProtocolError)
_CHECK_URL = "Check OPENAI_BASE_URL: it usually ends in /v1."
_OF_FORMATS = (400, 422)  # what a server says of a body that it understands and does not take
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
    if request is not None and request.format != "text" and status in _OF_FORMATS:
        return errors.FormatRefused(
            f"The server refuses {request.format} ({status}). {said}".strip(), ""
        )
    return errors.Refused(
        f"The server refused the request ({status}). {said}".strip(), "Check the settings."
    )


def _no_proxy(proxy: tuple[str, str], host: str, cause: BaseException) -> errors.StepwiseError:
    variable, where = proxy
    way = f"The proxy {where}, which {variable} names,"
    remedy = f"Check {variable}, or name {host} in NO_PROXY."
    if isinstance(cause, httpx2.ProxyError):
        return errors.Unreachable(f"{way} does not connect to {host}: {cause}.", remedy)
    return errors.Unreachable(f"{way} does not answer.", remedy)


def _http_client(trust_env: bool) -> httpx2.AsyncClient:
    return openai.DefaultAsyncHttpxClient(
        limits=httpx2.Limits(max_connections=None),  # a server has a queue of its own
        trust_env=trust_env,
        headers={"accept-encoding": "identity"},
        max_redirects=3,
        event_hooks={"response": [guard]},
    )


def _is_named(entry: Mapping[str, Any]) -> bool:
    name = entry.get("id")
    return isinstance(name, str) and bool(name) and printable(name) == name


def _served(model: Mapping[str, Any]) -> ServedModel:
    length = count_of(model, "max_model_len") or None
    return ServedModel(model["id"], length, model.get("owned_by") == "vllm")


def _body(request: Request) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": request.model.name,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.prompt:
        body["prompt"] = request.prompt
    else:
        body["messages"] = _messages(request)
    if request.seed is not None:
        body["seed"] = request.seed
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.stop:
        body["stop"] = list(request.stop)
    if request.grammar:
        body["structured_outputs"] = {"grammar": request.grammar}
    elif request.format == "json_schema":
        named = {"name": "step", "schema": request.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    elif request.format == "json_object":
        body["response_format"] = {"type": "json_object"}
    if request.model.vllm:  # other servers refuse what they do not know
        body["stream_options"]["continuous_usage_stats"] = True
        body |= _vllm_only(request)
    return body


def _messages(request: Request) -> list[Message]:
    """With what the reply begins with as the end of the last, which is the model's own."""
    turns = list(request.messages)
    if request.begun:
        last = turns.pop()["content"] if request.go_on else ""
        turns.append({"role": "assistant", "content": last + request.begun})
    return turns


def _vllm_only(request: Request) -> dict[str, Any]:
    extra: dict[str, Any] = {"repetition_detection": _REPETITION}
    if request.special_tokens:
        extra["skip_special_tokens"] = False
    if not request.think:
        extra["chat_template_kwargs"] = {"enable_thinking": False}
    if request.go_on or request.begun:
        extra |= {"continue_final_message": True, "add_generation_prompt": False}
    return extra


# A loop inside one reply ends after 4 rounds of 10 to 60 tokens, not at max_tokens; a shorter
# pattern is a multiple of itself, and four columns of a table are none.
_REPETITION = {"max_pattern_size": 60, "min_pattern_size": 10, "min_count": 4}


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
