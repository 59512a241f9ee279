"""The scoring engine: prompts through a transformers causal model, at the cost of their distinct tokens.

All rows of a call are laid out as a tree of shared prefixes (`prefix_tree`) and run stretch by stretch, packed without
padding (`tree_attention`). The keys and values that later stretches need are held; nothing else is. Logits are
computed where an answer token is predicted. A stretch that does not fit memory is halved. The decisions are in
`docs/design/010-scoring-engine.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from transformers import GenerationConfig

from leverplus_core.plugins.contracts import Floats
from leverplus_core.records import AnswerLogprob, Decoding
from leverplus_models.batching import Row, by_length, pad
from leverplus_models.kernels import Kernels
from leverplus_models.tree_attention import fits
from leverplus_models.tree_walk import Continuation, Held, Logits, Stretch, TreeWalk, sequence_keys

Features = Callable[[Sequence[str], Sequence[str]], Mapping[str, Tensor]]
"""Features of the images with the first keys (each as often as it is to be encoded); the second are wanted next."""

LOGITS = 1 << 26
"""Logits at a time: 256 MB in float32."""


class EngineSettings(BaseModel):
    """Speed and memory of the scoring engine; results are equal (float32: to 1e-4) whatever is set here.

    Each piece can be switched off, so that `leverplus bench` shows what it is worth.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens_per_batch: int = Field(2048, gt=0, description="tokens run at once; halved when memory runs out")
    image_cache_mb: int = Field(1024, gt=0, description="memory for encoded images")
    kv_cache_mb: int = Field(1024, gt=0, description="memory for keys and values of a batch")
    image_cache_dir: Path | None = Field(None, description="folder for encoded images; null = the run's own")
    image_cache: bool = Field(True, description="encode an image once")
    image_batches: bool = Field(True, description="encode images of one size as one batch")
    prefix_sharing: bool = Field(True, description="compute keys and values of a shared prefix once")
    length_buckets: bool = Field(True, description="batch prompts of like length")
    answer_logits: bool = Field(True, description="compute logits, and the last layer, for answers only")
    prompt_reuse: bool = Field(True, description="tokenise a text once, and ask equal prompts of a call once")


