"""Qwen2.5-VL with stock transformers: what the engine is compared with.

`naive` does what the Lever-Plus research code does: for each prompt its image files are read, preprocessed and run
from pixels, four prompts at a time, with logits of the whole vocabulary at every token. `hf-batched` is what a careful
user writes: prompts of similar length in batches of a token budget, with logits at the answer only. `hf-image-cache`
does so too, and encodes each image once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image as Pil
from transformers import GenerationConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from leverplus_core import AnswerLogprob, Decoding, Image, Model, Prompt
from leverplus_models.engine.rows import length_batches

CHAT = (  # Qwen2.5-VL's own chat template, less its default system turn and its branch for videos
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}<|im_start|>assistant{{ '\n' }}"  # jinja drops a last line break
)


IMAGES_PER_BATCH = 16


class Stock(Model):
    """Every prompt from pixels: `batch` at a time with all logits, or under `tokens_per_batch` with the answer's.

    With `image_cache` the features of an image are kept.
    """

    model: Any
    tokenizer: Any
    processor: Any
    batch: int = 4
    tokens_per_batch: int | None = None
    image_cache: bool = False

    @torch.inference_mode()
    def logprob(self, prompts: Sequence[Prompt], answers: Sequence[str], end_mark: bool = False) -> list[AnswerLogprob]:
        if end_mark:
            raise NotImplementedError("the bench times answers without an end mark")
        texts = [self._text(prompt) for prompt in prompts]
        found: dict[int, AnswerLogprob] = {}
        for rows in self._batches(texts):
            files = [path for i in rows for path in paths(prompts[i])]
            scores = self._score(self._images(files), [texts[i] for i in rows], [answers[i] for i in rows])
            found |= zip(rows, scores, strict=True)
        return [found[i] for i in range(len(prompts))]

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str]:
        texts = [self._text(prompt) for prompt in prompts]
        config = GenerationConfig(
            max_new_tokens=decoding.max_new_tokens,
            num_beams=decoding.num_beams,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
            do_sample=False,
            **({"length_penalty": decoding.length_penalty} if decoding.num_beams > 1 else {}),
        )
        found: dict[int, str] = {}
        for rows in self._batches(texts):
            inputs = self._inputs([texts[i] for i in rows])
            images = self._pixels([path for i in rows for path in paths(prompts[i])])
            with torch.inference_mode():
                ids = self.model.generate(**inputs, **images, generation_config=config)
            new = ids[:, inputs["input_ids"].shape[1] :]
            found |= zip(rows, self.tokenizer.batch_decode(new, skip_special_tokens=True), strict=True)
        return [found[i] for i in range(len(prompts))]

    @torch.inference_mode()
    def encode(self, files: Sequence[str]) -> None:
        """Encode those image files that are not encoded yet."""
        missing = [file for file in dict.fromkeys(files) if file not in self._features]
        for start in range(0, len(missing), IMAGES_PER_BATCH):
            batch = missing[start : start + IMAGES_PER_BATCH]
            pixels = self._pixels(batch)
            features = self.model.get_image_features(**pixels).pooler_output
            for file, grid, tokens in zip(batch, pixels["image_grid_thw"].cpu(), features, strict=True):
                self._features[file] = grid, tokens

    def _pixels(self, files: Sequence[str]) -> Any:
        images = [Pil.open(file).convert("RGB") for file in files]
        return self.processor(images=images, return_tensors="pt").to(self.model.device)

    def _images(self, files: Sequence[str]) -> Any:
        """What the model takes: pixels, or what has been made of them."""
        if not self.image_cache:
            return self._pixels(files)
        self.encode(files)
        grids, tokens = zip(*(self._features[file] for file in files), strict=True)
        made = SimpleNamespace(pooler_output=tokens)
        return {"image_grid_thw": torch.stack(grids), "mm_encoder_outputs": {"image": made}}

    @cached_property
    def _features(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        return {}

    def _inputs(self, texts: list[str]) -> dict[str, Any]:
        inputs = self.tokenizer(
            texts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt"
        ).to(self.model.device)
        types = (inputs["input_ids"] == self.model.config.image_token_id).int()
        return {**inputs, "mm_token_type_ids": types}

    def _batches(self, texts: Sequence[str]) -> Iterator[list[int]]:
        if self.tokens_per_batch:
            tokens = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
            yield from length_batches([len(row) for row in tokens], self.tokens_per_batch)
        else:
            yield from (list(range(n, min(n + self.batch, len(texts)))) for n in range(0, len(texts), self.batch))

    def _score(self, images: Any, texts: list[str], answers: list[str]) -> list[AnswerLogprob]:
        inputs = self._inputs([text + answer for text, answer in zip(texts, answers, strict=True)])
        ids = inputs["input_ids"]
        counts = [len(self.tokenizer(answer, add_special_tokens=False)["input_ids"]) for answer in answers]
        logits = self.model(
            **inputs,
            **images,
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
