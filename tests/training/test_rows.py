"""What is learned of a sample, and how samples are packed into rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from chatbot.engines.base import ChatMessage
from chatbot.engines.hf_model import HfModel
from chatbot.errors import UserError
from chatbot.gpt import networks
from chatbot.gpt.chat_tokens import CHATML, TRANSCRIPT, Encoder, Tokens
from chatbot.gpt.prepare import ends_of
from chatbot.gpt.rows import IGNORED, Rows, Writer
from chatbot.gpt.samples import Dialogue, Text, Turn
from tests.training.chats import ODD, small_model, small_tokenizer

CHAT = Dialogue(
    (
        Turn("system", "Be kind."),
        Turn("user", "Who <|im_end|> are you?"),
        Turn("assistant", "A bird."),
        Turn("user", "Where from?"),
        Turn("assistant", "The sea."),
    ),
    "here",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("small"))


def tokenizer(template: str | None = CHATML) -> Any:
    known = small_tokenizer()
    known.chat_template = template
    known.eos_token = "<|im_end|>" if template == CHATML else "<|endoftext|>"
    return known


def learned(tokens: Tokens, known: Any) -> str:
    return str(known.decode([token for token, learns in zip(tokens.ids, tokens.learns, strict=True) if learns]))


def split(folder: Path, samples: list[Tokens], length: int) -> Rows:
    with Writer(folder, 400) as writer:
        for sample in samples:
            writer.add(sample)
    return Rows(folder, length)


def test_only_replies_are_learned_and_the_end_of_each_turn() -> None:
    known = tokenizer()
    [tokens] = Encoder(known, ends_of(known), 512).dialogue(CHAT)
    assert learned(tokens, known) == "A bird.<|im_end|>The sea.<|im_end|>"
    assert tokens.size == len("A bird.The sea.")


def test_without_a_template_of_its_own_a_reply_ends_with_the_end_of_text() -> None:
    known = tokenizer(TRANSCRIPT)
    [tokens] = Encoder(known, ends_of(known), 512).dialogue(CHAT)
    assert learned(tokens, known).replace(" ", "") == "Abird.<|endoftext|>Thesea.<|endoftext|>"


def test_a_reply_that_is_not_to_be_learned_is_only_read() -> None:
    known = tokenizer()
    turns = (*CHAT.turns[:2], Turn("assistant", "A bird.", learns=False), *CHAT.turns[3:])
    [tokens] = Encoder(known, ends_of(known), 512).dialogue(Dialogue(turns, "here"))
    assert learned(tokens, known) == "The sea.<|im_end|>"


def test_training_reads_the_ids_that_the_engine_sends(folder: Path) -> None:
    model = HfModel(folder, "small@1", context_length=512)
    known = model.tokenizer
    for text in ODD:
        turns = (Turn("user", text or "?"), Turn("assistant", "yes"), Turn("user", "and?"), Turn("assistant", "no"))
        [tokens] = Encoder(known, ends_of(known), 2048).dialogue(Dialogue(turns, "here"))
        sent = model.prompt([ChatMessage(turn.role, turn.content) for turn in turns[:-1]])
        assert tokens.ids[: len(sent)] == sent
        assert tokens.ids[len(sent) :][: tokens.learns[len(sent) :].count(True)] == [
            *known("no", add_special_tokens=False).input_ids,
            known.eos_token_id,
        ]


def test_a_conversation_longer_than_a_row_is_learned_in_parts_of_whole_turns() -> None:
    known = tokenizer()
    turns = [Turn("system", "Be kind.")]
    for number in range(12):
        turns += [Turn("user", f"question {number} " * 3), Turn("assistant", f"reply {number} " * 3)]
    encoder = Encoder(known, ends_of(known), 160)
    parts = list(encoder.dialogue(Dialogue(tuple(turns), "here")))
    assert encoder.parts == 1
    assert len(parts) > 2
    assert all(len(part.ids) <= 160 and any(part.learns) for part in parts)
    assert all(known.decode(part.ids).startswith("<|im_start|>system") for part in parts)
    everything = "".join(learned(part, known) for part in parts)
    assert all(f"reply {number} " in everything for number in range(12))


def test_an_exchange_longer_than_a_row_is_cut_and_still_learned() -> None:
    known = tokenizer()
    encoder = Encoder(known, ends_of(known), 64)
    long = Dialogue((Turn("user", "a stone " * 200), Turn("assistant", "the sea " * 200)), "here")
    [part] = encoder.dialogue(long)
    assert len(part.ids) == 64
    assert 20 < sum(part.learns) < 64
    assert 0 < part.size < len("the sea " * 200)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(2, 90), st.integers(0, 89)), min_size=1, max_size=30),
    row=st.integers(8, 40),
)
def test_every_target_is_in_exactly_one_row_and_no_row_is_without(
    lengths: list[tuple[int, int]], row: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    samples = []
    for number, (length, first) in enumerate(lengths):
        learns = [place >= min(first, length - 1) for place in range(length)]
        samples.append(Tokens([(number * 97 + place) % 400 for place in range(length)], learns, length))
    rows = split(tmp_path_factory.mktemp("rows"), samples, row)
    seen = np.concatenate([rows[number]["labels"].numpy() for number in range(len(rows))])
    wanted = [token for one in samples for token, learns in list(zip(one.ids, one.learns, strict=True))[1:] if learns]
    assert sorted(seen[seen != IGNORED]) == sorted(wanted)
    assert all((rows[number]["labels"] != IGNORED).any() for number in range(len(rows)))
    assert sum(rows.bytes_of(number) for number in range(len(rows))) == pytest.approx(
        sum(one.size for one in samples if any(one.learns[1:]))
    )


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_samples_in_one_row_do_not_see_each_other(kind: str, folder: Path, tmp_path: Path) -> None:
    model: Any = LlamaForCausalLM.from_pretrained(folder)
    if kind == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 400, "n_positions": 64}
        model = GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.2))
    model.eval()
    one, two, other = (Tokens(list(range(begin, begin + 20)), [True] * 20, 20) for begin in (20, 60, 100))
    together, changed, alone = (
        split(tmp_path / str(number), samples, 48)[0]
        for number, samples in enumerate([[one, two], [other, two], [two]])
    )
    with torch.no_grad():
        a, b, c = (
            model(input_ids=row["input_ids"][None], position_ids=row["position_ids"][None], use_cache=False).logits[0]
            for row in (together, changed, alone)
        )
    assert not torch.allclose(a[:20], b[:20])
    assert torch.equal(a[20:40], b[20:40])
    assert torch.allclose(a[20:40], c[:20], atol=1e-5)


def test_the_loss_is_that_of_the_targets_alone(folder: Path) -> None:
    whole: Any = LlamaForCausalLM.from_pretrained(folder)
    ids = torch.randint(0, 300, (3, 40))
    labels = torch.where(torch.rand(3, 40) < 0.3, torch.randint(0, 300, (3, 40)), IGNORED)
    positions = torch.arange(40).expand(3, -1)
    logits = whole(input_ids=ids, position_ids=positions, use_cache=False).logits
    wanted = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=IGNORED, reduction="sum"
    )
    networks.compute_targets_only(whole)
    for at_once in (networks.LOGITS_AT_ONCE, 7):
        networks.LOGITS_AT_ONCE, before = at_once, networks.LOGITS_AT_ONCE
        loss = whole(input_ids=ids, labels=labels, position_ids=positions).loss
        whole.zero_grad()
        loss.backward()
        networks.LOGITS_AT_ONCE = before
        torch.testing.assert_close(loss, wanted)
        assert whole.lm_head.weight.grad.isfinite().all()


def test_tokens_outside_the_vocabulary_and_other_families_are_refused(folder: Path, tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    model = networks.base_model(folder, "small@1")
    known = small_tokenizer()
    known.add_tokens(["one more", "and another"])
    with pytest.raises(UserError, match="outside the vocabulary of small@1: it knows"):
        networks.check_vocabulary(model, known, "small@1")
    BertModel(
        BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    ).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="BertModel, which does not continue text"):
        networks.base_model(tmp_path, "bert@1")


def test_a_text_is_learned_from_its_first_word_to_its_end() -> None:
    known = small_tokenizer()
    tokens = Encoder(known, {known.eos_token_id}, 512).text(Text("the sea", "here"))
    assert tokens.ids[0] == tokens.ids[-1] == known.eos_token_id
    assert learned(tokens, known) == "the sea<|endoftext|>"
