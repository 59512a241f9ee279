"""The scoring engine: runs prompts through a transformers causal model at the cost of their distinct tokens.

All rows of a call form a tree of shared prefixes (`prefix_tree`), which is run chunk by chunk, packed without padding
(`tree_attention`). Only the keys and values that later chunks need are kept, and logits are computed only where an
answer token is predicted. A chunk that does not fit in memory is halved. The decisions are explained in
`docs/design/010-scoring-engine.md`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from leverplus_core import (
    AnswerLogprob,
    CheckpointError,
    DataError,
    Decoding,
    Floats,
    LeverplusError,
    LeverplusWarning,
)
from leverplus_models.engine.beams import Beams, Greedy
from leverplus_models.engine.device import out_of_memory, to_device, token_budget, too_large
from leverplus_models.engine.kernels import Kernels
from leverplus_models.engine.packed_attention import supports_packed
from leverplus_models.engine.padding import pad
from leverplus_models.engine.rows import Ints, Row, length_batches, sequence_keys
from leverplus_models.engine.self_check import difference, listed, tolerance
from leverplus_models.engine.settings import EngineSettings
from leverplus_models.engine.tree_attention import tree_window
from leverplus_models.engine.tree_walk import (
    MAX_NODE,
    MAX_PACKED_NODE,
    Branches,
    Chunk,
    KVCache,
    LogitsMode,
    TreeWalk,
)

Features = Callable[[Sequence[str], Sequence[str]], Mapping[str, Tensor]]
"""(keys, upcoming) -> features of the images `keys`, each encoded as often as it occurs; `upcoming` are needed next."""
Inputs = Callable[[Sequence[Row]], dict[str, Any]]
"""Keyword arguments of the model's own `forward` and `generate` for a batch of rows, padded on the left."""

Ended = tuple[list[tuple[int, Ints]], tuple[Tensor, Tensor]]
"""Rows that end in a chunk with the slots of their paths; log-probabilities and ids of their likeliest next tokens."""
RunChunk = Callable[[TreeWalk, Chunk], KVCache]
"""Runs a chunk and returns the keys and values that later ones need."""

MAX_LOGITS = 1 << 26
"""Logits per forward pass: 256 MB in float32."""
DECODED = 4
"""Batches whose prompts are decoded together on a GPU: a step has a token of each, and hundreds of small kernels."""
LOOKAHEAD = 4
"""Batches whose images are read in advance."""


