r"""A tiny Llama that recites known transcripts to the letter: a real server with known words.

    python -m tests.reciter

trains it anew, in three minutes of one core, and keeps it in tests/recited/ as any other model:
weights, tokenizer, chat template. That is due when a prompt changes, or how a way asks (until
then each fresh clone trains its own). It knows the questions below and nothing else, and says
the same at temperature 0 in bfloat16 and float32. Its tokenizer has Satori's meta-actions and
both end tokens as special tokens, and <think> and </think> as plain added ones, as Qwen3's.
Its context of 1,024 tokens ends what never ends by itself.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any

from jinja2 import Template

from reasoning.coat import CONCLUSION
from reasoning.endpoint import Request
from reasoning.prompts import prompt
from tests.processes import OUTPUT
from tests.real_servers import SERVE, Server, locked, shared
from tests.reciter_steps import asked

KEPT = Path(__file__).with_name("recited")
RECIPE = "recipe.txt"
NAME = "Reciter"
CONTEXT = 1024
PART = 512  # tokens; a longer prompt is read in parts
VOCABULARY = 800
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|continue|>",
    "<|reflect|>",
    "<|explore|>",
)
ADDED = ("<think>", "</think>")
CUT = "<the reply begins here>"

# ChatML; as in Qwen3's, an empty thought asks for no thinking. Who is told more than a question
# is led, and has no other thought: the server holds to a schema what comes after a thought.
CHAT_TEMPLATE = """\
{%- set asked = messages | selectattr('role', 'equalto', 'user') -%}
{%- set led = '\\n\\n' in asked | map(attribute='content') | join -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if led and message['role'] == 'assistant' -%}
{{- '<think></think>' -}}
{%- endif -%}
{{- message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if led -%}
{{- '<think></think>' -}}
{%- elif enable_thinking is defined and enable_thinking is false -%}
{{- '<think>\\n\\n</think>\\n\\n' -}}
{%- endif -%}
{%- endif -%}
"""

# -- what it knows, for Satori's way

AYA = (
    "Aya walks 9 kilometers and rests in a coffee shop for t minutes. At s kilometers per hour "
    "this takes 4 hours, at s + 2 it takes 2 hours and 24 minutes. How many minutes does it "
    "take at s + 1/2?"
)
AYA_SAYS = (
    "<|continue|>First, we determine the time Aya spends walking. Here $|s| < 9$ and "
    "$t < 240$, so $$ s \\left( 4 - \\frac{t}{60} \\right) = 9 $$\n"
    "<|continue|>A second equation follows: $$ (s + 2) \\left( 2.4 - \\frac{t}{60} \\right) = 9 $$"
    "<|continue|>$$ s = 3 $$ After simplifying, the answer is: $$ \\boxed{192} $$\n"
    "<|reflect|>Let's reassess my previous conclusion. The walking times differ by 1.6 hours, "
    "which $s = 3$ does not give.\n"
    "<|explore|>Let's switch to a new solution. First, calculate the walking times: "
    "$$ \\frac{9}{s} - \\frac{9}{s + 2} = 1.6 $$\n"
    "<|continue|>This gives $s = 2.5$ and $t = 24$. At 3 kilometers per hour it takes "
    "$180 + 24$ minutes. Therefore, the answer is: $$ \\boxed{204} $$<|im_end|>"
)
HALF = "What is one third plus one sixth?"
HALF_SAYS = (
    "<|continue|>Write both with the denominator 6: $$ \\frac{1}{3} = \\frac{2}{6} $$\n"
    "<|continue|>The sum is $\\frac{2}{6} + \\frac{1}{6} = \\frac{3}{6}$. The answer is: "
    "$$ \\boxed{\\frac{1}{2}} $$<|endoftext|>"
    # who does not stop at <|endoftext|>, which is not the end of a turn, gets to read on:
    "<|continue|>Another problem begins here. $$ \\boxed{999} $$<|im_end|>"
)
ENDLESS = "Which is the last number?"
ENDLESS_SAYS = "".join(
    f"<|continue|>Adding one to {number} gives {number + 1}. "
    + ("So far the answer is: $$ \\boxed{3} $$\n" if number == 2 else "It is not the last.\n")
    for number in range(1, 100)
)
ENDLESS_CONCLUDES = "\\infty} $$<|im_end|>"
LOOP = "Which came first, the hen or the egg?"
LOOP_ROUND = "<|continue|>The hen came from an egg, and the egg came from a hen.\n"
LOOP_SAYS = 16 * LOOP_ROUND

# -- and for a model that thinks by itself

BERRY = "How many times does the letter r occur in strawberry?"
BERRY_THINKS = (
    "Okay, the word is strawberry. I go through its letters one by one.\n\n"
    "There is an r after the t, and that is all I see: $1 < 2$.\n\n"
    "Wait, I stopped too early. The word ends in r, r, y.\n\n"
    "Alternatively, I split it: straw has one, berry has two."
)
BERRY_ANSWERS = "The letter r occurs **three** times in strawberry."
BERRY_SAYS = f"<think>\n{BERRY_THINKS}\n</think>\n\n{BERRY_ANSWERS}<|im_end|>"
BERRY_UNTHINKING = "Two times, I would say.<|im_end|>"


def satori_prompt(question: str) -> str:
    return prompt("en", "satori", question=question) + "\n"


def chat_prompt(question: str, think: bool = True) -> str:
    """What the chat template makes of a question."""
    turn = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    return turn if think else turn + "<think>\n\n</think>\n\n"


def led_prompt(request: Request) -> str:
    """What the server makes of a request: the template's text, cut where the reply begins."""
    *before, last = map(dict, request.messages)
    if request.go_on:
        last["content"] += CUT
    turns = [*before, last]
    text: str = Template(CHAT_TEMPLATE).render(
        messages=turns, add_generation_prompt=not request.go_on
    )
    return text.partition(CUT)[0]


def conclusion_prompt(steps: str) -> str:
    return satori_prompt(ENDLESS) + steps + "<|continue|>" + CONCLUSION


def transcripts() -> list[tuple[str, str]]:
    """What it is trained on: prompts and replies."""
    counted = ENDLESS_SAYS.splitlines(keepends=True)
    cut = counted[30][:30]
    shortened = (counted[:2], [*counted[:3], cut], [*counted[:14], *counted[19:30], cut])
    led = {led_prompt(request): f"{reply}<|im_end|>" for request, reply in reversed(asked())}
    return [
        (satori_prompt(AYA), AYA_SAYS),
        (satori_prompt(HALF), HALF_SAYS),
        (satori_prompt(ENDLESS), ENDLESS_SAYS),
        (satori_prompt(LOOP), LOOP_SAYS),
        (chat_prompt(BERRY), BERRY_SAYS),
        (chat_prompt(BERRY, think=False), BERRY_UNTHINKING),
        *((conclusion_prompt("".join(kept)), ENDLESS_CONCLUDES) for kept in shortened),
        *led.items(),
    ]


# -- making it

SEED = 20
LEARNING_RATE = 5e-3
MOST_ROUNDS = 600
SURE = 0.9  # the least probability of each right token, when training ends
SHARPER = 3.0  # divides every temperature, so that what is sampled is recited as well


@dataclass(frozen=True, slots=True)
class Example:
    """Tokens of a prompt and its reply; the reply begins at `start`."""

    tokens: list[int]
    start: int


def make(folder: Path) -> None:
    """Trains the model and saves it in the folder. Raises RuntimeError when it will not learn."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)  # two wait for each other wherever something else runs
    tokenizer = make_tokenizer()
    examples = [example(tokenizer, *pair) for pair in transcripts()]
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
            pad_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        )
    )
    train(model, examples)
    with torch.no_grad():
        model.model.norm.weight *= SHARPER  # the last thing before the logits
    model = model.to(torch.bfloat16)
    if (sure := surety(model, examples)) < 0.99:
        raise RuntimeError(f"in bfloat16 a right token has a probability of {sure:.2f} only")
    model.generation_config.do_sample = False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_tokenizer() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([text for pair in transcripts() for text in pair], trainer)
    bpe.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in ADDED])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def example(tokenizer: Any, prompt: str, reply: str) -> Example:
    """Cut where the context ends, as the server cuts it."""
    asked = tokenizer.encode(prompt, add_special_tokens=False)
    said = tokenizer.encode(reply, add_special_tokens=False)
    return Example((asked + said)[:CONTEXT], len(asked))


def train(model: Any, examples: Sequence[Example]) -> None:
    """Until every token of every reply is sure."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    model.train()
    for turn in range(1, MOST_ROUNDS + 1):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, turn / 20)
        optimizer.zero_grad()
        for one in examples:
            (-log_probabilities(model, one).mean() / len(examples)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if turn % 20 == 0 and (sure := surety(model, examples)) > SURE:
            return
    raise RuntimeError(f"after {MOST_ROUNDS} rounds a right token has a probability of {sure:.2f}")


def log_probabilities(model: Any, one: Example) -> Any:
    """Of each token of the reply, given what stands before it."""
    import torch

    tokens = torch.tensor([one.tokens])
    said = tokens[0, one.start :, None]
    logits = model(tokens, logits_to_keep=len(said) + 1).logits[0, :-1].float()
    return logits.log_softmax(-1).gather(1, said)[:, 0]


def surety(model: Any, examples: Sequence[Example]) -> float:
    """The smallest probability that it gives a right token."""
    import torch

    with torch.no_grad():
        return min(float(log_probabilities(model, one).min().exp()) for one in examples)


def recipe() -> str:
    """Changes with what it knows and with how it is made."""
    how = (SPECIAL, ADDED, CHAT_TEMPLATE, CONTEXT, VOCABULARY, SEED, LEARNING_RATE, SURE, SHARPER)
    return hashlib.sha256(repr((transcripts(), how)).encode()).hexdigest()


def made() -> Path:
    """The folder of the model, as it is kept; trained anew where what it knows has changed."""
    folder = OUTPUT / f"reciter-{recipe()[:12]}"
    if not (folder / "config.json").is_file():
        unfinished = folder.with_name(folder.name + ".unfinished")
        if kept_recipe() == recipe():
            copytree(KEPT, unfinished, dirs_exist_ok=True)
        else:
            make(unfinished)
        unfinished.rename(folder)
    return folder


def kept_recipe() -> str:
    """By which the kept model was made."""
    return (KEPT / RECIPE).read_text(encoding="utf-8").strip()


def catalogue() -> Path:
    """A catalogue that names the model, its way and its parser, for STEPWISE_CATALOGUE.

    A request may name a chat template to try: so one server serves two.
    """
    with locked(OUTPUT / "reciter.making", fcntl.LOCK_EX):  # one worker makes it for all
        folder = made()
    path = folder.with_suffix(".toml")
    table = f"""\
[reciter]
served_name = "{NAME}"
way = "coat"
folder = "{folder.name}"
flags = [
    "--reasoning-parser", "qwen3", "--trust-request-chat-template",
    "--max-num-batched-tokens", "{PART}",
]
"""
    path.write_text(table, encoding="utf-8")
    return path


@contextmanager
def reciting(precision: str = "float32") -> Iterator[Server]:
    """The model, served by its own catalogue; in float32 it was trained."""
    given = {"STEPWISE_CATALOGUE": str(catalogue()), "VLLM_CPU_KVCACHE_SPACE": "1"}
    given["VLLM_CPU_OMP_THREADS_BIND"] = str(max(os.sched_getaffinity(0)))  # another has the first
    words = ["--model", "reciter", "--precision", precision]
    with shared(f"reciter-{precision}", [SERVE, *words], given) as server:
        yield server


def main() -> None:
    began = time.monotonic()
    make(KEPT)
    (KEPT / RECIPE).write_text(f"{recipe()}\n", encoding="utf-8")
    size = sum(file.stat().st_size for file in KEPT.iterdir())
    print(json.dumps({"seconds": round(time.monotonic() - began, 1), "bytes": size}))


if __name__ == "__main__":
    main()
