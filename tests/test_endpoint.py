"""Every way a server can misbehave becomes a named failure, on real sockets."""

import asyncio
import gzip
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from reasoning import errors
from reasoning.endpoint import (
    Endpoint,
    Patience,
    Piece,
    RawReply,
    Request,
    ServedModel,
    retry_after,
)
from reasoning.metering import Meter, ModelServer
from tests.faults import BOMB, DEEP, FAULTS, HELLO, error
from tests.processes import until
from tests.stub import EVENTS, NEVER, Play, Stub, chunk, head, raw, says, status, step

MODEL = ServedModel("stub")
HASTY = Patience(connect=5, first=2, idle=2, whole=4, short=2)  # a busy machine stops for a second


@asynccontextmanager
async def talking(*script: Play, **options: object) -> AsyncIterator[tuple[Stub, Endpoint]]:
    with Stub(*script, **options) as stub:  # type: ignore[arg-type]
        endpoint = Endpoint(stub.base_url, "secret-key", patience=HASTY)
        try:
            yield stub, endpoint
        finally:
            await endpoint.close()


async def ask(endpoint: ModelServer, **more: object) -> list[Piece]:
    request = Request(MODEL, ({"role": "user", "content": "Hi"},), 50, **more)  # type: ignore[arg-type]
    async with aclosing(endpoint.chat(request)) as pieces:
        return [piece async for piece in pieces]


async def test_a_reply_comes_in_pieces_with_its_finish_reason_and_counts() -> None:
    async with talking(says("Hello, world", prompt_tokens=7)) as (_, endpoint):
        pieces = await ask(endpoint)
    assert [p.text for p in pieces if p.text] == ["Hell", "o, w", "orld"]
    assert [p.finish_reason for p in pieces if p.finish_reason] == ["stop"]
    assert (pieces[-1].prompt_tokens, pieces[-1].completion_tokens) == (7, 3)


async def test_top_p_is_sent_where_it_is_asked_for_and_left_to_the_server_else() -> None:
    async with talking(says("Hello")) as (stub, endpoint):
        await ask(endpoint, top_p=0.9)
        await ask(endpoint)
    assert [request.get("top_p") for request in stub.requests] == [0.9, None]


async def test_a_chains_requests_carry_its_session_so_that_a_router_keeps_them_together() -> None:
    async with talking(says("Hello")) as (stub, endpoint):
        one, other = Meter(endpoint), Meter(endpoint)
        for server in (one, one, other, endpoint):
            await ask(server)
    sent = [re.findall(r"x-session-id: (\S+)", lines.lower()) for lines in stub.headers]
    assert sent == [[one.session], [one.session], [other.session], []]
    assert one.session != other.session


async def test_what_the_server_had_cached_of_the_prompt_is_told() -> None:
    counts = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}
    usage = {**counts, "prompt_tokens_details": {"cached_tokens": 5}}
    body = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "stub"}
    told = b"data: " + json.dumps({**body, "choices": [], "usage": usage}).encode() + b"\n\n"
    done = chunk("Hi", "stop") + told + b"data: [DONE]\n\n"
    async with talking(raw(EVENTS, done)) as (_, endpoint):
        pieces = await ask(endpoint)
    assert [piece.cached_tokens for piece in pieces] == [None, 5]


@pytest.mark.parametrize(("play", "expected"), FAULTS.values(), ids=FAULTS)
async def test_a_fault_has_a_name(play: Play, expected: type[errors.StepwiseError]) -> None:
    async with talking(play) as (stub, endpoint):
        began = time.monotonic()
        with pytest.raises(errors.StepwiseError) as caught:
            await ask(endpoint)
    assert type(caught.value) is expected
    assert len(stub.requests) == 1  # the client underneath retries nothing
    assert time.monotonic() - began < 10
    assert "secret-key" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("code", [400, 422])