class Engine:
    """Scores and generates; `features` gives the encoded images of what is about to run."""

    def __init__(
        self, model: Any, eos: Sequence[int], pad_id: int, settings: EngineSettings, features: Features | None = None
    ) -> None:
        self.model, self.eos, self.pad_id, self.settings = model, list(eos), pad_id, settings
        self.features: Features = features or (lambda keys, upcoming: {})
        # A checkpoint may carry a repetition penalty or sampling settings: the recipe's decoding alone decides.
        model.generation_config = _generation(eos_token_id=self.eos, pad_token_id=pad_id)
        self.packs = fits(model)
        self.kernels = Kernels(model)
        self._logits: Logits = "last layer" if self.kernels.read_alone else "answers"
        if not settings.answer_logits:
            self._logits = "everywhere"
        text = model.config.get_text_config()
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        a_token = 2 * text.num_hidden_layers * heads * width * model.dtype.itemsize
        self.budget = max(1, min(settings.tokens_per_batch, int(settings.kv_cache_mb * 2**20 // a_token)))
        self._readings = max(1, LOGITS // text.vocab_size)

    @torch.inference_mode()
    def logprob(self, rows: Sequence[Row], answers: Sequence[Sequence[int]]) -> list[AnswerLogprob]:
        """Sum of the log-probabilities, in float32, of the tokens `answers[i]` after `rows[i]`."""
        # The last answer token is predicted, never read.
        whole = [row.extended(answer[:-1]) for row, answer in zip(rows, answers, strict=True)]
        with self.kernels.lent():
            picked = (self._packed_logprob if self.packs else self._padded_logprob)(whole, answers)
        return [AnswerLogprob(float(sum(tokens)), len(tokens)) for tokens in picked]

    @torch.inference_mode()
    def generate(self, rows: Sequence[Row], decoding: Decoding) -> list[list[int]]:
        """New token ids after each row; what follows the end mark is padding or nothing."""
        keys: list[bytes | int] = list(range(len(rows)))
        if self.settings.prompt_reuse:
            keys = [key.tobytes() for key in sequence_keys(rows)]
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        asked = sorted(first.values())
        greedy = self.packs and decoding.num_beams == 1
        with self.kernels.lent():
            new = (self._packed_greedy if greedy else self._padded_generate)([rows[i] for i in asked], decoding)
        found = dict(zip(asked, new, strict=True))
        return [found[first[key]] for key in keys]

    @torch.inference_mode()
    def last_hidden_state(self, rows: Sequence[Row]) -> Floats:
        """(N, D) what the output layer reads at the last token of each row."""
        found: list[Any] = [None] * len(rows)

        def see(walk: TreeWalk, stretch: Stretch) -> Held:
            states, held, _ = walk.run(self.model, stretch, self._seen(walk, stretch), self._logits)
            for (row, _), state in zip(walk.readings(stretch), states.cpu().numpy(), strict=True):
                found[row] = state
            return held

        def see_padded(batch: Sequence[int], inputs: dict[str, Tensor]) -> None:
            states = self.model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1].float().cpu().numpy()
            for i, state in zip(batch, states, strict=True):
                found[i] = state

        with self.kernels.lent(), _without_output_layer(self.model):
            if self.packs:
                self._walk(rows, [1] * len(rows), see)
            else:
                self._batches(rows, [len(row.ids) for row in rows], see_padded)
        return np.stack(found) if found else np.zeros((0, self.model.config.get_text_config().hidden_size), np.float32)

    # --- packed: the tree ---------------------------------------------------------------------------------------------

    def _packed_logprob(self, rows: Sequence[Row], answers: Sequence[Sequence[int]]) -> list[list[float]]:
        picked = [[0.0] * len(answer) for answer in answers]

        def score(walk: TreeWalk, stretch: Stretch) -> Held:
            logits, held, _ = walk.run(self.model, stretch, self._seen(walk, stretch), self._logits)
            if readings := walk.readings(stretch):
                targets = torch.tensor([[answers[row][n]] for row, n in readings], device=logits.device)
                values = (logits.gather(1, targets)[:, 0] - logits.logsumexp(-1)).tolist()
                for (row, n), value in zip(readings, values, strict=True):
                    picked[row][n] = value
            return held

        self._walk(rows, [len(answer) for answer in answers], score)
        return picked

    def _packed_greedy(self, rows: Sequence[Row], decoding: Decoding) -> list[list[int]]:
        texts: list[list[int]] = [[] for _ in rows]

        def answer(walk: TreeWalk, stretch: Stretch) -> Held:
            logits, held, paths = walk.run(self.model, stretch, self._seen(walk, stretch), self._logits, keep_all=True)
            alive = [row for row, _ in walk.readings(stretch)]
            ends = {row: paths[walk.tree.last[row]] for row in alive}
            growing = Continuation(self.model, held.layers, ends, walk.like, walk.shapes)
            for row in alive:
                texts[row] = []  # a stretch that ran out of memory starts anew
            for n in range(decoding.max_new_tokens):
                for row, token in zip(alive, logits.argmax(-1).tolist(), strict=True):
                    texts[row].append(token)
                alive = [row for row in alive if texts[row][-1] not in self.eos]
                if not alive or n + 1 == decoding.max_new_tokens:
                    break
                places = [rows[row].positions[:, -1] + n + 1 for row in alive]
                logits = growing.step(alive, [texts[row][-1] for row in alive], places)
            return held

        self._walk(rows, [1] * len(rows), answer)
        return texts

    def _walk(self, rows: Sequence[Row], readings: Sequence[int], act: Callable[[TreeWalk, Stretch], Held]) -> None:
        """`act` on stretch after stretch of the rows' tree."""
        walk = TreeWalk(rows, readings, self.settings.prefix_sharing, self.settings.length_buckets, self.kernels.shapes)
        while not walk.done:
            stretch = walk.stretch(self.budget, self._readings)
            with self._in_memory(stretch.end - stretch.first > 1):
                walk.advance(stretch, act(walk, stretch))

    def _seen(self, walk: TreeWalk, stretch: Stretch) -> Mapping[str, Tensor]:
        # Without the cache an image is encoded as often as a prompt shows it, as in the stock path.
        again = [] if self.settings.image_cache else walk.shown(stretch)
        following = walk.after(stretch, self.budget, self._readings)
        return self.features([*again, *walk.images(stretch)], walk.images(following))

    # --- padded: beam search, and models that no tree fits ------------------------------------------------------------

    def _padded_logprob(self, rows: Sequence[Row], answers: Sequence[Sequence[int]]) -> list[list[float]]:
        picked: list[list[float]] = [[] for _ in rows]

        def score(batch: Sequence[int], inputs: dict[str, Tensor]) -> None:
            width = max(len(answers[i]) for i in batch)
            kept = width if self.settings.answer_logits else 0
            logits = self.model(**inputs, logits_to_keep=kept, use_cache=False).logits[:, -width:].float()
            logprobs = logits - logits.logsumexp(-1, keepdim=True)  # (B, width, vocabulary)
            for n, i in enumerate(batch):
                targets = torch.tensor(list(answers[i]), device=logits.device)[:, None]
                picked[i] = logprobs[n, width - len(answers[i]) :].gather(-1, targets)[:, 0].tolist()

        self._batches(rows, [len(row.ids) for row in rows], score)
        return picked

    def _padded_generate(self, rows: Sequence[Row], decoding: Decoding) -> list[list[int]]:
        # A length penalty without beams means nothing, and transformers warns about it.
        beams: dict[str, Any] = {"length_penalty": decoding.length_penalty} if decoding.num_beams > 1 else {}
        config = _generation(
            max_new_tokens=decoding.max_new_tokens,
            num_beams=decoding.num_beams,
            do_sample=False,
            eos_token_id=self.eos,
            pad_token_id=self.pad_id,
            **beams,
        )
        texts: list[list[int]] = [[] for _ in rows]

        def answer(batch: Sequence[int], inputs: dict[str, Tensor]) -> None:
            new = self.model.generate(**inputs, generation_config=config).tolist()
            for i, text in zip(batch, new, strict=True):
                texts[i] = text

        self._batches(rows, [(len(row.ids) + decoding.max_new_tokens) * decoding.num_beams for row in rows], answer)
        return texts

    def _batches(
        self, rows: Sequence[Row], lengths: Sequence[int], act: Callable[[Sequence[int], dict[str, Tensor]], None]
    ) -> None:
        """`act` on padded batch after batch."""
        waiting = list(range(len(rows)))
        while waiting:
            budget = self.budget
            planned = list(by_length([lengths[i] for i in waiting], budget, self.settings.length_buckets))
            done: set[int] = set()
            for batch in ([waiting[n] for n in numbers] for numbers in planned):
                with self._in_memory(len(batch) > 1):
                    features = self.features([s.key for i in batch for s in rows[i].images], ())
                    act(batch, pad([rows[i] for i in batch], self.pad_id, self.model, features))
                    done.update(batch)
                if self.budget != budget:
                    break
            waiting = [i for i in waiting if i not in done]

    @contextmanager
    def _in_memory(self, divisible: bool) -> Iterator[None]:
        """When memory runs out, halve the budget, so that the caller tries less at once."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            out = isinstance(error, torch.OutOfMemoryError | MemoryError) or "memory" in str(error)
            if not (out and divisible):
                raise
            self.budget = max(1, self.budget // 2)


@contextmanager
def _without_output_layer(model: Any) -> Iterator[None]:
    """Inside the block the model gives what its output layer reads in the place of logits."""
    layer = model.get_output_embeddings()
    vars(layer)["forward"] = lambda states: states
    try:
        yield
    finally:
        vars(layer).pop("forward", None)


def _generation(**values: Any) -> GenerationConfig:
    return GenerationConfig(**values)
