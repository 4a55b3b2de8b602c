#!/usr/bin/env bash
# Serve a model behind an OpenAI-compatible API on this machine.
#
#   ./serve.sh                                    the best model this machine holds, on port 8000
#   ./serve.sh --ui                               and the page that shows it thinking, on port 8501
#   ./serve.sh --gateway                          and step-by-step thinking for any OpenAI client, on 8001
#   ./serve.sh --list                             what there is, and whether it is here
#   ./serve.sh --model satori-7b-round2 --ui      another one
#   ./serve.sh --model ~/models/my-llama          a folder
#   ./serve.sh --model Qwen/Qwen3-14B             any model of a hub
#   ./serve.sh --model llama-3.1-8b-instruct -- --quantization fp8    the rest goes to vLLM
#
# The first start installs what is needed into .venv. Everything else is in serving/.
set -euo pipefail

called_from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"
# Some containers forbid bytecode: each start would compile all of vLLM again, three times over.
unset PYTHONDONTWRITEBYTECODE
python=$(scripts/python)
exec env STEPWISE_CALLED_FROM="$called_from" "$python" -m serving "$@"
