"""What a model in training says: samples for the person who watches."""

from __future__ import annotations

from typing import Any

import torch

from chatbot.gpt.options import Options

OPENINGS = ("", "The ", "In the beginning", "It was a dark")
QUESTIONS = ("Hello! Who are you?", "What is the capital of France?", "Tell me a joke.", "How are you today?")

_TOKENS = 60


def samples(model: Any, tokenizer: Any, options: Options) -> list[tuple[str, str]]:
    """How it goes on from some openings, or replies to some questions. Leaves all chance in training as it was."""
    devices = [model.device] if model.device.type == "cuda" else []
    model.eval()
    asked = OPENINGS if options.stage == "pretrain" else QUESTIONS
    with torch.random.fork_rng(devices), torch.no_grad():
        torch.manual_seed(options.seed)
        said = [(one, _one(model, tokenizer, options, one)) for one in asked]
    model.train()
    return said


def _one(model: Any, tokenizer: Any, options: Options, asked: str) -> str:
    if options.stage == "pretrain":
        ids = [tokenizer.bos_token_id, *tokenizer(asked, add_special_tokens=False).input_ids]
        ids = [one for one in ids if one is not None]
    else:
        messages = [{"role": "user", "content": asked}]
        if options.system:
            messages.insert(0, {"role": "system", "content": options.system})
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False).input_ids
    prompt = torch.tensor([ids], device=model.device)
    made = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=min(_TOKENS, max(1, options.block - len(ids))),
        do_sample=True,
        temperature=0.8 if options.stage == "pretrain" else 0.2,
        top_p=0.9,
        pad_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return str(tokenizer.decode(made[0, len(ids) :], skip_special_tokens=True)).strip()
