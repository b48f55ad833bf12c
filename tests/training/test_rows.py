"""What is learned of a sample, and how samples are packed into rows."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertLMHeadModel,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

from chatbot.engines.base import ChatMessage
from chatbot.engines.hf_model import HfModel
from chatbot.errors import UserError
from chatbot.gpt import networks
from chatbot.gpt import tokenizer as tokenizers
from chatbot.gpt.chat_tokens import CHATML, TRANSCRIPT, Encoder, Tokens, use_template
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


_ALTERNATE = (
    "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate, and none is of the system') }}{% endif %}"
)
MOVES = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set messages = messages[1:] %}{% endif %}"
    "{% set newest = (messages | selectattr('role', 'equalto', 'user') | list)[-1] %}"
    "{% for message in messages %}" + _ALTERNATE + "{% if message.role == 'user' %}<|im_start|>"
    "{% if message == newest and system is defined %}{{ system }}\n\n{% endif %}{{ message.content }}[/INST]"
    "{% else %} {{ message.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
"""As Mistral's: the system prompt stands in the person's newest message, and a reply begins with a space."""

DROPS = MOVES.replace("message == newest", "loop.last")
"""So too, but nowhere any more once that message is answered."""

REFUSES = CHATML.replace("%}<|im_start|>", "%}" + _ALTERNATE + "<|im_start|>", 1)
"""As Gemma's."""

THINKS = CHATML.replace(
    "{{ message.content }}",
    "{% if loop.last and message.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ message.content }}",
)
"""As Qwen3's: thoughts, be they empty, stand in the newest reply alone."""


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


def without_template(*, begins: bool = False) -> Any:
    """A tokenizer that knows no control tokens of chats; `begins`: it puts a token before each text."""
    backend = Tokenizer.from_str(small_tokenizer().backend_tokenizer.to_str().replace("<|im_", "<|other_"))
    if begins:
        backend.post_processor = TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # untyped there
        tokenizer_object=backend, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )


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


@pytest.mark.parametrize(
    ("template", "beyond"),
    [(CHATML, ""), (None, ""), (MOVES, " "), (DROPS, " "), (REFUSES, ""), (THINKS, "<think>\n\n</think>\n\n")],
    ids=["chatml", "none", "moves the system", "drops the system", "refuses a system", "thinks in the last reply"],
)
def test_training_reads_the_ids_that_the_engine_sends(template: str | None, beyond: str, tmp_path: Path) -> None:
    small_model(tmp_path, template=template)
    if template is None:
        without_template(begins=True).save_pretrained(tmp_path)
        known = tokenizers.load(tmp_path)
        use_template(known)
        base = HfModel(tmp_path, "small@1", context_length=512)
        known.save_pretrained(tmp_path)
    model = HfModel(tmp_path, "small@1", context_length=512)
    known = model.tokenizer
    for text in ODD:
        turns = [
            Turn("system", "Be kind."), Turn("user", text or "?"), Turn("assistant", "yes"),
            Turn("user", "and?"), Turn("assistant", "no"),
        ]  # fmt: skip
        found = list(Encoder(known, ends_of(known), 2048).dialogue(Dialogue(tuple(turns), "here")))
        assert len(found) == (2 if template in (MOVES, DROPS, THINKS) else 1)
        for number in (2, 4):
            asked = [ChatMessage(turn.role, turn.content) for turn in turns[:number]]
            sent = model.prompt(asked)
            tokens = next(one for one in found if one.ids[: len(sent)] == sent and one.learns[len(sent)])
            assert not tokens.learns[len(sent) - 1]
            said = [known(one, add_special_tokens=False).input_ids for one in (beyond, turns[number].content) if one]
            reply = [*itertools.chain(*said), known.eos_token_id]
            assert tokens.ids[len(sent) :][: len(reply)] == reply
            assert all(tokens.learns[len(sent) :][: len(reply)])
            if template is None and number == 2:
                assert sent == base.prompt(asked) + known(" ", add_special_tokens=False).input_ids
        assert sum(sum(one.learns) for one in found) == sum(
            len(known(beyond + reply, add_special_tokens=False).input_ids) + 1 for reply in ("yes", "no")
        )


def test_what_two_say_in_a_row_is_one_message_and_nothing_is_said_before_the_person_speaks() -> None:
    known = tokenizer(REFUSES)
    turns = (
        Turn("system", "Be kind."), Turn("assistant", "Hello!"), Turn("user", "A picture of a bird"),
        Turn("user", "Who are you?"), Turn("assistant", "A stone."), Turn("assistant", "No, a bird."),
        Turn("user", "Where from?"),
    )  # fmt: skip
    [tokens] = Encoder(known, ends_of(known), 512).dialogue(Dialogue(turns, "here"))
    assert learned(tokens, known) == "A stone.\n\nNo, a bird.<|im_end|>"
    assert "user\nBe kind.\n\nA picture of a bird\n\nWho are you?<|im_end|>" in known.decode(tokens.ids)
    assert "Hello" not in known.decode(tokens.ids)
    assert "Where from" not in known.decode(tokens.ids)
    assert not list(Encoder(known, ends_of(known), 512).dialogue(Dialogue(turns[:4], "here")))


