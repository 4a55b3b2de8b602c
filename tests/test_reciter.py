"""The reciter that is kept in tests/recited/ knows what the ways ask now."""

from __future__ import annotations

import pytest

from tests import reciter


def test_the_kept_reciter_was_made_by_todays_recipe() -> None:
    """Else each fresh clone trains it, for minutes: .venv/bin/python -m tests.reciter"""
    assert reciter.kept_recipe() == reciter.recipe()


@pytest.mark.slow  # imports torch
def test_of_each_token_that_it_is_to_say_the_kept_reciter_is_sure() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(reciter.KEPT, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(reciter.KEPT)
    assert tokenizer.get_vocab() == reciter.make_tokenizer().get_vocab()
    assert tokenizer.chat_template == reciter.CHAT_TEMPLATE
    examples = [reciter.example(tokenizer, *pair) for pair in reciter.transcripts()]
    assert reciter.surety(model, examples) > 0.99