class Engine:
    """Scores and generates; `features` returns the encoded images of the rows that are run next.

    `eos` are the token ids that end a generated answer. A generation config of the checkpoint (repetition penalty,
    sampling) is replaced: the decoding of the recipe alone decides. `inputs` are those of the padded path; by default
    the embeddings of tokens and images.
    """

    def __init__(
        self,
        model: Any,
        eos: Sequence[int],
        pad_id: int,
        settings: EngineSettings,
        features: Features | None = None,
        inputs: Inputs | None = None,
    ) -> None:
        self.model, self.eos, self.pad_id, self.settings = model, list(eos), pad_id, settings
        self.features: Features = features or (lambda keys, upcoming: {})
        self.inputs = inputs or self._embedded
        model.generation_config = GenerationConfig(eos_token_id=self.eos, pad_token_id=pad_id)
        # The tree has its own attention: any other than sdpa is run as transformers runs it.
        self._may_share = settings.tree != "off" and model.config._attn_implementation == "sdpa"
        known = settings.tree == "force" or listed(model)
        self.window = tree_window(model) if self._may_share and known else 0
        self._verified = False
        self.kernels = Kernels(model, settings.kernels)
        self._mode: LogitsMode = "last layer" if self.kernels.last_layer_selects else "needed"
        if not settings.answer_logits:
            self._mode = "all"
        # A call may begin before the one in front of it has been computed: on a CPU that would only take its cores.
        self.ahead = model.device.type != "cpu"
        self.budget = token_budget(model, settings)
        self._max_node = MAX_PACKED_NODE if supports_packed(model) else MAX_NODE
        self._logit_budget = max(1, MAX_LOGITS // model.config.get_text_config().vocab_size)

    @torch.inference_mode()
    def verify(self, rows: Sequence[Row]) -> None:
        """Compare the tree with the model itself, once, on the two shortest of `rows`, with images if any has some.

        Where they differ, or the architecture is not listed, prompts take the padded path; a LeverplusWarning says it.
        """
        if self._verified or not rows or not self._may_share:
            return
        self._verified = True
        kind = self.model.config.model_type
        if not self.window:
            self._say(f"{kind} takes the padded path: it is not an architecture that the prefix tree runs.")
            return
        order = sorted(rows, key=lambda row: (not row.images, len(row.ids)))
        distinct = {key.tobytes(): row for row, key in zip(order, sequence_keys(order), strict=True)}
        asked = [row for row in distinct.values() if len(row.ids) <= self.window][:2]
        if not asked:
            self._verified = False
            return
        allowed, expected = tolerance(self.model.dtype), [self.own_logits(row) for row in asked]
        try:
            pairs = zip(expected, self._tree_logits(asked), strict=True)
            apart = max(difference(own, found) for own, found in pairs)
            what = f"log-probabilities differ by {apart:.2g}, where {allowed:g} is allowed"
        except LeverplusError:
            raise
        except Exception as error:  # a model whose layers cannot be called so
            said = (str(error) or type(error).__name__).splitlines()[0]
            apart, what = float("inf"), f"the tree failed ({said[:100]})"
        if apart > allowed:
            self.share_nothing()
            self._say(f"{kind} takes the padded path: on two prompts the prefix tree does not agree with it: {what}.")

    def share_nothing(self) -> None:
        """Take the padded path from now on."""
        self.window, self._verified = 0, True

    @torch.inference_mode()
    def own_logits(self, row: Row) -> Tensor:
        """(V,) logits after `row` on the padded path: the model's own forward."""
        found: list[Tensor] = []

        def run(batch: Sequence[int], inputs: dict[str, Any]) -> None:
            found.append(self.model(**inputs, logits_to_keep=1, use_cache=False).logits[0, -1])

        self._batches([row], [len(row.ids)], run)
        return found[-1]

    def _tree_logits(self, rows: Sequence[Row]) -> list[Tensor]:
        found: dict[int, Tensor] = {}

        def run(walk: TreeWalk, chunk: Chunk) -> KVCache:
            logits, cache, _ = walk.run(self.model, chunk, self._features(walk, chunk), self._mode)
            found.update({row: value for (row, _), value in zip(walk.logit_positions(chunk), logits, strict=True)})
            return cache

        with self.kernels.patched():
            self._walk(rows, [1] * len(rows), run)
        return [found[i] for i in range(len(rows))]

    def _say(self, what: str) -> None:
        warnings.warn(
            f"{what} Results are right; no prefix is shared, which is slower.", LeverplusWarning, stacklevel=3
        )

    def logprob(self, rows: Sequence[Row], answers: Sequence[Sequence[int]]) -> list[AnswerLogprob]:
        """Sum of the log-probabilities, in float32, of the tokens `answers[i]` after `rows[i]`."""
        return self.finish(self.start(rows, answers))

    @torch.inference_mode()
    def start(self, rows: Sequence[Row], answers: Sequence[Sequence[int]]) -> Scoring:
        """Begin what `logprob` does: plan it and, with the tree, start the first batch."""
        # The last answer token is predicted, but nothing is predicted from it.
        whole = [row.extended(answer[:-1]) for row, answer in zip(rows, answers, strict=True)]
        scoring = Scoring(whole, answers)
        if self._fits(whole):
            scoring.walk = self._plan(whole, [len(answer) for answer in answers])
            self._score(scoring, 1)
        return scoring

    @torch.inference_mode()
    def finish(self, scoring: Scoring, meanwhile: Callable[[], None] | None = None) -> list[AnswerLogprob]:
        """The results of what `start` began. `meanwhile` is called before the first of them is read.

        On a device all batches have been started then, and are still to be computed: reading a result waits for them.
        """
        found = [[0.0] * len(answer) for answer in scoring.answers]
        if scoring.walk is None:
            with self.kernels.patched():
                found = self._padded_logprob(scoring.rows, scoring.answers)
        self._score(scoring)
        if meanwhile is not None:
            meanwhile()
        for (row, n), value in _read(scoring.pending):
            found[row][n] = float(value)
        return [AnswerLogprob(float(sum(tokens)), len(tokens)) for tokens in found]

    @torch.inference_mode()
    def generate(self, rows: Sequence[Row], decoding: Decoding) -> list[list[int]]:
        """New token ids after each row; an end token may be followed by padding."""
        keys: list[bytes | int] = list(range(len(rows)))
        if self.settings.prompt_reuse:
            keys = [key.tobytes() for key in sequence_keys(rows)]
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        distinct = sorted(first.values())
        asked = [rows[i] for i in distinct]
        with self.kernels.patched():
            fits = self._fits(asked, decoding.max_new_tokens)
            new = (self._tree_generate if fits else self._padded_generate)(asked, decoding)
        found = dict(zip(distinct, new, strict=True))
        return [found[first[key]] for key in keys]

    @torch.inference_mode()
    def last_hidden_state(self, rows: Sequence[Row]) -> Floats:
        """(N, D) the input of the output layer at the last token of each row."""
        found: list[Any] = [None] * len(rows)
        pending: list[tuple[list[tuple[int, int]], Tensor]] = []

        def run(walk: TreeWalk, chunk: Chunk) -> KVCache:
            states, cache, _ = walk.run(self.model, chunk, self._features(walk, chunk), self._mode)
            pending.append((walk.logit_positions(chunk), states))
            return cache

        def run_padded(batch: Sequence[int], inputs: dict[str, Any]) -> None:
            states = self.model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1].float().cpu().numpy()
            for i, state in zip(batch, states, strict=True):
                found[i] = state

        with self.kernels.patched(), _without_output_layer(self.model):
            if self._fits(rows):
                self._walk(rows, [1] * len(rows), run)
                for (row, _), state in _read(pending):
                    found[row] = state
            else:
                self._batches(rows, [len(row.ids) for row in rows], run_padded)
        return np.stack(found) if found else np.zeros((0, self.model.config.get_text_config().hidden_size), np.float32)

    def _fits(self, rows: Sequence[Row], more: int = 0) -> bool:
        """Whether rows of a call, `more` tokens longer, can share prefixes: none exceeds the model's window."""
        return max((len(row.ids) for row in rows), default=0) + more <= self.window

    # --- with the tree ------------------------------------------------------------------------------------------------

    def _score(self, scoring: Scoring, batches: int | None = None) -> None:
        """Start so many of the batches that are left (None: all)."""

        def run(walk: TreeWalk, chunk: Chunk) -> KVCache:
            logits, cache, _ = walk.run(self.model, chunk, self._features(walk, chunk), self._mode)
            if positions := walk.logit_positions(chunk):
                targets = to_device(np.array([[scoring.answers[row][n]] for row, n in positions]), logits.device)
                scoring.pending.append((positions, logits.gather(1, targets)[:, 0] - logits.logsumexp(-1)))
            return cache

        with self.kernels.patched():
            while scoring.walk is not None and not scoring.walk.done and batches != 0:
                self._step(scoring.walk, run)
                batches = None if batches is None else batches - 1

    def _tree_generate(self, rows: Sequence[Row], decoding: Decoding) -> list[list[int]]:
        texts: list[list[int]] = [[] for _ in rows]
        greedy = decoding.num_beams == 1
        wanted = 1 if greedy else Beams.continuations(decoding.num_beams, self.eos)
        wanted = min(wanted, self.model.config.get_text_config().vocab_size)

        def search() -> Greedy | Beams:
            if greedy:
                return Greedy(decoding.max_new_tokens, self.eos)
            return Beams(decoding.num_beams, decoding.length_penalty, decoding.max_new_tokens, self.eos)

        def best(logits: Tensor) -> tuple[Tensor, Tensor]:
            values, tokens = logits.topk(wanted)
            return values - logits.logsumexp(-1, keepdim=True), tokens

        def decode(walk: TreeWalk, cache: KVCache, ended: Sequence[Ended]) -> None:
            branches = Branches(self.model, cache.layers, walk.bucket_by_length, walk.padding)
            # Not `for rows, _`: Python 3.12.1 would then lose the `rows` around this function.
            alive = [(row, search(), [path]) for some, _ in ended for row, path in some]
            logprobs, tokens = (torch.cat(found) for found in zip(*(found for _, found in ended), strict=True))
            for n in range(decoding.max_new_tokens):
                values, ids, at, going = _numbers(logprobs.cpu().numpy()), tokens.cpu().numpy(), 0, []
                for row, state, ends in alive:
                    parents = state.advance(values[at : at + len(ends)], ids[at : at + len(ends)])
                    at += len(ends)
                    if state.done:
                        texts[row] = state.text
                    else:
                        going.append((row, state, [ends[parent] for parent in parents]))
                if not going:
                    break
                last = [token for _, state, _ in going for token in state.last_tokens]
                positions = [rows[row].positions[:, -1] + n + 1 for row, _, ends in going for _ in ends]
                logits, longer = branches.step([end for _, _, ends in going for end in ends], last, positions)
                logprobs, tokens = best(logits)
                each = iter(longer)
                alive = [(row, state, [next(each) for _ in ends]) for row, state, ends in going]

        waiting: list[Ended] = []
        before = self.budget

        def run(walk: TreeWalk, chunk: Chunk) -> KVCache:
            nonlocal before
            if waiting and self.budget < before:  # memory ran out: give back what is held
                decode(walk, walk.cache, waiting)
                waiting.clear()
                walk.advance(Chunk(chunk.first, chunk.first), replace(walk.cache, held=False))
            before = self.budget
            features = self._features(walk, chunk)
            logits, cache, paths = walk.run(self.model, chunk, features, self._mode, keep_all=True)
            ends = [(row, paths[walk.tree.last[row]]) for row, _ in walk.logit_positions(chunk)]
            ended = [*waiting, (ends, best(logits))]
            if chunk.end < len(walk.nodes) and cache.size < self._decoded_together:
                waiting[:] = ended
                return replace(cache, held=True)
            decode(walk, cache, ended)
            waiting.clear()
            return cache

        budget = self._logit_budget
        self._logit_budget = max(1, budget // decoding.num_beams)  # every row has so many of them from its first token
        try:
            self._walk(rows, [1] * len(rows), run)
        finally:
            self._logit_budget = budget
        return texts

    def _plan(self, rows: Sequence[Row], num_logits: Sequence[int]) -> TreeWalk:
        settings = self.settings
        share, by_length = settings.prefix_sharing, settings.length_buckets
        return TreeWalk(rows, num_logits, share, by_length, self.kernels.padding, self._max_node)

    def _walk(self, rows: Sequence[Row], num_logits: Sequence[int], run: RunChunk) -> None:
        """Call `run` on chunk after chunk of the rows' tree."""
        walk = self._plan(rows, num_logits)
        while not walk.done:
            self._step(walk, run)

    def _step(self, walk: TreeWalk, run: RunChunk) -> None:
        """Call `run` on the next chunk; where memory ran out, nothing but the size of chunks has changed after it."""
        chunk = walk.chunk(self.budget, self._logit_budget)
        with self._halving(chunk.end - chunk.first > 1):
            walk.advance(chunk, run(walk, chunk))

    def _features(self, walk: TreeWalk, chunk: Chunk) -> Mapping[str, Tensor]:
        # Without the cache an image is encoded as often as prompts show it, as in the stock path.
        repeated = [] if self.settings.image_cache else walk.repeated_images(chunk)
        following = walk.chunk(LOOKAHEAD * self.budget, self._logit_budget, after=chunk)
        return self.features([*repeated, *walk.images(chunk)], walk.images(following))

    @property
    def _decoded_together(self) -> int:
        """Tokens whose keys and values may wait for their prompts to be decoded; a CPU gains nothing by waiting."""
        return (DECODED - 1) * self.budget if self.ahead else 0

    # --- padded: models without tree attention ------------------------------------------------------------------------

    def _padded_logprob(self, rows: Sequence[Row], answers: Sequence[Sequence[int]]) -> list[list[float]]:
        found: list[list[float]] = [[] for _ in rows]

        def run(batch: Sequence[int], inputs: dict[str, Any]) -> None:
            width = max(len(answers[i]) for i in batch)
            kept = width if self.settings.answer_logits else 0
            logits = self.model(**inputs, logits_to_keep=kept, use_cache=False).logits[:, -width:].float()
            logprobs = logits - logits.logsumexp(-1, keepdim=True)  # (B, width, vocabulary)
            for n, i in enumerate(batch):
                targets = torch.tensor(list(answers[i]), device=logits.device)[:, None]
                found[i] = logprobs[n, width - len(answers[i]) :].gather(-1, targets)[:, 0].tolist()

        self._batches(rows, [len(row.ids) for row in rows], run)
        return found

    def _padded_generate(self, rows: Sequence[Row], decoding: Decoding) -> list[list[int]]:
        # Without beams transformers warns about a length penalty.
        beams: dict[str, Any] = {"length_penalty": decoding.length_penalty} if decoding.num_beams > 1 else {}
        config = GenerationConfig(
            max_new_tokens=decoding.max_new_tokens,
            num_beams=decoding.num_beams,
            do_sample=False,
            eos_token_id=self.eos,
            pad_token_id=self.pad_id,
            **beams,
        )
        texts: list[list[int]] = [[] for _ in rows]

        def run(batch: Sequence[int], inputs: dict[str, Any]) -> None:
            new = self.model.generate(**inputs, generation_config=config, logits_processor=[_refuse_nan])
            shown = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0  # of embeddings only new ids come back
            for i, text in zip(batch, new[:, shown:].tolist(), strict=True):
                texts[i] = text

        self._batches(rows, [(len(row.ids) + decoding.max_new_tokens) * decoding.num_beams for row in rows], run)
        return texts

    def _batches(
        self, rows: Sequence[Row], lengths: Sequence[int], run: Callable[[Sequence[int], dict[str, Any]], None]
    ) -> None:
        """Call `run` on padded batch after batch."""
        pending = list(range(len(rows)))
        while pending:
            budget = self.budget
            planned = list(length_batches([lengths[i] for i in pending], budget, self.settings.length_buckets))
            done: set[int] = set()
            for batch in ([pending[n] for n in numbers] for numbers in planned):
                with self._halving(len(batch) > 1):
                    run(batch, self.inputs([rows[i] for i in batch]))
                    done.update(batch)
                if self.budget != budget:
                    break
            pending = [i for i in pending if i not in done]

    def _embedded(self, rows: Sequence[Row]) -> dict[str, Any]:
        features = self.features([span.key for row in rows for span in row.images], ())
        return pad(rows, self.pad_id, self.model, features)

    @contextmanager
    def _halving(self, divisible: bool) -> Iterator[None]:
        """When memory runs out, halve the budget instead of failing; the caller tries again with less.

        Raises DataError for what cannot be halved.
        """
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if not divisible:
                raise too_large("a prompt", self.model.device, error) from error
            self.budget = max(1, self.budget // 2)


@dataclass(slots=True)
class Scoring:
    """Log-probabilities that are being computed: the rows with their answers, and what has been started.

    `pending` are results on the device, each with (row, number of the answer token); a model without tree attention
    has no `walk`, and nothing of it is started in advance.
    """

    rows: Sequence[Row]
    answers: Sequence[Sequence[int]]
    walk: TreeWalk | None = None
    pending: list[tuple[list[tuple[int, int]], Tensor]] = field(default_factory=list)


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The token ids at which a generation ends: the checkpoint's, else the tokenizer's.

    Raises CheckpointError when neither names one.
    """
    ids = model.generation_config.eos_token_id
    ids = tokenizer.eos_token_id if ids is None else ids
    if ids is None:
        raise CheckpointError(
            f"'{model.name_or_path}' names no end token.", "Set eos_token_id in its generation_config.json."
        )
    return list(ids) if isinstance(ids, list) else [int(ids)]


def _read(pending: Sequence[tuple[list[tuple[int, int]], Tensor]]) -> Iterator[tuple[tuple[int, int], Any]]:
    """Each position with its row of a result; waits for the device."""
    if pending:
        whole = torch.cat([values for _, values in pending]).cpu().numpy()
        yield from zip((position for positions, _ in pending for position in positions), whole, strict=True)


@contextmanager
def _without_output_layer(model: Any) -> Iterator[None]:
    """Inside the block the model returns the input of its output layer in place of logits."""
    layer = model.get_output_embeddings()
    vars(layer)["forward"] = lambda states: states
    try:
        yield
    finally:
        vars(layer).pop("forward", None)


def _numbers(logprobs: Floats) -> Floats:
    """`logprobs`, if they are numbers. Raises DataError where they are not: the model would answer with nothing."""
    if np.isnan(logprobs).any():
        raise DataError(
            "the model's logits are not numbers.",
            "Check its dtype: float16 overflows on some models, bfloat16 does not.",
        )
    return logprobs


def _refuse_nan(ids: Tensor, scores: Tensor) -> Tensor:
    """As `_numbers`, where transformers generates."""
    _numbers(scores.max(-1).values.float().cpu().numpy())
    return scores