async def test_a_refusal_of_a_constrained_request_is_a_refused_format(code: int) -> None:
    async with talking(status(code, error("response_format is not supported"))) as (_, endpoint):
        with pytest.raises(errors.FormatRefused):
            await ask(endpoint, format="json_schema", schema={})


async def test_no_server_is_unreachable_and_says_what_to_start() -> None:
    with Stub() as stub:
        gone = stub.base_url
    endpoint = Endpoint(gone, patience=HASTY)
    with pytest.raises(errors.Unreachable, match=r"\./serve\.sh"):
        await ask(endpoint)
    await endpoint.close()


async def test_a_question_goes_to_no_other_server() -> None:
    async with talking(says("Hello")) as (other, _):
        there = status(307, None, f"Location: {other.base_url}/chat/completions")
        async with talking(there) as (_, endpoint):
            with pytest.raises(
                errors.NotOpenAI, match=f"redirects to http://127.0.0.1:{other.port}"
            ):
                await ask(endpoint)
    assert not other.requests


async def test_a_server_that_redirects_within_itself_is_followed_but_not_in_a_circle() -> None:
    there = status(307, None, "Location: /v1/chat/completions")
    async with talking(there, says("Hello")) as (_, endpoint):
        assert await ask(endpoint)
    async with talking(there) as (_, endpoint):
        with pytest.raises(errors.NotOpenAI, match="in a circle"):
            await ask(endpoint)


@pytest.mark.parametrize("code", [302, 304, 418, 451])
async def test_what_says_nothing_of_a_format_is_no_refused_format(code: int) -> None:
    async with talking(status(code)) as (_, endpoint):
        with pytest.raises((errors.NotOpenAI, errors.Refused)):
            await ask(endpoint, format="json_schema", schema={})


async def test_a_packed_reply_is_not_asked_for_and_holds_nobody_up() -> None:
    """Unpacked it stopped the event loop: 24 s for 98 kB."""
    bomb = gzip.compress(b":\n" * 20_000_000)
    play = raw(head(200, "text/event-stream", "Content-Encoding: gzip"), bomb)
    async with talking(play) as (stub, endpoint):
        began = time.monotonic()
        with pytest.raises(errors.ServerFault, match="gzip"):
            await ask(endpoint)
        assert time.monotonic() - began < 2
    assert "accept-encoding: identity\r\n" in stub.headers[0].lower()


@pytest.mark.parametrize("path", ["/models", "/tokenize"])
@pytest.mark.parametrize(
    "play",
    [
        pytest.param(status(200, DEEP), id="deep"),
        pytest.param(status(200, [1]), id="a list"),
        pytest.param(status(200, {"data": 5, "count": {}}), id="no figures"),
        pytest.param(status(200, b"{" + b" " * 5_000_000), id="long"),
        pytest.param(status(200, BOMB, "Content-Encoding: gzip"), id="packed"),
        pytest.param(raw(head(200, "application/json"), b"{", end="hang"), id="hangs"),
        pytest.param(raw(head(200, "application/json"), *[b" "] * 60, pause=0.05), id="drips"),
        pytest.param(status(307, None, "Location: http://h:99999/"), id="leads away"),
    ],
)
async def test_what_is_asked_beside_a_reply_is_had_in_time_or_not_at_all(
    path: str, play: Play
) -> None:
    async with talking(models=play, tokenize=play) as (_, endpoint):
        began = time.monotonic()
        if path == "/models":
            with pytest.raises(errors.StepwiseError):
                await endpoint.models()
        else:
            assert await endpoint.count("Hi") is None
        assert time.monotonic() - began < HASTY.short + 0.5


