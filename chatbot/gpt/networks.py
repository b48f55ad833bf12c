"""The models that are trained: a new one of the Llama family, or a base, with or without adapters."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.activations import NewGELUActivation
from transformers.utils.generic import ModelOutput

from chatbot.errors import UserError
from chatbot.gpt.options import Options
from chatbot.gpt.rows import IGNORED

LOGITS_AT_ONCE = 4096
"""Targets whose logits are in memory at a time; with more, they are computed once again in the backward pass."""


def new_model(options: Options, tokenizer: Any) -> Any:
    """A Llama model (pre-norm, RMSNorm, rotary positions, SwiGLU) of the size asked for, its weights drawn."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.width,
        intermediate_size=64 * max(1, round(options.width * 8 / 3 / 64)),
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=options.heads,
        max_position_embeddings=options.block,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # what writes into the residual stream begins smaller, the more of it there is (GPT-2)
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.mul_(1 / math.sqrt(2 * options.layers))
    return model


def base_model(folder: Path, name: str) -> Any:
    """The model in a folder, in float32.

    Raises:
        UserError: it is not a causal language model, or cannot be read.
    """
    try:
        config = AutoConfig.from_pretrained(folder)
        kinds = config.architectures or []
        if not any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds):
            what = kinds[0] if kinds else config.model_type
            raise UserError(f"{name} is a {what}, which does not continue text; it cannot be fine-tuned here.")
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, attn_implementation="sdpa"
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise UserError(f"{name} cannot be loaded: {str(error).strip().splitlines()[0]}") from None
    if not isinstance(model.get_output_embeddings(), torch.nn.Linear):
        raise UserError(f"{name} has no output layer that can be trained here.")
    unburden(model)
    return model


def unburden(model: Any) -> None:
    """Take from a base like GPT-2, in place, what costs up to a third of a step and does little for fine-tuning.

    Dropout: a pass or two over the data needs none, today's bases have none, and attention has no quick kernel with
    it. And the tanh form of GELU (Hendrycks & Gimpel 2016) in single operations: the same is one kernel.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, torch.nn.GELU(approximate="tanh"))


@dataclass
class Nats(ModelOutput):
    """-log P of the targets: of all, and (rows,) of each row."""

    loss: Tensor | None = None
    rows: Tensor | None = None


def with_adapters(model: Any, rank: int, seed: int, begun: Path | None = None) -> Any:
    """The model frozen, a trainable low-rank matrix beside every linear layer but the last (peft).

    `begun`: the folder of adapters that are trained further.

    Raises:
        UserError: those do not fit the model.
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    if begun is not None:
        try:
            return PeftModel.from_pretrained(model, begun, is_trainable=True)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise UserError(f"The adapter in {begun} does not fit: {str(error).strip().splitlines()[0]}") from None
    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(model, config)


def check_vocabulary(model: Any, tokenizer: Any, name: str) -> None:
    """Raises UserError where the tokenizer has tokens that the model does not know."""
    known = model.get_input_embeddings().num_embeddings
    highest = max(tokenizer.get_vocab().values(), default=0)
    if highest >= known:
        raise UserError(
            f"The tokenizer has the token {highest}, outside the vocabulary of {name}: it knows {known} tokens."
        )


@torch.no_grad()
def keeps_apart(model: Any, name: str) -> bool:
    """Whether texts that share a row do not see each other: some models leave it to the positions, which begin anew
    with each, and some do not look at those. Tried out with another first text, and with another last token.

    Raises:
        UserError: a token sees those after it, or the logits are more than the output layer gives.
    """
    length = 8
    ids = torch.arange(1, 2 * length + 1).repeat(3, 1)
    ids[1, :length] += 2 * length
    ids[2, -1] += 2 * length
    positions = torch.arange(length).repeat(3, 2)
    hidden = _hidden(model, ids, positions)
    logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    if not _close(hidden[0, :-1], hidden[2, :-1]):
        what = "which reads a text from both sides"
    elif not _close(logits, model.get_output_embeddings()(hidden)):
        what = "whose logits are not what its output layer gives"
    else:
        return _close(hidden[0, length:], hidden[1, length:])
    raise UserError(f"{name} is a {type(model).__name__}, {what}; it cannot be fine-tuned here.")


def compute_targets_only(model: Any) -> None:
    """Let the model compute logits where something is learned, and no others.

    With labels, its forward pass then takes rows as `Rows` gives them (labels shifted already, positions by sample)
    and gives `Nats`: as loss the sum of -log P over the targets, in nats. Without labels it is as it was. Most tokens
    of a chat are not learned, and a large vocabulary makes the logits the costliest part.
    """
    whole: Callable[..., Any] = model.forward
    scale = getattr(model.config, "logit_scale", None)
    cap = getattr(model.config, "final_logit_softcapping", None)
    if scale or cap or getattr(model.config, "logits_scaling", 1) not in (1, None):
        raise UserError(
            f"Models of the kind {model.config.model_type} scale their logits; they cannot be trained here."
        )

    def forward(
        self: Any,
        input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        **rest: Any,
    ) -> Any:
        if labels is None:
            return whole(input_ids=input_ids, position_ids=position_ids, **rest)
        hidden = _hidden(self, input_ids, position_ids)
        chosen = labels != IGNORED
        nats = _nats(self.get_output_embeddings(), hidden[chosen], labels[chosen])
        rows = nats.new_zeros(len(labels)).index_add(0, chosen.nonzero()[:, 0], nats)
        return Nats(loss=nats.sum(), rows=rows)

    model.forward = MethodType(forward, model)


def parameters(model: Any) -> tuple[int, int]:
    """How many weights there are, and how many of them are trained."""
    counts = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    return sum(count for count, _ in counts), sum(count for count, trained in counts if trained)


def _hidden(model: Any, ids: Tensor | None, positions: Tensor | None) -> Tensor:
    """What the output layer is given, (rows, length, width)."""
    hidden: Tensor = model.base_model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
    return hidden


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-3, atol=1e-3)


def _nats(head: torch.nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    """-log P of each of the targets (n,) by hidden states (n, width)."""
    if len(targets) <= LOGITS_AT_ONCE:
        return _some_nats(head, hidden, targets)
    some = [slice(at, at + LOGITS_AT_ONCE) for at in range(0, len(targets), LOGITS_AT_ONCE)]
    return torch.cat([checkpoint(_some_nats, head, hidden[one], targets[one], use_reentrant=False) for one in some])


def _some_nats(head: torch.nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(head(hidden).float(), targets, reduction="none")
