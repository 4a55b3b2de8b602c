"""scripts/bench parts: what is asked of the parts, and what the table says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2
import pytest

from bench import parts
from bench.parts import TRANSACTIONS, Row, Worker, load, report, thinker, written
from history.store import Store
from tests.gateway_server import gateway
from tests.stub import Stub


def test_a_worker_is_healthy_and_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parts.REPLIES, "stub", 2)
    with Worker(thinker) as stub:
        root = stub.base_url.removesuffix("/v1")
        assert httpx2.get(f"{root}/health").status_code == 200
        asyncio.run(load(stub.port, "stub"))
    assert len(stub.requests) == parts.STREAMS * 2


def test_a_chain_in_steps_writes_as_many_tokens_as_it_is_said_to_cost() -> None:
    with Stub(thinker) as stub, gateway(stub.base_url) as url:
        body = {"model": "stub-steps", "messages": [{"role": "user", "content": "Why?"}]}
        usage = httpx2.post(f"{url}/chat/completions", json=body, timeout=60).json()["usage"]
    assert abs(usage["completion_tokens"] / parts.TOKENS["stub-steps"] - 1) < 0.02


def test_each_transaction_holds_a_piece_of_each_run(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'h.db'}")
    assert len(written(store, runs=3)) == TRANSACTIONS
    threads = store.threads("bench")
    assert len(threads) == 3
    store.close()


def test_the_table_says_the_median_and_how_far_it_goes() -> None:
    text = report([Row("router, a token", [0.0031, 0.0029, 0.0035])], "scripts/bench parts")
    assert "| router, a token | 0.0031 (0.0029 to 0.0035) |" in text