async def test_a_server_that_is_late_with_a_count_is_not_asked_again_at_once() -> None:
    async with talking(tokenize=raw(end="hang")) as (stub, endpoint):
        assert await endpoint.special_tokens(["<b>", "<c>", "<d>"]) == {"<b>", "<c>", "<d>"}
        assert stub.counted == 1
        endpoint._counts_from = 0.0
        stub.tokenize = status(200, {"count": 2})
        assert await endpoint.special_tokens(["<b>", "<c>", "<d>"]) == frozenset()


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_a_proxy_that_does_not_answer_is_named(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Stub() as stub:
        proxy = f"127.0.0.1:{stub.port}"
    monkeypatch.setenv("ALL_PROXY", f"{kind}://name:password@{proxy}")
    endpoint = Endpoint("http://models.example/v1", patience=HASTY)
    with pytest.raises((errors.Unreachable, errors.BadAddress)) as caught:
        await ask(endpoint)
    assert proxy in str(caught.value)
    assert "ALL_PROXY" in str(caught.value)
    assert "password" not in str(caught.value)
    await endpoint.close()


async def test_a_proxy_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stub(raw(end="hang")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        endpoint = Endpoint("http://models.example/v1", patience=HASTY)
        with pytest.raises(errors.Silent, match=f"through the proxy http://127.0.0.1:{proxy.port}"):
            await ask(endpoint)
        await endpoint.close()


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:99999", "foo://h", "http://[::1"])
async def test_a_proxy_that_is_none_is_named(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    endpoint = Endpoint("http://models.example/v1", patience=HASTY)
    with pytest.raises(errors.BadAddress, match="HTTP_PROXY"):
        await ask(endpoint)
    await endpoint.close()


async def test_an_address_or_a_key_that_is_none_is_named_whatever_is_asked() -> None:
    for endpoint in (Endpoint("http://h:99999/v1"), Endpoint(api_key="secret\nkey")):
        for asking in (ask(endpoint), endpoint.models(), endpoint.forward("GET", "models")):
            with pytest.raises((errors.BadAddress, errors.KeyRefused)) as caught:
                await asking
            assert "secret" not in str(caught.value)
        assert await endpoint.count("Hi") is None
        await endpoint.close()


async def test_an_unknown_host_is_named() -> None:
    endpoint = Endpoint("http://no-such-host.invalid/v1", patience=HASTY)
    with pytest.raises(errors.Unreachable, match=r"no-such-host\.invalid"):
        await ask(endpoint)
    await endpoint.close()


async def test_closing_the_reply_hangs_up() -> None:
    async with talking(says("word " * 500, until=NEVER)) as (stub, endpoint):
        request = Request(MODEL, ({"role": "user", "content": "Hi"},), 50)
        async with aclosing(endpoint.chat(request)) as pieces:
            async for _ in pieces:
                break
        await asyncio.to_thread(until, lambda: stub.gone == 1)


async def test_a_cancelled_reply_hangs_up() -> None:
    async with talking(says("word " * 500, until=NEVER)) as (stub, endpoint):
        task = asyncio.create_task(ask(endpoint))
        await asyncio.to_thread(until, lambda: stub.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(until, lambda: stub.gone == 1)


async def test_a_lone_surrogate_in_a_reply_is_replaced() -> None:
    surrogate = b'data: {"choices":[{"index":0,"delta":{"content":"a\\ud800b"}}]}\n\n'
    async with talking(raw(EVENTS, surrogate, chunk(finish_reason="stop"))) as (_, endpoint):
        assert (await ask(endpoint))[0].text == "a\ufffdb"


async def test_no_control_character_of_a_model_or_a_server_comes_through() -> None:
    odd = "\x1b[2J\x00a\u202eb\x9b"
    listed = status(200, {"data": [{"id": odd}, {"id": "stub"}]})
    reply = raw(EVENTS, chunk(odd, reasoning=odd, refusal=odd), chunk(finish_reason="stop"))
    async with talking(reply, status(500, {"error": odd}), models=listed) as (_, endpoint):
        assert [model.name for model in await endpoint.models()] == ["stub"]
        said = (await ask(endpoint))[0]
        assert (said.text, said.reasoning, said.refusal) == ("[2Jab",) * 3
        with pytest.raises(errors.ServerFault) as failed:
            await ask(endpoint)
    assert str(failed.value).startswith("The server failed (500). [2Jab Look")


async def test_a_server_on_this_machine_is_not_asked_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with talking(says("Hello")) as (_, endpoint):
        assert await ask(endpoint)


# -- a request sent on as it is


ASKED = b'{ "model":"stub",  "made_up": {"\\u00e9": 1.50} }'


async def test_a_request_and_its_reply_go_through_byte_by_byte_with_our_key() -> None:
    """A body that is packed stays so: whoever asked for it in that encoding unpacks it."""
    packed = gzip.compress(b'{"odd" :  1}')
    told = head(200, "application/json", "Content-Encoding: gzip", length=len(packed))
    async with talking(raw(told, packed)) as (stub, endpoint):
        given = {"accept-encoding": "gzip", "content-type": "application/json"}
        reply = await endpoint.forward("POST", "chat/completions", ASKED, given)
        async with aclosing(reply.parts()) as parts:
            assert b"".join([part async for part in parts]) == packed
        await reply.close()
    assert (reply.status, reply.headers["content-encoding"]) == (200, "gzip")
    sent = stub.headers[0].lower()
    assert stub.headers[0].startswith("POST /v1/chat/completions HTTP/1.1")
    assert "authorization: bearer secret-key\r\n" in sent
    assert "accept-encoding: gzip\r\n" in sent
    assert f"content-length: {len(ASKED)}\r\n" in sent
    assert stub.requests == [json.loads(ASKED)]


async def whole(reply: RawReply) -> bytes:
    return b"".join([part async for part in reply.parts()])


async def test_a_refusal_is_a_reply_too() -> None:
    async with talking(status(400, error("No."))) as (_, endpoint):
        reply = await endpoint.forward("POST", "chat/completions", ASKED)
        assert (reply.status, json.loads(await whole(reply))) == (400, error("No."))
        await reply.close()


@pytest.mark.parametrize(
    ("play", "expected"),
    [
        pytest.param(status(401, error("bad key")), errors.KeyRefused, id="our key"),
        pytest.param(raw(end="reset"), errors.ServerFault, id="reset at once"),
        pytest.param(raw(EVENTS, HELLO, end="reset"), errors.ServerFault, id="reset in the body"),
        pytest.param(raw(end="hang"), errors.Silent, id="hangs"),
        pytest.param(raw(b"\x00\x01 not http\r\n\r\n"), errors.ServerFault, id="not HTTP"),
    ],
)
async def test_a_reply_that_cannot_be_had_is_named(
    play: Play, expected: type[errors.StepwiseError]
) -> None:
    async with talking(play) as (_, endpoint):
        with pytest.raises(errors.StepwiseError) as caught:
            await whole(await endpoint.forward("POST", "chat/completions", ASKED))
    assert type(caught.value) is expected


async def test_nobody_to_forward_to_is_unreachable() -> None:
    with Stub() as stub:
        gone = stub.base_url
    endpoint = Endpoint(gone, patience=HASTY)
    with pytest.raises(errors.Unreachable):
        await endpoint.forward("GET", "models")
    await endpoint.close()


async def test_a_forwarded_reply_that_is_closed_hangs_up() -> None:
    async with talking(says("word " * 500, until=NEVER)) as (stub, endpoint):
        reply = await endpoint.forward("POST", "chat/completions", ASKED)
        async with aclosing(reply.parts()) as parts:
            await anext(parts)
        await reply.close()
        await asyncio.to_thread(until, lambda: stub.gone == 1)


# -- models


async def test_the_models_are_listed_with_their_context() -> None:
    async with talking(max_model_len=4096) as (_, endpoint):
        assert await endpoint.models() == (ServedModel("stub", 4096, vllm=False),)


@pytest.mark.parametrize(
    "play",
    [
        status(200, b"<html></html>", kind="text/html"),
        status(200, {"models": []}),
        status(200, []),
        status(404, {"detail": "Not Found"}),
    ],
)
async def test_what_lists_no_models_is_no_openai_server(play: Play) -> None:
    async with talking(models=play) as (_, endpoint):
        with pytest.raises(errors.NotOpenAI, match="OPENAI_BASE_URL"):
            await endpoint.models()


async def test_a_model_that_is_not_served_is_named_with_those_that_are() -> None:
    with Stub() as stub:
        endpoint = Endpoint(stub.base_url, model="other")
        with pytest.raises(errors.UnknownModel, match=r"other.*It serves: stub"):
            await endpoint.model()
        await endpoint.close()


async def test_a_hung_server_does_not_hold_up_the_list_of_models() -> None:
    async with talking(models=raw(end="hang")) as (_, endpoint):
        with pytest.raises(errors.Silent):
            await endpoint.models()


# -- details


async def test_what_only_vllm_knows_is_sent_to_vllm_only() -> None:
    async with talking(step("T", "C")) as (stub, endpoint):
        await ask(endpoint)
        vllm = Request(
            ServedModel("stub", None, vllm=True), ({"role": "user", "content": "Hi"},), 5
        )
        async with aclosing(endpoint.chat(vllm)) as pieces:
            assert [piece async for piece in pieces]
    assert "repetition_detection" not in stub.requests[0]
    assert "repetition_detection" in stub.requests[1]


async def test_going_on_from_a_message_is_asked_of_vllm_only() -> None:
    turns = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "### T"})
    async with talking(step("T", "C")) as (stub, endpoint):
        for vllm in (True, False):
            model = ServedModel("stub", None, vllm=vllm)
            async with aclosing(endpoint.chat(Request(model, turns, 5, go_on=True))) as pieces:
                assert [piece async for piece in pieces]
    asked, other = stub.requests
    assert (asked["continue_final_message"], asked["add_generation_prompt"]) == (True, False)
    assert not {"continue_final_message", "add_generation_prompt"} & other.keys()


@pytest.mark.parametrize("go_on", [True, False])
async def test_a_reply_is_told_with_what_it_was_begun_with(go_on: bool) -> None:
    turns = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "One.\n"})
    model = ServedModel("stub", None, vllm=True)
    asked = Request(model, turns[: 1 + go_on], 5, go_on=go_on, begun="{", grammar="root ::= x")
    async with talking(says("x}")) as (stub, endpoint), aclosing(endpoint.chat(asked)) as pieces:
        assert "".join([piece.text async for piece in pieces]) == "{x}"
    sent = stub.requests[0]
    last = {"role": "assistant", "content": "One.\n{" if go_on else "{"}
    assert sent["messages"] == [turns[0], last]
    assert (sent["continue_final_message"], sent["add_generation_prompt"]) == (True, False)
    assert sent["structured_outputs"] == {"grammar": "root ::= x"}


