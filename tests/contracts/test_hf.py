"""What is particular to transformers, on the real model in this process."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from chatbot.engines.base import ChatMessage, Completion, GenerationOptions
from chatbot.engines.hf import HfResponder, bytes_in_memory
from chatbot.engines.hf_model import HfModel
from chatbot.errors import ModelError
from tests.tiny_models import CHATML, tiny_gguf, tiny_sentencepiece, tiny_transformers
from tests.training.chats import small_model

CONTEXT = 1024
QUESTION = [ChatMessage("system", "You are brief."), ChatMessage("user", "Why is the sky blue?")]


@pytest.fixture(scope="module")
def model(hf_folder: Path) -> HfModel:
    return HfModel(hf_folder, "m@1", context_length=CONTEXT, memories=2)


def finish(model: HfModel, messages: list[ChatMessage], **options: Any) -> tuple[str, Completion]:
    pieces = list(model.reply(messages, GenerationOptions(**{"max_tokens": 24, "temperature": 0} | options)))
    assert isinstance(pieces[-1], Completion)
    return "".join(piece for piece in pieces if isinstance(piece, str)), pieces[-1]


def test_it_says_what_generate_says(model: HfModel) -> None:
    text, _ = finish(model, QUESTION)
    ids = torch.tensor([model.prompt(QUESTION)])
    plain = model._model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
    assert text == model._tokenizer.decode(plain[0, ids.shape[1] :], skip_special_tokens=True)


def test_a_turn_reads_only_what_is_new_and_knows_the_same(model: HfModel) -> None:
    messages = list(QUESTION)
    for question in ("And at sunset?", "And on Mars?", "日本語で 😀"):
        text, before = finish(model, messages)
        messages += [ChatMessage("assistant", text), ChatMessage("user", question)]
    ids = model.prompt(messages)
    with torch.inference_mode():
        with model._memories.of(ids) as memory:
            assert len(memory.ids) >= before.prompt_tokens
            warm = model._read(memory, ids[len(memory.ids) :])
        model._memories.all.clear()
        with model._memories.of(ids) as memory:
            cold = model._read(memory, ids)
    assert torch.cosine_similarity(warm, cold, dim=0) > 0.999


def test_two_conversations_do_not_take_each_others_memory(model: HfModel) -> None:
    model._memories.all.clear()
    one = [ChatMessage("user", "Tell me about the sea, the waves and the ships on it.")]
    two = [ChatMessage("user", "What is a good name for a small grey cat?")]
    for messages in (one, two):
        text, _ = finish(model, messages)
        messages += [ChatMessage("assistant", text), ChatMessage("user", "Go on.")]
    for messages in (one, two):
        _, completion = finish(model, messages)
        assert completion.cached_tokens > 24


SHAPE = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
RANDOM = {
    "each token": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "a window": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=8)),
    "a state": lambda: Lfm2ForCausalLM(Lfm2Config(**SHAPE, layer_types=["conv", "full_attention"])),
}


def random_model(folder: Path, kept: str, memories: int = 3) -> HfModel:
    """Of random weights; keeps of what it has read: `each token`, those in `a window`, or `a state`."""
    tiny_transformers(folder, "never stops")
    torch.manual_seed(3)
    made: Any = RANDOM[kept]()
    with torch.no_grad():
        for weights in made.parameters():
            weights.normal_(0, 0.3)
    made.save_pretrained(folder)
    return HfModel(folder, "m@1", context_length=512, memories=memories, device="cpu")


def test_a_reply_ends_as_its_chat_template_ends_one(tmp_path: Path) -> None:
    """Of an adapter it may be another token than that which ends the texts of its base."""
    folder = small_model(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(folder)
    for name in ("config.json", "generation_config.json"):
        said = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(said | {"eos_token_id": tokenizer.eos_token_id}))
    ends = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    model = HfModel(folder, "m@1", context_length=256, device="cpu")
    model.network.lm_head.register_forward_hook(  # it says nothing but that it has said all
        lambda module, given, logits: torch.zeros_like(logits).index_fill_(-1, torch.tensor([ends[1]]), 9.0)
    )
    text, completion = finish(model, [ChatMessage("user", "hi")])
    assert (text, completion.finish_reason, completion.completion_tokens) == ("", "stop", 1)


def read(model: HfModel, ids: list[int]) -> tuple[int, torch.Tensor]:
    """How many of the tokens were known, and the logits after the last."""
    with torch.inference_mode(), model._memories.of(ids) as memory:
        known = len(memory.ids)
        return known, model._read(memory, ids[known:])


def read_anew(model: HfModel, ids: list[int]) -> torch.Tensor:
    model._memories.all.clear()
    return read(model, ids)[1]


FIRST, SECOND, THIRD = ([number * step % 250 + 5 for number in range(1, 61)] for step in (7, 11, 13))


@pytest.mark.parametrize("kept", RANDOM)
def test_what_comes_after_all_that_is_known_is_all_that_is_read(tmp_path: Path, kept: str) -> None:
    model = random_model(tmp_path, kept)
    read(model, FIRST)
    known, warm = read(model, FIRST + SECOND)
    assert known == len(FIRST)
    assert torch.cosine_similarity(warm, read_anew(model, FIRST + SECOND), dim=0) > 0.999


@pytest.mark.parametrize("kept", RANDOM)
def test_another_end_of_what_is_known_is_answered_as_if_nothing_were(tmp_path: Path, kept: str) -> None:
    model = random_model(tmp_path, kept)
    read(model, FIRST + SECOND)
    _, warm = read(model, FIRST + THIRD)
    assert torch.cosine_similarity(warm, read_anew(model, FIRST + THIRD), dim=0) > 0.999


def test_the_beginning_that_a_long_conversation_shares_with_another_is_copied(tmp_path: Path) -> None:
    model = random_model(tmp_path, "each token")
    long, other = FIRST[:40] + SECOND + THIRD, FIRST[:40] + THIRD
    read(model, long)
    known, warm = read(model, other)
    assert known == 40
    gone_on, _ = read(model, [*long, 9])
    assert gone_on == len(long), "the long one is as it was"
    assert torch.cosine_similarity(warm, read_anew(model, other), dim=0) > 0.999


@pytest.mark.parametrize("kept", RANDOM)
def test_what_failed_to_be_read_is_not_taken_for_known(tmp_path: Path, kept: str) -> None:
    model = random_model(tmp_path, kept)
    read(model, FIRST)

    def fail(*arguments: Any) -> None:
        raise RuntimeError("out of memory")

    hook = model.network.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        read(model, FIRST + SECOND)
    hook.remove()
    _, again = read(model, FIRST + SECOND)
    assert torch.cosine_similarity(again, read_anew(model, FIRST + SECOND), dim=0) > 0.999


def test_more_replies_at_once_than_memories_leave_no_more_of_them(tmp_path: Path) -> None:
    tiny_transformers(tmp_path, "never stops")
    model = HfModel(tmp_path, "m@1", context_length=128, memories=2, device="cpu", batching=False)
    options = GenerationOptions(max_tokens=4)
    replies = [model.reply([ChatMessage("user", letter)], options) for letter in "abcde"]
    for reply in replies:
        next(reply)
    assert len(model._memories.all) == 5
    for reply in replies:
        list(reply)
    assert len(model._memories.all) == 2
    newest = model._memories.all[-1].ids
    assert newest[: len(newest) - 3] == model.prompt([ChatMessage("user", "e")])


@pytest.mark.parametrize("template", [CHATML, None])
def test_a_reply_that_is_gone_on_with_keeps_the_space_where_it_was_cut(tmp_path: Path, template: str | None) -> None:
    tiny_sentencepiece(tmp_path, template=template)
    model = HfModel(tmp_path, "m@1", context_length=128)
    messages = [ChatMessage("user", "what")]
    assert finish(model, messages, max_tokens=3)[0] == "is is is"
    for begun in ("it is", "it"):
        resumed = [*messages, ChatMessage("assistant", begun)]
        assert finish(model, resumed, max_tokens=2)[0] == " is is"
    assert finish(model, [*messages, ChatMessage("assistant", "")], max_tokens=2)[0] == "is is"


def test_a_reply_that_ends_in_half_a_character_is_not_said_once_more(tmp_path: Path) -> None:
    tiny_transformers(tmp_path, "never stops")
    model = HfModel(tmp_path, "m@1", context_length=128)
    assert finish(model, [ChatMessage("user", "b"), ChatMessage("assistant", "b \ufffd")], max_tokens=2)[0] == "aa"


class PlainConfig(LlamaConfig):
    model_type = "llama_of_someone"


class PlainLlama(LlamaForCausalLM):
    """Computes all logits always, as models do whose code their author ships with them."""

    config_class = PlainConfig

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
    ) -> Any:
        return super().forward(
            input_ids, attention_mask=attention_mask, past_key_values=past_key_values, use_cache=use_cache
        )


def test_a_model_that_computes_all_logits_answers_too(tmp_path: Path) -> None:
    tiny_transformers(tmp_path, "never stops")
    AutoConfig.register(PlainConfig.model_type, PlainConfig, exist_ok=True)
    AutoModelForCausalLM.register(PlainConfig, PlainLlama, exist_ok=True)
    weights = LlamaForCausalLM.from_pretrained(tmp_path).state_dict()
    plain = PlainLlama(PlainConfig(**LlamaConfig.from_pretrained(tmp_path).to_diff_dict()))
    plain.load_state_dict(weights)
    plain.save_pretrained(tmp_path)
    model = HfModel(tmp_path, "m@1", context_length=128)
    assert isinstance(model.network, PlainLlama)
    assert finish(model, [ChatMessage("user", "hi")], max_tokens=5)[0] == "aaaaa"


@pytest.mark.parametrize("device", ["gpu", *([] if torch.cuda.is_available() else ["cuda"])])
def test_a_device_that_is_not_here_is_named(tmp_path: Path, device: str) -> None:
    tiny_transformers(tmp_path, "nothing")
    with pytest.raises(ModelError, match=f"m@1 cannot be loaded: torch finds no device '{device}' here"):
        HfModel(tmp_path, "m@1", context_length=64, device=device)


def test_memory_is_reckoned_in_the_numbers_that_are_computed_in(tmp_path: Path) -> None:
    tiny_transformers(tmp_path, "nothing")
    model = HfModel(tmp_path, "m@1", context_length=64)
    in_memory = sum(weights.nbytes for weights in model.network.parameters())
    stored = sum(weights.numel() * 4 for weights in model.network.parameters())
    assert bytes_in_memory(tmp_path, stored) == in_memory
    (tmp_path / "old").write_text("flags : fpu avx2")
    (tmp_path / "config.json").write_text('{"torch_dtype": "bfloat16"}')
    assert bytes_in_memory(tmp_path, 100, tmp_path / "old") == (100 if torch.cuda.is_available() else 200)
    (tmp_path / "config.json").write_text("[]")
    assert bytes_in_memory(tmp_path, 100) == 100


def test_control_tokens_that_a_person_types_stay_text(model: HfModel) -> None:
    plain = len(model.prompt([ChatMessage("user", "")]))
    assert len(model.prompt([ChatMessage("user", "<|im_end|>")])) - plain > 1


def test_characters_of_several_tokens_come_whole(model: HfModel) -> None:
    for piece in model.reply(
        [ChatMessage("user", "Repeat exactly: 😀🎉日本語 😀🎉日本語")],
        GenerationOptions(max_tokens=60, temperature=0),
    ):
        assert not isinstance(piece, str) or "�" not in piece


def test_a_stop_text_ends_the_reply_before_it(model: HfModel) -> None:
    whole, _ = finish(model, QUESTION)
    word = whole.split()[4]
    cut, completion = finish(model, QUESTION, stop=(word,))
    assert cut == whole[: whole.index(word)]
    assert completion.finish_reason == "stop"


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    tiny_transformers(tmp_path, "nothing")
    (tmp_path / "model.safetensors").rename(tmp_path / "elsewhere")
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded"):
        HfModel(tmp_path, "m@1", context_length=64)


async def test_a_folder_that_is_no_model_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="m@1 cannot be loaded"):
        await HfResponder.load(tmp_path, "m@1", context_length=64)


async def test_a_gguf_file_may_be_named_in_capitals(tmp_path: Path) -> None:
    tiny_gguf(tmp_path / "TINY.GGUF", "never stops")
    converted = tmp_path / "converted"
    engine = await HfResponder.load(tmp_path / "TINY.GGUF", "m@1", context_length=128, converted=converted)
    try:
        pieces = [piece async for piece in engine.reply([ChatMessage("user", "a")], GenerationOptions(max_tokens=4))]
    finally:
        await engine.close()
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == "aaaa"


async def test_its_process_dying_ends_a_reply_in_a_sentence(tmp_path: Path) -> None:
    tiny_transformers(tmp_path, "never stops")
    engine = await HfResponder.load(tmp_path, "m@1", context_length=100_000)
    with pytest.raises(ModelError, match="stopped answering"):
        async with aclosing(engine.reply([ChatMessage("user", "a")], GenerationOptions(max_tokens=90_000))) as reply:
            async for _ in reply:
                engine._child._process.kill()
    await asyncio.sleep(0.1)
    assert not engine.alive
    with pytest.raises(ModelError, match="stopped answering"):
        await engine.count_tokens([ChatMessage("user", "a")])
    await engine.close()
