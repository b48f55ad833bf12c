"""Models of a few thousand numbers that say exactly one thing, as transformers and as GGUF.

All token embeddings are the same vector, attention and feed-forward give nothing, so that the hidden state is always
that vector: the rows of the output matrix alone decide which token comes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

Says = Literal["nothing", "never stops"]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
_CONTROL = ["<|im_start|>", "<|im_end|>"]
_WIDTH, _CONTEXT = 32, 128


def _vocabulary() -> list[str]:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return [*_CONTROL, *letters, "ab"]


def _output(says: Says) -> np.ndarray[Any, Any]:
    """Rows of the output matrix: one token is far likelier than all others."""
    vocabulary = _vocabulary()
    output = np.zeros((len(vocabulary), _WIDTH), dtype=np.float32)
    output[vocabulary.index("<|im_end|>" if says == "nothing" else "a")] = 1.0
    return output


def tiny_transformers(folder: Path, says: Says, *, template: str | None = CHATML) -> None:
    """Write it as safetensors with a tokenizer."""
    vocabulary = _vocabulary()
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(vocabulary)}, [("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    _save(folder, tokenizer, torch.from_numpy(_output(says)), template)


def tiny_sentencepiece(folder: Path, *, template: str | None = CHATML) -> None:
    """Write one that says " is" without end. Its tokenizer marks spaces in the way of SentencePiece."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        special_tokens=_CONTROL, initial_alphabet=[chr(code) for code in range(32, 127)], show_progress=False
    )
    tokenizer.train_from_iterator(["it is what it is"] * 3, trainer)
    output = torch.zeros(tokenizer.get_vocab_size(), _WIDTH)
    output[tokenizer.token_to_id("▁is")] = 1.0
    _save(folder, tokenizer, output, template)


def _save(folder: Path, tokenizer: Tokenizer, output: torch.Tensor, template: str | None) -> None:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"]
    )
    fast.chat_template = template
    fast.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(output),
        hidden_size=_WIDTH,
        intermediate_size=_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=_CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            weights.fill_(1.0 if "norm" in name or "embed" in name else 0.0)
        model.lm_head.weight.copy_(output)
    model.save_pretrained(folder)


def tiny_gguf(path: Path, says: Says, *, template: str | None = CHATML, tensors_a_file: int = 0) -> None:
    """Write it as a GGUF file of the llama architecture, or as several that hold so many tensors each."""
    vocabulary = _vocabulary()
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=tensors_a_file)
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_WIDTH)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(_WIDTH // 2)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if token in _CONTROL else gguf.TokenType.NORMAL for token in vocabulary]
    )
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(vocabulary.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)
    square = np.zeros((_WIDTH, _WIDTH), dtype=np.float32)
    ones = np.ones(_WIDTH, dtype=np.float32)
    writer.add_tensor("token_embd.weight", np.ones((len(vocabulary), _WIDTH), dtype=np.float32))
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("output.weight", _output(says))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", square)
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", ones)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