async def test_a_server_that_cannot_tokenize_makes_every_candidate_special() -> None:
    async with talking() as (_, endpoint):
        assert await endpoint.special_tokens({"<|im_end|>", "<b>"}) == {"<|im_end|>", "<b>"}


async def test_another_model_is_asked_anew_what_it_takes() -> None:
    async with talking() as (stub, endpoint):
        await endpoint.models()
        endpoint.capabilities.format = "text"
        await endpoint.models()
        assert endpoint.capabilities.format == "text"
        stub.models = status(200, {"object": "list", "data": [{"id": "other"}]})
        await endpoint.models()
        assert endpoint.capabilities.format == "json_schema"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("1", 1.0),
        ("200", 200.0),
        ("0.5", 0.5),
        ("-5", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_nonsense_is_none(
    header: str | None, seconds: float | None
) -> None:
    assert retry_after(header, now=10.0) == seconds


def test_the_environment_names_server_key_and_model() -> None:
    given = {"OPENAI_BASE_URL": "http://h:1/v1/", "OPENAI_API_KEY": "k", "MODEL": "m"}
    endpoint = Endpoint.from_environment(given)
    assert (endpoint.base_url, endpoint.wanted) == ("http://h:1/v1", "m")
    assert Endpoint.from_environment({}).base_url == "http://127.0.0.1:8000/v1"
