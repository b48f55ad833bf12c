"""Captions and prompts as vectors: all-MiniLM-L6-v2 through transformers, mean-pooled, of unit length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

LENGTH = 384
_LONGEST = 128  # tokens; a prompt beyond is cut, as the model was trained


class TextEncoder:
    """Reads sentences (Reimers and Gurevych 2019; English)."""

    def __init__(self, folder: Path, device: str | torch.device = "cpu") -> None:
        from tokenizers import Tokenizer
        from transformers import BertModel
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped there
        self._tokenizer = Tokenizer.from_file(str(Path(folder, "tokenizer.json")))
        self._tokenizer.enable_truncation(_LONGEST)
        self._tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
        model: torch.nn.Module = BertModel.from_pretrained(folder, local_files_only=True)
        self._model = model.to(device).eval()
        self._device = device

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (N, 384)."""
        read = self._tokenizer.encode_batch(list(texts))
        numbers = torch.tensor([one.ids for one in read], device=self._device)
        seen = torch.tensor([one.attention_mask for one in read], device=self._device)
        hidden = self._model(input_ids=numbers, attention_mask=seen).last_hidden_state
        mask = seen[..., None].to(hidden.dtype)
        return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).float()

    def embed_many(self, texts: Sequence[str], tell: Callable[[str, float | None], None]) -> Tensor:
        """The same for thousands, short ones together; on the CPU's side, (N, 384) float32."""
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        vectors = torch.empty(len(texts), LENGTH)
        for start in range(0, len(order), 256):
            tell(f"Reading {len(texts)} captions", start / len(texts))
            chosen = order[start : start + 256]
            vectors[chosen] = self.embed([texts[number] for number in chosen]).cpu()
        return vectors
