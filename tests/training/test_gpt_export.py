"""Trained models and adapters in both engines, beside transformers itself: the same tokens, and the same numbers."""

from __future__ import annotations

import http.client
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from chatbot.child import Child
from chatbot.engines.hf_model import HfModel
from chatbot.errors import UserError
from chatbot.gpt import gguf_tokenizer
from chatbot.gpt.export import Format, export, export_adapter, merged
from chatbot.gpt.networks import with_adapters
from chatbot.gpt.tokenizer import CONTROL, load
from tests.training.chats import ODD, small_model

TOLERANCE: dict[Format, float] = {"f16": 0.02, "q8_0": 0.4}
"""Of the log-probability of each of the 20 likeliest tokens, in nats; the small model's weights are far from zero."""

REAL_TOLERANCE = 0.05
"""The same for the real model in float16."""


class Server:
    """llama.cpp's own answers."""

    def __init__(self, address: str) -> None:
        self._address = urlsplit(address).netloc

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        connection = http.client.HTTPConnection(self._address)
        connection.request("POST", path, json.dumps(body), {"Authorization": "Bearer k"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        assert response.status == 200, answer
        return answer

    def ids(self, text: str, *, control: bool = False) -> list[int]:
        request = {"content": text, "parse_special": control, "add_special": False}
        return list(self.ask("/tokenize", request)["tokens"])

    def likeliest(self, ids: list[int]) -> dict[int, float]:
        """The log-probabilities of the 20 likeliest tokens after some."""
        request = {"prompt": ids, "n_predict": 1, "n_probs": 20, "temperature": 0, "cache_prompt": False}
        found = self.ask("/completion", request)["completion_probabilities"][0]["top_logprobs"]
        return {one["id"]: one["logprob"] for one in found}


@asynccontextmanager
async def serving(file: Path, **more: str) -> AsyncIterator[Server]:
    parameters = {"path": str(file), "context": 512, "slots": 1, "threads": 2, "key": "k", **more}
    child = await Child.start("chatbot.engines.llamacpp_server", parameters)
    try:
        said = await child.receive()
        assert said is not None, "llama.cpp did not load it"
        yield Server(str(said["address"]))
    finally:
        await child.close()


def expected(model: Any, ids: list[int]) -> dict[int, float]:
    with torch.inference_mode():
        top = model(input_ids=torch.tensor([ids])).logits[0, -1].float().log_softmax(-1).topk(20)
    return dict(zip(top.indices.tolist(), top.values.tolist(), strict=True))


def going_on(model: Any, tokenizer: Any, ids: list[int]) -> list[int]:
    """A prompt that is followed by a whole character: of others llama.cpp tells no probabilities."""
    while (following := next(iter(expected(model, ids)))) < len(CONTROL) or "\ufffd" in tokenizer.decode([following]):
        ids = [*ids, 40 + len(ids)]
    return ids


def differ(found: dict[int, float], wanted: dict[int, float]) -> float:
    """The largest difference over the tokens that both have among their likeliest; they share nearly all."""
    shared = found.keys() & wanted.keys()
    assert len(shared) >= 18
    return max(abs(found[token] - wanted[token]) for token in shared)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def adapter(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes much, its tokenizer beside it as a run leaves it."""
    made = tmp_path_factory.mktemp("adapter")
    model = with_adapters(LlamaForCausalLM.from_pretrained(folder), 4, seed=1)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.2)
    model.save_pretrained(made)
    load(folder).save_pretrained(made)
    return made


@pytest.mark.parametrize("format", ["f16", "q8_0"])
async def test_an_exported_model_has_the_same_tokens_and_log_probabilities(
    format: Format, folder: Path, tmp_path: Path
) -> None:
    export(folder, tmp_path / "model.gguf", format, "small@1", lambda *said: None)
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
    tokenizer, model = load(folder), LlamaForCausalLM.from_pretrained(folder)
    async with serving(tmp_path / "model.gguf") as server:
        for text in ODD:
            as_text = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
            assert server.ids(text) == as_text, text
            with_control = tokenizer(text, add_special_tokens=False).input_ids
            assert server.ids(text, control=True) == with_control, text
            ids = going_on(model, tokenizer, as_text[:200] or tokenizer("the").input_ids)
            assert differ(server.likeliest(ids), expected(model, ids)) < TOLERANCE[format], text


async def test_an_adapter_loads_in_both_engines_without_a_merge_and_says_what_peft_says(
    folder: Path, adapter: Path, tmp_path: Path
) -> None:
    export(folder, tmp_path / "base.gguf", "f16", "small@1", lambda *said: None)
    export_adapter(adapter, folder, tmp_path / "adapter.gguf", "small@1")
    plain = LlamaForCausalLM.from_pretrained(folder)
    wanted: Any = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(folder), str(adapter))
    hf = HfModel(folder, "small@2", context_length=512, adapter=adapter, device="cpu")
    hf.network.float()
    tokenizer = load(folder)
    async with serving(tmp_path / "base.gguf", adapter=str(tmp_path / "adapter.gguf")) as server:
        for text in ODD[:6]:
            ids = going_on(
                wanted, tokenizer, tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
            )
            found = expected(wanted, ids)
            assert differ(server.likeliest(ids), found) < TOLERANCE["f16"]
            assert differ(expected(hf.network, ids), found) < 0.15  # its weights went through bfloat16 on some CPUs
            assert max(abs(expected(plain, ids).get(token, -99) - value) for token, value in found.items()) > 0.5


async def test_an_adapter_is_exported_together_with_its_base(folder: Path, adapter: Path, tmp_path: Path) -> None:
    merged(folder, adapter, tmp_path / "merged")
    export(tmp_path / "merged", tmp_path / "model.gguf", "f16", "small@2", lambda *said: None)
    wanted: Any = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(folder), str(adapter))
    ids = going_on(wanted, load(folder), load(folder)(ODD[0]).input_ids)
    async with serving(tmp_path / "model.gguf") as server:
        assert differ(server.likeliest(ids), expected(wanted, ids)) < TOLERANCE["f16"]


async def test_the_real_model_goes_to_transformers_and_back(
    hf_folder: Path, model_path: Path, tmp_path: Path
) -> None:
    export(hf_folder, tmp_path / "model.gguf", "f16", "smollm2", lambda *said: None)
    tokenizer = load(hf_folder)
    model = AutoModelForCausalLM.from_pretrained(hf_folder, dtype=torch.float32)
    prompt = tokenizer("The three largest cities of France are", add_special_tokens=False).input_ids
    async with serving(tmp_path / "model.gguf") as server:
        assert differ(server.likeliest(prompt), expected(model, prompt)) < REAL_TOLERANCE
        exported = [server.ids(text) for text in ODD]
    assert exported == [
        tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids for text in ODD
    ]
    async with serving(model_path) as server:
        assert exported == [server.ids(text) for text in ODD], "as in the file it came from"


def test_what_llama_cpp_would_read_otherwise_is_not_exported(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not cut text"):
        gguf_tokenizer.pre_tokenizer({"type": "Whitespace"})
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    with pytest.raises(UserError, match="only the Llama family"):
        export(tmp_path, tmp_path / "model.gguf", "f16", "other@1", lambda *said: None)
