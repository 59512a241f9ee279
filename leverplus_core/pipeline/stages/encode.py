"""`encode`: features of every distinct image and text, and hidden states where the encoder asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from leverplus_core.errors import DataError, PromptError
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.stage import Planning, Stage, StageCost, StageReport
from leverplus_core.plugins.contracts import Features, Floats
from leverplus_core.progress import Progress
from leverplus_core.records import Demonstration, Prompt, Question
from leverplus_core.scoring.prompt import build_prompt
from leverplus_core.seeding import rng
from leverplus_core.selector.feature_set import FEATURES, FeatureSet

T = TypeVar("T")
BATCH = 512
"""Rows between two steps of the progress bar; an encoder's rows do not depend on it."""


class Encode(Stage):
    """Encode every distinct image and text once, and the hidden states of all questions where they are asked for."""

    name: str = "encode"
    provides: ClassVar[str] = "features"

    def depends(self, context: RunContext) -> object:
        recipe, encoder = context.recipe, context.encoder
        hidden: list[object] = []
        if encoder.hidden_states is not None:
            hidden = [encoder.hidden_states, *context.model_identity(), recipe.data_seed]
        model = context.identity("model") if encoder.needs_model else None
        return [context.identity("dataset"), context.identity("encoder"), model, hidden]

    def run(self, context: RunContext, inputs: Mapping[str, Path], out: Path, report: StageReport) -> dict[str, Any]:
        dataset, encoder, progress = context.dataset, context.encoder, context.progress
        bank = dataset.demonstrations()
        splits = {split: dataset.questions(split) for split in context.splits}
        if not bank or not all(splits.values()):
            empty = "demonstrations" if not bank else next(s for s, rows in splits.items() if not rows) + " questions"
            raise DataError(f"the dataset has no {empty}.", "Check its files and limits.")
        questions = [q for rows in splits.values() for q in rows]
        rows: list[Demonstration | Question] = [*bank, *questions]
        images = list(dict.fromkeys(row.image for row in rows))
        texts = list(dict.fromkeys([row.text for row in rows] + [d.answer for d in bank]))
        model = context.model if encoder.needs_model else None
        image_rows = _encoded(images, lambda part: encoder.images(part, model), "image", progress)
        text_rows = _encoded(texts, lambda part: encoder.texts(part, model), "text", progress)
        image_at = {image: i for i, image in enumerate(images)}
        text_at = {text: i for i, text in enumerate(texts)}
        bank_states = question_states = None
        metadata = {
            "images": len(images), "texts": len(texts),
            "image_width": image_rows.shape[1], "text_width": text_rows.shape[1],
        }  # fmt: skip
        if encoder.hidden_states is not None:
            distinct = {(row.image, row.text): row for row in rows}
            at = {key: i for i, key in enumerate(distinct)}
            bank_at, question_at = ([at[r.image, r.text] for r in part] for part in (bank, questions))
            states = standardize(_hidden_states(context, list(distinct.values()), bank), bank_at)
            bank_states, question_states = states[bank_at], states[question_at]
            metadata |= {"states": len(distinct), "state_width": states.shape[1]}
        FeatureSet(
            [d.id for d in bank],
            Features(
                image_rows[[image_at[d.image] for d in bank]],
                text_rows[[text_at[d.text] for d in bank]],
                text_rows[[text_at[d.answer] for d in bank]],
                bank_states,
            ),
            [q.id for q in questions],
            Features(
                image_rows[[image_at[q.image] for q in questions]],
                text_rows[[text_at[q.text] for q in questions]],
                None,
                question_states,
            ),
        ).write(out / FEATURES)
        return metadata

    def cost(self, planning: Planning) -> StageCost:
        size = planning.size
        everything = (size.train_images, size.validation_images)
        if planning.hidden_states is not None:
            # A hidden state costs what a log-probability does.
            return StageCost({planning.hidden_states: size.train + size.validation}, images=everything)
        return StageCost(images=everything) if planning.encoder_uses_model else StageCost(encoded=sum(everything))


def _hidden_states(
    context: RunContext, rows: Sequence[Demonstration | Question], bank: Sequence[Demonstration]
) -> Floats:
    """(N, Ds) the model's hidden state as it begins to answer each question after the same demonstrations.

    These show it what an answer looks like; one that shows the question's own image is passed over for the next of a
    seeded order.
    """
    shots = context.encoder.hidden_states
    order = [bank[i] for i in rng(context.recipe.data_seed, "demonstrations of states").permutation(len(bank))]

    def ask(row: Demonstration | Question) -> Prompt:
        shown = list(islice((d for d in order if d.image.id != row.image.id), shots))
        return build_prompt(shown, Question(row.id, row.text, row.image, ()), context.recipe.prompt)

    prompts = [ask(row) for row in rows]
    try:
        return _encoded(prompts, context.cached_model.last_hidden_state, "state", context.progress)
    except PromptError as e:
        raise DataError(f"question {rows[prompts.index(e.prompt)].id}: {e.what}", e.hint) from e  # type: ignore[arg-type]


def standardize(rows: Floats, bank: Sequence[int]) -> Floats:
    """Unit rows of what sets each state apart: in deviations from the mean of the demonstrations' (rows `bank`).

    A model's states share a few large directions, which make all of them similar (Ethayarajh, EMNLP 2019,
    arXiv:1909.00512).
    """
    mean, deviation = rows[bank].mean(0), rows[bank].std(0)
    centered = (rows - mean) / np.maximum(deviation, 1e-6)
    return np.asarray(centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-6), dtype=np.float32)


def _encoded(rows: Sequence[T], encode: Callable[[Sequence[T]], Floats], what: str, progress: Progress) -> Floats:
    parts = []
    with progress.task(f"encode {what}s", len(rows)) as task:
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            found = encode(part)
            if found.shape[0] != len(part) or not np.isfinite(found).all():
                raise DataError(
                    f"the encoder gave {found.shape[0]} {what} rows for {len(part)}, or values that are not finite.",
                    "Check the encoder.",
                )
            parts.append(found)
            task.advance(len(part))
    return np.concatenate(parts).astype(np.float32, copy=False)
