"""Prompts of different lengths through a causal language model, in batches that change no result.

Rows are sorted by length, put together under a budget of padded tokens, and padded on the left, so that every
answer ends at the last column: answer logits are the last few columns, and generation starts from the last one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import GenerationConfig

from leverplus_core.records import AnswerLogprob, Decoding

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Row:
    """A tokenised prompt: ids (L,), positions (A, L) on A rotary axes, and the vectors that stand for its images.

    `visual` holds one tensor (V, D) an image, in order; together they replace the embeddings of the image tokens.
    """

    ids: Ints
    positions: Ints
    visual: tuple[Tensor, ...] = ()


def by_length(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Row numbers in batches of like length, each of at most `budget` padded tokens (or one row)."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[i] > budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


class CausalBatches:
    """Scores and generates with a transformers causal model; `image_token` marks where visual vectors go."""

    def __init__(self, model: Any, eos: Sequence[int], pad: int, budget: int, image_token: int | None = None) -> None:
        self.model, self.eos, self.pad, self.budget, self.image_token = model, list(eos), pad, budget, image_token
        # A checkpoint may carry a repetition penalty or sampling settings: the recipe's decoding alone decides.
        model.generation_config = _settings(eos_token_id=self.eos, pad_token_id=pad)

    @torch.inference_mode()
    def logprob(self, rows: Sequence[Row], answers: Sequence[Sequence[int]]) -> list[AnswerLogprob]:
        """Sum of the log-probabilities, in float32, of the tokens `answers[i]` after `rows[i]`."""
        found: dict[int, AnswerLogprob] = {}
        lengths = [len(row.ids) + len(answer) - 1 for row, answer in zip(rows, answers, strict=True)]
        for batch in by_length(lengths, self.budget):
            # The last answer token is predicted, never read.
            inputs = self._pad([rows[i] for i in batch], [answers[i][:-1] for i in batch])
            width = max(len(answers[i]) for i in batch)
            targets = np.zeros((len(batch), width), dtype=np.int64)
            real = np.zeros((len(batch), width), dtype=bool)
            for n, i in enumerate(batch):
                targets[n, width - len(answers[i]) :] = answers[i]
                real[n, width - len(answers[i]) :] = True
            logits = self.model(
                **inputs, logits_to_keep=width, use_cache=False
            ).logits.float()  # (B, width, vocabulary)
            index = torch.from_numpy(targets).to(logits.device)
            picked = logits.gather(-1, index[..., None])[..., 0] - logits.logsumexp(-1)  # (B, width)
            sums = picked.masked_fill(~torch.from_numpy(real).to(logits.device), 0.0).double().sum(-1).tolist()
            found |= {i: AnswerLogprob(total, len(answers[i])) for i, total in zip(batch, sums, strict=True)}
        return [found[i] for i in range(len(rows))]

    @torch.inference_mode()
    def generate(self, rows: Sequence[Row], decoding: Decoding) -> list[list[int]]:
        """New token ids after each row, with what follows the end mark left in."""
        # A length penalty without beams means nothing, and transformers warns about it.
        beams: dict[str, Any] = {"length_penalty": decoding.length_penalty} if decoding.num_beams > 1 else {}
        config = _settings(
            max_new_tokens=decoding.max_new_tokens,
            num_beams=decoding.num_beams,
            do_sample=False,
            eos_token_id=self.eos,
            pad_token_id=self.pad,
            **beams,
        )
        found: dict[int, list[int]] = {}
        lengths = [(len(row.ids) + decoding.max_new_tokens) * decoding.num_beams for row in rows]
        for batch in by_length(lengths, self.budget):
            inputs = self._pad([rows[i] for i in batch], [()] * len(batch))
            new = self.model.generate(**inputs, generation_config=config).tolist()
            found |= dict(zip(batch, new, strict=True))
        return [found[i] for i in range(len(rows))]

    def _pad(self, rows: Sequence[Row], tails: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Embedded rows with their tails, padded on the left: what the model's forward and generate take."""
        length = max(len(row.ids) + len(tail) for row, tail in zip(rows, tails, strict=True))
        axes = len(rows[0].positions)
        ids = np.full((len(rows), length), self.pad, dtype=np.int64)
        mask = np.zeros((len(rows), length), dtype=np.int64)
        positions = np.zeros((axes, len(rows), length), dtype=np.int64)
        for n, (row, tail) in enumerate(zip(rows, tails, strict=True)):
            end = length - len(tail)
            start = end - len(row.ids)
            ids[n, start:end], ids[n, end:] = row.ids, tail
            mask[n, start:] = 1
            positions[:, n, start:end] = row.positions
            positions[:, n, end:] = row.positions[:, -1:] + np.arange(1, len(tail) + 1)
        device = self.model.device
        embedded = self.model.get_input_embeddings()(torch.from_numpy(ids).to(device))  # (B, L, D)
        visual = [tensor for row in rows for tensor in row.visual]
        if visual:
            where = torch.from_numpy((ids == self.image_token) & (mask == 1)).to(device)
            embedded[where] = torch.cat(visual).to(device, embedded.dtype)
        at = torch.from_numpy(positions).to(device)
        return {
            "inputs_embeds": embedded,
            "attention_mask": torch.from_numpy(mask).to(device),
            "position_ids": at if axes > 1 else at[0],
        }


def _settings(**values: Any) -> GenerationConfig:
    return GenerationConfig(**values)
