"""The gate as vLLM gets it, before an application that answers 200 to whatever reaches it.

VLLM_API_KEY=... python -m bench.faults.guarded PORT
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn

from serving.gate import VLLMGate

REACHED = b"reached"


async def reached(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    length = (b"content-length", str(len(REACHED)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": REACHED})


if __name__ == "__main__":
    uvicorn.run(VLLMGate(reached), port=int(sys.argv[1]), log_level="error")
