"""Models and adapters of the Llama family as GGUF files, for llama.cpp."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from chatbot.errors import UserError
from chatbot.gpt import gguf_tokenizer, tokenizer

Format = Literal["f16", "q8_0"]
FORMATS: tuple[Format, ...] = ("f16", "q8_0")

_FILE_TYPES = {"f16": gguf.LlamaFileType.MOSTLY_F16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
_ADAPTER = "base_model.model."


def export(folder: Path, target: Path, format: Format, name: str, tell: Callable[[str, float | None], None]) -> None:
    """Write the model of transformers in `folder` into the file `target`, which is there whole or not at all.

    Matrices become float16, or Q8_0: blocks of 32 numbers of 8 bits with a scale; what else there is stays float32.

    Raises:
        UserError: it is of another family, or its tokenizer is not known to llama.cpp.
    """
    config = _config(folder, name)
    known = tokenizer.load(folder)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    with _written(target) as writer:
        _describe(writer, config, name, format)
        gguf_tokenizer.write(writer, known, config["vocab_size"])
        files = sorted(folder.glob("*.safetensors"))
        for number, path in enumerate(files):
            tell(f"Exporting {name}", number / len(files))
            with safe_open(path, framework="pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118 - it is no mapping
                    if key == "lm_head.weight" and config.get("tie_word_embeddings"):
                        continue
                    called = names.get_name(key, try_suffixes=(".weight", ".bias"))
                    if called is None:
                        raise UserError(f"{name} has weights of a kind that llama.cpp does not know: {key}.")
                    _add(writer, called, _arranged(key, tensors.get_tensor(key).float().numpy(), config), format)


def export_adapter(folder: Path, base: Path, target: Path, name: str) -> None:
    """Write the adapter of peft in `folder`, which belongs to the model in `base`, into the file `target`.

    Raises:
        UserError: the base is of another family.
    """
    config = _config(base, name)
    asked = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    with _written(target) as writer, safe_open(folder / "adapter_model.safetensors", framework="pt") as tensors:
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", float(asked["lora_alpha"]))
        for key in tensors.keys():  # noqa: SIM118 - it is no mapping
            layer, _, side = key.removeprefix(_ADAPTER).removesuffix(".weight").rpartition(".")
            called = names.get_name(f"{layer}.weight", try_suffixes=(".weight",))
            if called is None:
                raise UserError(f"{name} has weights of a kind that llama.cpp does not know: {key}.")
            tensor = tensors.get_tensor(key)
            matrix = (tensor if tensors.get_slice(key).get_dtype() == "F16" else tensor.float()).numpy()
            if side == "lora_B":  # (out, rank): its rows are those of the layer
                matrix = _arranged(f"{layer}.weight", matrix, config)
            writer.add_tensor(f"{called}.{side.lower()}", np.ascontiguousarray(matrix))


def merged(base: Path, adapter: Path, target: Path) -> None:
    """Write the model in `base` with the adapter added to its weights into the folder `target`."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from chatbot.engines.hf_model import tokenizer_folder

    whole = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, use_safetensors=True)
    model: Any = PeftModel.from_pretrained(whole, str(adapter))
    model.merge_and_unload().save_pretrained(target)
    tokenizer.load(tokenizer_folder(base, adapter)).save_pretrained(target)


def _config(folder: Path, name: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") != "llama":
        raise UserError(
            f"{name} is of the family {config.get('model_type')}; only the Llama family is exported to GGUF. "
            "It runs in the engine hf as it is."
        )
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", "default") != "default":
        raise UserError(f"{name} scales its positions ({rope['rope_type']}), which is not exported.")
    config["rope_theta"] = rope.get("rope_theta") or config.get("rope_theta") or 10_000.0
    return config


def _describe(writer: Any, config: dict[str, Any], name: str, format: Format) -> None:
    heads = config["num_attention_heads"]
    writer.add_name(name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(float(config["rope_theta"]))
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(_FILE_TYPES[format])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _arranged(key: str, weight: NDArray[Any], config: dict[str, Any]) -> NDArray[Any]:
    """Rows of queries and keys in the order of llama.cpp.

    transformers turns the first half of a head against its second half, llama.cpp each number against its neighbour.
    """
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config.get("num_key_value_heads")}
    count = next((heads[layer] or config["num_attention_heads"] for layer in heads if f".{layer}." in key), None)
    if count is None:
        return weight
    turned = weight.reshape(count, 2, weight.shape[0] // count // 2, *weight.shape[1:])
    return np.ascontiguousarray(turned.swapaxes(1, 2).reshape(weight.shape))


def _add(writer: Any, name: str, weight: NDArray[Any], format: Format) -> None:
    if weight.ndim == 1:
        writer.add_tensor(name, weight.astype(np.float32))
    elif format == "q8_0" and weight.shape[-1] % 32 == 0:
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(weight, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, weight.astype(np.float16))


@contextmanager
def _written(target: Path) -> Iterator[Any]:
    """A GGUF file of the Llama family to fill; it is written, and moved to its place, at the end."""
    part = target.with_name(f".{target.name}.part")
    writer: Any = gguf.GGUFWriter(part, "llama")
    try:
        yield writer
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise UserError(f"Cannot write {target}: {error.strerror or error}.") from None
    finally:
        part.unlink(missing_ok=True)
