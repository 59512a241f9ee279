"""Qwen2.5-VL with stock transformers: what the engine is compared with.

`naive` does what the Lever-Plus research code does: for each prompt its image files are read, preprocessed and run
from pixels, four prompts at a time, with logits of the whole vocabulary at every token. `hf-batched` is what a careful
user writes: prompts of similar length in batches of a token budget, with logits at the answer only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from PIL import Image as Pil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from leverplus_core import AnswerLogprob, Decoding, Image, Model, Prompt
from leverplus_models.engine.rows import length_batches

CHAT = (  # Qwen2.5-VL's own chat template, less its default system turn and its branch for videos
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}<|im_start|>assistant{{ '\n' }}"  # jinja drops a last line break
)


class Stock(Model):
    """Every prompt from pixels: `batch` at a time with all logits, or under `tokens_per_batch` with the answer's."""

    model: Any
    tokenizer: Any
    processor: Any
    batch: int = 4
    tokens_per_batch: int | None = None

    @torch.inference_mode()
    def logprob(self, prompts: Sequence[Prompt], answers: Sequence[str], end_mark: bool = False) -> list[AnswerLogprob]:
        if end_mark:
            raise NotImplementedError("the bench times answers without an end mark")
        texts = [self._text(prompt) for prompt in prompts]
        found: dict[int, AnswerLogprob] = {}
        for rows in self._batches(texts):
            images = [Pil.open(path).convert("RGB") for i in rows for path in paths(prompts[i])]
            scores = self._score(images, [texts[i] for i in rows], [answers[i] for i in rows])
            found |= zip(rows, scores, strict=True)
        return [found[i] for i in range(len(prompts))]

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str]:
        raise NotImplementedError("the bench times scoring")

    def _batches(self, texts: Sequence[str]) -> Iterator[list[int]]:
        if self.tokens_per_batch:
            tokens = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
            yield from length_batches([len(row) for row in tokens], self.tokens_per_batch)
        else:
            yield from (list(range(n, min(n + self.batch, len(texts)))) for n in range(0, len(texts), self.batch))

    def _score(self, images: list[Pil.Image], texts: list[str], answers: list[str]) -> list[AnswerLogprob]:
        pixels = self.processor(images=images, return_tensors="pt").to(self.model.device)
        inputs = self.tokenizer(
            [text + answer for text, answer in zip(texts, answers, strict=True)],
            add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt",
        ).to(self.model.device)  # fmt: skip
        ids = inputs["input_ids"]
        counts = [len(self.tokenizer(answer, add_special_tokens=False)["input_ids"]) for answer in answers]
        logits = self.model(
            **inputs,
            **pixels,
            mm_token_type_ids=(ids == self.model.config.image_token_id).int(),
            logits_to_keep=max(counts) + 1 if self.tokens_per_batch else 0,  # 0: all of them
            use_cache=False,
        ).logits  # (batch, tokens kept, vocabulary)
        results = []
        for row, answer, count in zip(logits, ids, counts, strict=True):
            logprobs = row[-count - 1 : -1].float().log_softmax(-1)  # (count, vocabulary)
            results.append(AnswerLogprob(float(logprobs.gather(-1, answer[-count:, None]).double().sum()), count))
        return results

    def ids(self, prompt: Prompt, answer: str = "") -> list[int]:
        """The tokens of `prompt` and `answer`."""
        return list(self.tokenizer(self._text(prompt) + answer, add_special_tokens=False)["input_ids"])

    def grid(self, path: str) -> tuple[int, int]:
        """Patches (h, w) of an image file."""
        if path not in self._grids:
            with Pil.open(path) as picture:
                width, height = picture.size
            side, size = self.processor.patch_size, self.processor.size
            h, w = smart_resize(
                height, width, side * self.processor.merge_size, size["shortest_edge"], size["longest_edge"]
            )
            self._grids[path] = h // side, w // side
        return self._grids[path]

    @cached_property
    def _grids(self) -> dict[str, tuple[int, int]]:
        return {}

    def _text(self, prompt: Prompt) -> str:
        messages = [
            {
                "role": turn.role,
                "content": [
                    {"type": "image"} if isinstance(part, Image) else {"type": "text", "text": part}
                    for part in turn.content
                ],
            }
            for turn in prompt.turns
        ]
        text = str(self.tokenizer.apply_chat_template(messages, chat_template=CHAT, tokenize=False))
        for path in paths(prompt):  # as Qwen2_5_VLProcessor does
            h, w = self.grid(path)
            text = text.replace("<|image_pad|>", "<|placeholder|>" * (h * w // self.processor.merge_size**2), 1)
        return text.replace("<|placeholder|>", "<|image_pad|>")


def paths(prompt: Prompt) -> list[str]:
    """The image files of a prompt, in order."""
    found = [part.path for turn in prompt.turns for part in turn.content if isinstance(part, Image)]
    assert all(found), "the bench's images are files"
    return [path for path in found if path]
