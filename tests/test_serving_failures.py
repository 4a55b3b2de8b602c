"""From the log of a dead vLLM to the lines that matter; the logs are real ones, shortened."""

from __future__ import annotations

import pytest

from serving.failures import explain

CONTEXT = """\
(APIServer pid=1) Traceback (most recent call last):
(APIServer pid=1)   File "/x/arg_utils.py", line 2100, in create_model_config
(APIServer pid=1)     return ModelConfig(
(APIServer pid=1) pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
(APIServer pid=1)   Value error, User-specified max_model_len (100000) is greater than the derived max_model_len (max_position_embeddings=8192.0 or model_max_length=8192 in model's config.json). [type=value_error, input_value=ArgsKwargs((), {'model': ...}), input_type=ArgsKwargs]
(APIServer pid=1)     For further information visit https://errors.pydantic.dev/2.12/v/value_error
"""  # noqa: E501
MEMORY = """\
(EngineCore pid=7) ERROR 11-20 22:18:43 [core.py:1120] EngineCore failed to start.
(EngineCore pid=7) ERROR 11-20 22:18:43 [core.py:1120] Traceback (most recent call last):
(EngineCore pid=7) ERROR 11-20 22:18:43 [core.py:1120]   File "/x/kv_cache_utils.py", line 700, in check
(EngineCore pid=7) ERROR 11-20 22:18:43 [core.py:1120]     raise ValueError(
(EngineCore pid=7) ERROR 11-20 22:18:43 [core.py:1120] ValueError: To serve at least one request with the models's max seq len (18016), (2.2 GiB KV cache is needed, which is larger than the available KV cache memory (1.1 GiB).
(EngineCore pid=7) Process EngineCore:
(APIServer pid=1) Traceback (most recent call last):
(APIServer pid=1)   File "/x/core_client.py", line 90, in wait
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""  # noqa: E501
CUDA = """\
(Worker_TP0 pid=9) ERROR 01-02 03:04:05 [multiproc_executor.py:80] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 112.00 MiB. GPU 0 has a total capacity of 7.6 GiB
(EngineCore pid=7) RuntimeError: Worker failed with error 'CUDA out of memory', please check the stack trace above for the root cause
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.
"""  # noqa: E501
USAGE = """\
usage: api_server.py [-h] [--headless]
                     [--api-server-count API_SERVER_COUNT]
api_server.py: error: unrecognized arguments: --frobnicate
"""


def test_the_cause_in_the_engine_is_told_and_not_its_echo() -> None:
    failure = explain(MEMORY, 1)
    assert failure.lines[0].startswith("ValueError: To serve at least one request")
    assert len(failure.lines) == 1
    assert "--max-model-len" in failure.advice


def test_a_context_longer_than_the_models_is_told_with_its_reason() -> None:
    failure = explain(CONTEXT, 1)
    assert "greater than the derived max_model_len" in " ".join(failure.lines)
    assert not any("Traceback" in line or "File" in line for line in failure.lines)
    assert "smaller --max-model-len" in failure.advice


def test_a_full_gpu_is_told_with_advice() -> None:
    failure = explain(CUDA, 1)
    assert any("CUDA out of memory" in line for line in failure.lines)
    assert "smaller model" in failure.advice


def test_a_flag_that_vllm_does_not_know_is_told_without_its_usage() -> None:
    failure = explain(USAGE, 2)
    assert failure.lines == ("api_server.py: error: unrecognized arguments: --frobnicate",)
    assert "--" in failure.advice


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("OSError: [Errno 98] Address already in use", "--port"),
        ("RuntimeError: The NVIDIA driver on your system is too old", "driver"),
        ("ImportError: libnuma.so.1: cannot open shared object file", "library"),
        ("safetensors._safetensors_rust.SafetensorError: Error while deserializing", "damaged"),
        ("ValueError: Bfloat16 is only supported on GPUs with compute capability", "--dtype half"),
    ],
)
def test_known_causes_come_with_advice(line: str, advice: str) -> None:
    failure = explain(f"(EngineCore pid=3) {line}\n", 1)
    assert failure.lines == (line,)
    assert advice in failure.advice


DEAD_ENGINE = """\
(APIServer pid=1) INFO 11-20 22:18:44 [hf.py:648] Detected the chat template content format to be 'string'.
(APIServer pid=1) ERROR 11-20 23:13:27 [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.
"""  # noqa: E501


def test_an_engine_that_was_killed_is_told_as_what_is_known_of_it() -> None:
    failure = explain(DEAD_ENGINE, 0)
    assert failure.what == "has stopped, for its engine ended"
    assert failure.lines == ()  # what the server says of its engine is no reason
    assert "does not say why" in failure.advice
    assert "out of memory" not in failure.advice


def test_an_engine_that_says_why_it_ends_is_quoted() -> None:
    log = "(EngineCore pid=7) ERROR 11-20 22:18:43 [core.py:1120] RuntimeError: a bad sum\n"
    failure = explain(log + DEAD_ENGINE, 1)
    assert failure.lines == ("RuntimeError: a bad sum",)


def test_what_vllm_says_on_its_way_up_is_no_cause() -> None:
    log = "INFO 11-20 22:18:44 [x.py:1] CUDA out of memory is avoided\nValueError: no\n"
    assert explain(log, 1).advice == ""


def test_a_kill_is_told_without_lines_that_have_nothing_to_do_with_it() -> None:
    log = "INFO 11-20 22:18:44 [entry.py:1] all is well\nValueError: of a request, long ago\n"
    for status in (137, -9):  # the server, or what stands over it
        failure = explain(log, status)
        assert (failure.what, failure.lines) == ("was ended by SIGKILL", ())
        assert "out of memory" not in failure.advice


def test_memory_is_named_where_the_kernel_says_that_it_ran_out() -> None:
    assert "out of memory" in explain("", 137, out_of_memory=True).advice
    assert "out of memory" not in explain("ValueError: no\n", 1, out_of_memory=True).advice


def test_an_end_without_an_error_is_told_without_its_chatter() -> None:
    log = 'INFO 11-20 22:18:44 [x.py:1] bye\n - leaked function "x"\nnanobind: see there\n'
    failure = explain(log, 0)
    assert (failure.what, failure.lines, failure.advice) == ("has stopped by itself", (), "")


@pytest.mark.parametrize("log", ["", "\n\n", "one\ntwo\nthree\nfour\n"])
def test_a_log_without_an_error_gives_its_last_lines(log: str) -> None:
    failure = explain(log, 1)
    assert failure.lines == tuple(log.split()[-3:])
    assert failure.advice == ""


def test_a_log_of_ours_is_told_as_its_words() -> None:
    """As page and gateway write it (reasoning/logs.py); a line that is cut stays as it is."""
    begins = '{"time": "2026-11-27T20:00:00.000+00:00", "level": '
    lines = [
        begins + '"info", "logger": "gateway.logs", "message": "A run failed", "code": "busy"}',
        begins + '"error", "logger": "uvicorn.error", "message": "address already in use"}',
        begins + '"error", "message": "It ended", "errors": [{"type": "OSError", "at": []}]}',
        begins + '"err',
    ]
    assert explain("\n".join(lines[:2]), 1).lines == ("address already in use",)
    assert "--port" in explain("\n".join(lines[:2]), 1).advice
    assert explain("\n".join(lines[:3]), 1).lines == ("OSError: It ended",)
    assert explain(lines[3], 1).lines == (lines[3],)