def test_a_conversation_that_the_template_refuses_nonetheless_is_named() -> None:
    known = tokenizer("{% if messages | length > 2 %}{{ raise_exception('Too long.') }}{% endif %}x")
    with pytest.raises(UserError) as caught:
        list(Encoder(known, {0}, 512).dialogue(Dialogue(CHAT.turns, "chats.jsonl, line 3")))
    said = "chats.jsonl, line 3: the chat template of the base model refuses this conversation: Too long."
    assert str(caught.value) == said


def test_the_end_of_a_turn_is_what_the_template_writes_or_the_base_says_it_is() -> None:
    known = without_template()
    reply = "{{ message.content }}"
    start, end = "<|other_start|>", "<|other_end|>"
    other, base = known.convert_tokens_to_ids([end, start])
    for after, configured, ends in (
        (end, None, end),
        (f"\n{start}", [known.eos_token_id, base], f"\n{start}"),
        ("\n", None, "<|endoftext|>"),
    ):
        known.chat_template = "{% for message in messages %}" + f"{start}{reply}{after}" + "{% endfor %}"
        assert ends_of(known) == ({known.eos_token_id, other} if after == end else {known.eos_token_id})
        [tokens] = Encoder(known, ends_of(known, configured), 512).dialogue(Dialogue(CHAT.turns[:3], "here"))
        assert learned(tokens, known).removeprefix(start) == f"A bird.{ends}"


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


def other_kind(kind: str, **more: Any) -> Any:
    """A small model of another family, its weights far from zero."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2} | more
    match kind:
        case "gpt2":
            return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=400, initializer_range=0.2))
        case "bloom":
            return BloomForCausalLM(BloomConfig(**sizes, initializer_range=0.2))
        case "opt":
            return OPTForCausalLM(OPTConfig(**sizes, ffn_dim=64, word_embed_proj_dim=32, init_std=0.2))
        case "mamba":
            return MambaForCausalLM(MambaConfig(vocab_size=400, hidden_size=32, num_hidden_layers=2, state_size=4))
    return BertLMHeadModel(BertConfig(**sizes, intermediate_size=64, initializer_range=0.2))


def test_what_fills_a_row_up_is_no_token(tmp_path: Path) -> None:
    rows = split(tmp_path, [Tokens(list(range(20)), [True] * 20, 20)] * 3, 48)
    assert (len(rows), rows.tokens) == (2, 60)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_samples_in_one_row_do_not_see_each_other(kind: str, folder: Path, tmp_path: Path) -> None:
    model: Any = LlamaForCausalLM.from_pretrained(folder) if kind == "llama" else other_kind(kind)
    model.eval()
    assert networks.keeps_apart(model, "small@1")
    a, b, c = in_one_row(model, tmp_path)
    assert not torch.allclose(a[:20], b[:20])
    assert torch.equal(a[20:40], b[20:40])
    assert torch.allclose(a[20:40], c[:20], atol=1e-5)


@pytest.mark.parametrize("kind", ["bloom", "mamba", "opt"])
def test_samples_have_rows_of_their_own_where_a_model_lets_them_see_each_other(kind: str, tmp_path: Path) -> None:
    model = other_kind(kind).eval()
    assert not networks.keeps_apart(model, "small@1")
    a, b, _ = in_one_row(model, tmp_path)
    assert not torch.allclose(a[20:40], b[20:40])
    rows = split(tmp_path / "three", [Tokens(list(range(20)), [True] * 20, 20) for _ in range(3)], 48)
    assert [rows.samples_of(number) for number in range(len(rows))] == [[0, 1], [2]]
    rows.unpack()
    assert [rows.samples_of(number) for number in range(len(rows))] == [[0], [1], [2]]
    assert [rows.bytes_of(number) for number in range(len(rows))] == [20, 20, 20]
    assert rows[1]["labels"].tolist() == [*range(1, 20), *[IGNORED] * 29]


def test_models_that_see_what_comes_or_have_more_than_an_output_layer_are_refused() -> None:
    with pytest.raises(UserError, match=r"^bert@1 is a BertLMHeadModel, which reads a text from both sides; it"):
        networks.keeps_apart(other_kind("bert").eval(), "bert@1")
    with pytest.raises(UserError, match="whose logits are not what its output layer gives"):
        networks.keeps_apart(other_kind("bert", is_decoder=True).eval(), "bert@1")


def in_one_row(model: Any, folder: Path) -> list[torch.Tensor]:
    """Logits of a row of two samples, of one with another first sample, and of the second one alone."""
    one, two, other = (Tokens(list(range(begin, begin + 20)), [True] * 20, 20) for begin in (20, 60, 100))
    rows = [
        split(folder / str(number), samples, 48)[0]
        for number, samples in enumerate([[one, two], [other, two], [two]])
    ]
    with torch.no_grad():
        return [
            model(input_ids=row["input_ids"][None], position_ids=row["position_ids"][None], use_cache=False).logits[0]
            for row in rows
        ]


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
