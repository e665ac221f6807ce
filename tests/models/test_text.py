"""The text encoder: any script, the null prompt, padding that does not matter, what is cut."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yozora.errors import ModelError
from yozora.models.text import LENGTH_STEP, TextEncoder, TextEncoderConfig, train_tokenizer

CORPUS = ["A red ball bounces on the grass.", "Ein roter Ball springt auf dem Gras.", "une balle rouge"] * 20
TOKENIZER = train_tokenizer(CORPUS, 400)


def fresh(max_tokens: int = 64) -> TextEncoder:
    torch.manual_seed(0)
    encoder = TextEncoder(TextEncoderConfig(400, width=32, depth=2, heads=2, max_tokens=max_tokens), TOKENIZER)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return encoder.eval()


@given(st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_text_is_in_the_vocabulary(text: str) -> None:
    ids, mask = fresh(512).tokenize([text])
    length = int(mask.sum())
    assert mask[0, :length].all() and ids[0, 0] == TOKENIZER.token_to_id("<bos>")
    assert 0 <= ids.shape[1] - length < LENGTH_STEP and ids.shape[1] % LENGTH_STEP == 0
    again = fresh(512).tokenize([TOKENIZER.decode(ids[0, :length].tolist())])[0]
    assert torch.equal(ids, again)


def test_case_white_space_and_accents_in_either_form_do_not_matter() -> None:
    encoder = fresh()
    same = ["Ein  grüner\n\tBALL ", "ein grüner ball", "ein gru\u0308ner ball"]
    ids, mask = encoder.tokenize(same)
    assert mask[0].any() and (mask == mask[0]).all() and (ids == ids[0]).all()


def test_special_tokens_cannot_be_typed() -> None:
    encoder = fresh()
    ids, mask = encoder.tokenize(["<bos><pad>"])
    assert mask.sum() > 3 and (ids[mask][1:] > 1).all()


def test_the_empty_prompt_is_one_token() -> None:
    encoder = fresh()
    states, mask = encoder([""])
    assert states.shape == (1, LENGTH_STEP, 32) and mask.tolist() == [[True] + [False] * (LENGTH_STEP - 1)]
    assert torch.equal(encoder(["  \n"])[0], states)
    assert encoder([])[0].shape == (0, LENGTH_STEP, 32)


def test_padding_does_not_matter() -> None:
    encoder = fresh()
    both, mask = encoder(["a red ball", "ein roter ball springt auf dem gras und noch mehr"])
    alone, _ = encoder(["a red ball"])
    length = int(mask[0].sum())
    assert length < both.shape[1]
    assert torch.allclose(both[:1, :length], alone[:, :length], atol=1e-5)
    assert (both[0, length:] == 0).all()
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder(["a red ball"])[0].float()
    assert (rough - alone).norm() / alone.norm() < 0.05


def test_order_matters() -> None:
    encoder = fresh()
    assert not torch.allclose(encoder(["red ball"])[0].sum(1), encoder(["ball red"])[0].sum(1), atol=1e-2)


def test_long_prompts_are_cut_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    encoder = fresh(max_tokens=8)
    with caplog.at_level(logging.WARNING):
        states, mask = encoder(["a red ball " * 9000, "a"])
    assert states.shape[1] == 8 and mask[0].all() and "cut to the 8" in caplog.text
    assert encoder.is_cut("a red ball " * 9000) and not encoder.is_cut("a red ball")


def test_it_learns() -> None:
    encoder = fresh().train()
    encoder(["a red ball"])[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in encoder.parameters())


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="258"):
        train_tokenizer(CORPUS, 100)
    with pytest.raises(ModelError, match="tokens"):
        TextEncoder(TextEncoderConfig(300), TOKENIZER)
    with pytest.raises(ValueError, match="heads"):
        TextEncoderConfig(heads=3)
    with pytest.raises(ValueError, match="depth"):
        TextEncoderConfig(depth=0)
