"""What is measured of a chat model, against what can be computed by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from chatbot.gpt import checks, speed
from chatbot.gpt.bits import Scores, score
from chatbot.gpt.networks import with_adapters
from chatbot.gpt.options import finetuning
from chatbot.gpt.samples import Dialogue, Text, Turn
from chatbot.gpt.tokenizer import load
from tests.training.chats import prose, small_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("small"))


def scored(folder: Path, samples: list[Any], longest: int) -> Scores:
    model = LlamaForCausalLM.from_pretrained(folder)
    return score(model, load(folder), samples, longest=longest, system="", precision="fp32", tell=lambda *said: None)


def test_bits_per_byte_are_the_log_probabilities_of_every_token_over_the_bytes(folder: Path) -> None:
    text = "the sea – und das Schiff"
    tokenizer, model = load(folder), LlamaForCausalLM.from_pretrained(folder)
    ids = [0, *tokenizer(text, add_special_tokens=False).input_ids, 0]
    with torch.no_grad():
        chances = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    nats = -sum(float(chances[place, token]) for place, token in enumerate(ids[1:]))
    found = scored(folder, [Text(text, "")], 512)
    assert found.bits_per_byte().value == pytest.approx(nats / math.log(2) / len(text.encode()), rel=1e-4)


def test_long_texts_are_scored_whole_and_of_chats_the_replies_alone(folder: Path) -> None:
    text = Text(prose(3, 60), "")
    whole, parts = (scored(folder, [text], longest) for longest in (4096, 128))
    assert whole.sizes == parts.sizes
    assert parts.bits_per_byte().value == pytest.approx(whole.bits_per_byte().value, rel=0.1)
    chat = Dialogue((Turn("user", "a long question about the sea"), Turn("assistant", "yes")), "")
    assert scored(folder, [chat], 512).sizes == [3]


def test_the_interval_of_a_difference_pairs_the_samples() -> None:
    random = np.random.default_rng(1)
    sizes = random.uniform(50, 500, 80)
    nats = sizes * random.uniform(0.2, 2.0, 80)
    one, other = Scores(nats, sizes), Scores(nats * 1.02, sizes)
    apart = one.bits_per_byte()
    assert apart.low < one.less_than(other).value + other.bits_per_byte().value < apart.high
    assert one.less_than(other).high < 0, "two percent show, though the samples differ tenfold"
    assert one.less_than(one).low == one.less_than(one).high == 0


def test_a_difference_is_of_what_both_saw_alone() -> None:
    nats, sizes = np.linspace(50.0, 400.0, 60), np.linspace(100.0, 500.0, 60)
    shorter = sizes.copy()
    shorter[40:], shorter[:5] = 100.0, 0.0  # cut by a smaller context; left out
    one, other = Scores(nats, sizes), Scores(nats * 1.02, shorter)
    assert other.count == 55
    assert one.alike(other).sum() == 35
    seen = Scores(nats[5:40], sizes[5:40])
    assert one.less_than(other) == seen.less_than(Scores(nats[5:40] * 1.02, sizes[5:40]))
    assert other.bits_per_byte() == Scores(nats[5:] * 1.02, shorter[5:]).bits_per_byte()


IDEAL = (
    "Cold", "5", "Banana.", "Red, green, blue", "cat\ndog\nowl\nfox", "HELLO", "good night", '{"name": "Ada"}',
    "Is it late?", "Waves rise.", "It rains.", "a b c d e", "Echo echo echo", "No.", "- apple\n- pear",
    "The cat saw the moon.",
)  # fmt: skip


def test_instructions_are_seen_to_be_kept_and_broken() -> None:
    assert checks.passed(IDEAL) == len(checks.CHECKS)
    assert checks.passed(["I would rather not say,\nand I will not."] * len(checks.CHECKS)) == 0
    assert len(checks.PROMPTS) == 10
    low, high = checks.wilson(8, 16)
    assert 0.25 < low < 0.5 < high < 0.75
    assert checks.wilson(0, 16)[0] == 0


def test_repetition_is_the_share_of_runs_that_came_before() -> None:
    assert checks.repetition(["one two three four five six", "one two three four"]) == 0
    assert checks.repetition(["a b c d a b c d"]) == pytest.approx(1 / 5)
    assert checks.repetition([""]) == 0


def test_what_is_computed_at_once_is_at_most_a_step_and_less_with_longer_rows(folder: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(folder)
    few, many = (finetuning("full", block=block, batch_tokens=8192) for block in (512, 64))
    cpu = torch.device("cpu")
    assert 1 <= speed.find_micro_rows(model, few, cpu, 1) < speed.find_micro_rows(model, many, cpu, 1)
    assert speed.find_micro_rows(model, many, cpu, 64) <= 2


def test_a_gpu_is_asked_for_nothing_where_a_single_row_is_all_there_is(folder: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(folder)
    one = finetuning("full", block=512, batch_tokens=1024)
    assert speed.find_micro_rows(model, one, torch.device("cuda:99"), 2) == 1
    assert model.device.type == "cpu"


class TooLarge(LlamaForCausalLM):
    """A model that no GPU has the memory for."""

    def to(self, *arguments: Any, **named: Any) -> NoReturn:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_where_nothing_fits_a_gpu_one_row_is_left_for_training_to_say_it(folder: Path) -> None:
    many = finetuning("full", block=64, batch_tokens=8192)
    assert speed.find_micro_rows(TooLarge.from_pretrained(folder), many, torch.device("cuda"), 1) == 1


def test_a_model_that_processes_share_is_on_no_gpu_whole_to_find_the_rows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, shared = TooLarge.from_pretrained(folder), finetuning("full", block=8, batch_tokens=2**20, fsdp=True)
    free = speed.memory(model, shared, 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    two, four = (speed.find_micro_rows(model, shared, torch.device("cuda"), ranks) for ranks in (2, 4))
    assert 1 < two < four


class Card:
    """A GPU of 10 GB: 2 GB of weights, as much of gradients, and 0.1 GB for each row, and 0.3 once for all."""

    held = 2e9

    def free(self) -> float:
        return 10e9 - self.held

    def taken(self, rows: int) -> float:
        before, self.held = self.held, 4e9
        return self.held - before + 0.3e9 + 0.1e9 * rows


def test_a_row_on_a_gpu_is_charged_with_what_it_takes_and_no_gradient() -> None:
    card = Card()
    moments = 4e9
    rows = speed.rows_within(card.free, card.taken, moments)
    assert 9.5e9 < card.held + moments + card.taken(rows) < 10e9


def test_a_weight_costs_what_is_computed_with_it(folder: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(folder)
    weights = sum(weight.numel() for weight in model.parameters())
    attention = 12 * 2 * 64 * 100
    assert speed.flops_a_token(model, 100) == 6 * weights + attention
    adapted = with_adapters(model, 4, 0)
    added = sum(weight.numel() for weight in adapted.parameters()) - weights
    assert speed.flops_a_token(adapted, 100) == 4 * weights + 6 * added + attention
    gpt2 = GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=97, n_positions=100))
    computed = sum(weight.numel() for weight in gpt2.parameters()) - 100 * 32
    assert speed.flops_a_token(gpt2, 100) == 6 * computed + 12 * 2 * 32 * 100


@pytest.mark.parametrize(
    ("gpu", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40", 181e12),
        ("NVIDIA L40S", 362e12),
        ("Tesla T4", 65e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA T400", 0),
        ("NVIDIA A10G", 0),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 0),
        ("NVIDIA GeForce RTX 3090 Ti", 0),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 0),
        ("NVIDIA A100-PCIE-40GB", 312e12),
    ],
)
def test_a_gpu_is_known_by_its_whole_name(gpu: str, peak: float) -> None:
    assert speed.peak_of(gpu) == peak
