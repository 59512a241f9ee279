"""What each stage reads, does and writes. Stages speak through files; `pipeline` knows their order.

A stage function is given a folder to write to and what it needs, and returns the facts worth keeping in its
provenance. The training stages stand in `leverplus_core.learning`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from leverplus_core.candidates import mine as mining
from leverplus_core.candidates.stats import balance_facts, shape
from leverplus_core.candidates.store import BALANCED, CANDIDATES, MINED, Groups, by_question, read_groups, write_groups
from leverplus_core.errors import DataError, PluginError
from leverplus_core.io import read_json, read_jsonl, write_bytes, write_json, write_jsonl
from leverplus_core.plugins.contracts import (
    Balancer,
    Bank,
    Dataset,
    Encoder,
    Features,
    Floats,
    Model,
    Query,
    Sampler,
    Split,
    SupportsHiddenStates,
)
from leverplus_core.progress import Progress
from leverplus_core.recipes.settings import BeamSettings, CandidateSettings, MiningSettings, PromptSettings
from leverplus_core.records import Candidate, Demonstration, Prompt, Question, ScoredSequence
from leverplus_core.scoring.beam_search import beam_search
from leverplus_core.scoring.prompt import build_prompt
from leverplus_core.scoring.scorer import Scorer
from leverplus_core.seeding import rng
from leverplus_core.selector.features import SelectorFeatures
from leverplus_core.selector.policy import Policy
from leverplus_core.selector.propose import propose
from leverplus_core.training.data import TrainingContext

T = TypeVar("T")


SPLITS: tuple[Split, ...] = ("train", "validation")


@dataclass(frozen=True)
class Pools:
    """Each question's frozen pool, by train ids: question id -> demonstration ids."""

    of: Mapping[Split, Mapping[str, Sequence[str]]]

    @classmethod
    def load(cls, folder: Path) -> Pools:
        return cls(read_json(folder / "pools.json"))

    @cached_property
    def all(self) -> Mapping[str, Sequence[str]]:
        return {**self.of["train"], **self.of["validation"]}


@dataclass(frozen=True)
class EncodedData:
    """Features of the demonstrations and of each split's questions, aligned with the dataset's rows."""

    bank: Features
    questions: Mapping[Split, Features]

    @classmethod
    def load(cls, folder: Path) -> EncodedData:
        try:
            with np.load(folder / "features.npz", allow_pickle=False) as z:
                arrays = {name: z[name] for name in z.files}
            bank = Features(arrays["bank_image"], arrays["bank_text"], arrays["bank_answer"], arrays.get("bank_state"))
            questions = {
                split: Features(arrays[f"{split}_image"], arrays[f"{split}_text"], None, arrays.get(f"{split}_state"))
                for split in SPLITS
            }
        except (OSError, ValueError, KeyError, EOFError) as e:
            raise DataError(f"{folder / 'features.npz'} cannot be read: {e}.", f"Delete {folder} and run again.") from e
        return cls(bank, questions)

    def table(self, dataset: Dataset, pools: Pools) -> SelectorFeatures:
        """What the selector sees of every question of both splits."""
        rows = {
            question.id: [f[i] for f in (features.image, features.text, features.state) if f is not None]
            for split, features in self.questions.items()
            for i, question in enumerate(dataset.questions(split))
        }
        return SelectorFeatures.of([d.id for d in dataset.demonstrations()], self.bank, rows, pools.all)


ENCODED_AT_ONCE = 512
"""Rows between two steps of the progress bar; an encoder's rows do not depend on it."""


def encode(
    out: Path,
    dataset: Dataset,
    encoder: Encoder,
    model: Model,
    progress: Progress,
    prompt: PromptSettings,
    seed: int,
) -> dict[str, Any]:
    """Encode every distinct image and text once, and, where the encoder's `states` says so, every question's state."""
    bank = dataset.demonstrations()
    splits = {split: dataset.questions(split) for split in SPLITS}
    if not bank or not all(splits.values()):
        empty = "demonstrations" if not bank else next(s for s, rows in splits.items() if not rows) + " questions"
        raise DataError(f"the dataset has no {empty}.", "Check its files and limits.")
    everything: list[Demonstration | Question] = [*bank, *splits["train"], *splits["validation"]]
    images = list(dict.fromkeys(row.image for row in everything))
    texts = list(dict.fromkeys([row.text for row in everything] + [d.answer for d in bank]))
    used = model if encoder.needs_model else None
    image_rows = _encoded(images, lambda part: encoder.images(part, used), "image", progress)
    text_rows = _encoded(texts, lambda part: encoder.texts(part, used), "text", progress)
    image_at = {image: i for i, image in enumerate(images)}
    text_at = {text: i for i, text in enumerate(texts)}
    arrays = {
        "bank_image": image_rows[[image_at[d.image] for d in bank]],
        "bank_text": text_rows[[text_at[d.text] for d in bank]],
        "bank_answer": text_rows[[text_at[d.answer] for d in bank]],
    }
    for split, questions in splits.items():
        arrays[f"{split}_image"] = image_rows[[image_at[q.image] for q in questions]]
        arrays[f"{split}_text"] = text_rows[[text_at[q.text] for q in questions]]
    metadata = {}
    if encoder.hidden_states is not None:
        asked = {(row.image, row.text): row for row in everything}
        state_at = {key: i for i, key in enumerate(asked)}
        own = {"bank": [state_at[d.image, d.text] for d in bank]}
        own |= {split: [state_at[q.image, q.text] for q in questions] for split, questions in splits.items()}
        state_rows = _states(list(asked.values()), bank, encoder.hidden_states, model, progress, prompt, seed)
        state_rows = standardize(state_rows, own["bank"])
        arrays |= {f"{name}_state": state_rows[rows] for name, rows in own.items()}
        metadata = {"states": len(asked), "state_width": state_rows.shape[1]}
    buffer = BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_bytes(out / "features.npz", buffer.getvalue())
    return {
        "images": len(images),
        "texts": len(texts),
        "image_width": image_rows.shape[1],
        "text_width": text_rows.shape[1],
        **metadata,
    }


def _states(
    rows: Sequence[Demonstration | Question],
    bank: Sequence[Demonstration],
    shots: int,
    model: Model,
    progress: Progress,
    prompt: PromptSettings,
    seed: int,
) -> Floats:
    """(N, Ds) the VLM's state as it begins to answer each question after the same `shots` demonstrations, which show it
    what an answer looks like. One that shows the question's own image is passed over for the next of a seeded order."""
    order = [bank[i] for i in rng(seed, "demonstrations of states").permutation(len(bank))]

    def asks(row: Demonstration | Question) -> Prompt:
        shown = list(islice((d for d in order if d.image.id != row.image.id), shots))
        return build_prompt(shown, Question(row.id, row.text, row.image, ()), prompt)

    if not isinstance(model, SupportsHiddenStates):
        raise PluginError(
            f"model {type(model).__name__} does not show its hidden state.", "Leave encoder.hidden_states out."
        )
    return _encoded([asks(row) for row in rows], model.last_hidden_state, "state", progress)


def standardize(rows: Floats, bank: Sequence[int]) -> Floats:
    """Unit rows of what sets each state apart: in deviations from the mean of the demonstrations' (rows `bank`).

    A model's states share a few large directions, which make all of them alike (Ethayarajh, EMNLP 2019,
    arXiv:1909.00512).
    """
    mean, deviation = rows[bank].mean(0), rows[bank].std(0)
    centred = (rows - mean) / np.maximum(deviation, 1e-6)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6), dtype=np.float32)


def _encoded(rows: Sequence[T], encode_part: Callable[[Sequence[T]], Floats], what: str, progress: Progress) -> Floats:
    parts = []
    with progress.task(f"encode {what}s", len(rows)) as task:
        for start in range(0, len(rows), ENCODED_AT_ONCE):
            part = rows[start : start + ENCODED_AT_ONCE]
            found = encode_part(part)
            if found.shape[0] != len(part) or not np.isfinite(found).all():
                raise DataError(
                    f"the encoder gave {found.shape[0]} {what} rows for {len(part)}, or values that are not finite.",
                    "Check the encoder.",
                )
            parts.append(found)
            task.advance(len(part))
    return np.concatenate(parts).astype(np.float32, copy=False)


def pool(
    out: Path, dataset: Dataset, sampler: Sampler, encoded: EncodedData, seed: int, progress: Progress
) -> dict[str, Any]:
    """Draw each question's pool, once, for every later stage."""
    demonstrations = dataset.demonstrations()
    bank = Bank(demonstrations, encoded.bank)
    pools: dict[str, dict[str, list[str]]] = {}
    for split in SPLITS:
        features = encoded.questions[split]
        pools[split] = {}
        questions = dataset.questions(split)
        with progress.task(f"pools of {split} questions", len(questions)) as task:
            for row, question in enumerate(questions):
                state = None if features.state is None else features.state[row]
                query = Query(question, features.image[row], features.text[row], state)
                drawn = sampler.pool(query, bank, rng(seed, "pool", question.id))
                ids = [demonstrations[i].id for i in drawn]
                if len(set(ids)) != sampler.k or any(demonstrations[i].image.id == question.image.id for i in drawn):
                    raise DataError(
                        f"the pool of question {question.id} has repeats, its own image, or not {sampler.k} rows.",
                        "Mend the sampler.",
                    )
                pools[split][question.id] = ids
                task.advance()
    write_json(out / "pools.json", pools)
    return {"k": sampler.k, **{split: len(rows) for split, rows in pools.items()}}


def beams(
    out: Path, dataset: Dataset, pools: Pools, scorer: Scorer, settings: BeamSettings, count: int | None, seed: int
) -> dict[str, Any]:
    """InfoScore beam search for a seeded subset of the train questions."""
    train = list(dataset.questions("train"))
    if count is not None and count < len(train):
        chosen = sorted(rng(seed, "scored questions").permutation(len(train))[:count])
        train = [train[i] for i in chosen]
    found = beam_search(scorer, train, pools.of["train"], settings)
    write_jsonl(out / "beams.jsonl", (asdict(kept) for levels in found.values() for kept in levels[-1]))
    best = [levels[-1][0].score for levels in found.values()]
    return {
        "questions": len(found),
        "sequences": sum(len(v[-1]) for v in found.values()),
        "mean_best_score": float(np.mean(best)),
    }


def read_beams(folder: Path) -> dict[str, list[ScoredSequence]]:
    """question id -> kept sequences, best first."""
    rows: dict[str, list[ScoredSequence]] = {}
    for row in read_jsonl(folder / "beams.jsonl"):
        kept = ScoredSequence(row["question_id"], tuple(row["demonstrations"]), row["score"])
        rows.setdefault(kept.question_id, []).append(kept)
    return rows


def candidates(
    out: Path,
    school: TrainingContext,
    policy: Policy,
    beams_folder: Path,
    dataset: Dataset,
    scorer: Scorer,
    settings: CandidateSettings,
) -> dict[str, Any]:
    """Propose sequences with `policy` and measure them."""
    questions = {q.id: q for q in dataset.questions("train")}
    ids = list(read_beams(beams_folder))
    rows: list[tuple[Question, tuple[str, ...], str]] = []
    with school.progress.task("propose candidates", len(ids)) as task:
        for start in range(0, len(ids), 256):
            part = ids[start : start + 256]
            proposed = propose(policy, school.table.batch(part), part, settings, school.seed, scorer.prompt.order)
            for question_id, found in zip(part, proposed, strict=True):
                pool = school.table.pool_ids[question_id]
                rows += [(questions[question_id], tuple(pool[p] for p in at), source) for at, source in found]
            task.advance(len(part))
    groups = by_question(scorer.candidates(rows))
    write_groups(out / CANDIDATES, groups)
    return shape(groups)


def mine(
    out: Path,
    table: SelectorFeatures,
    candidates_folder: Path,
    dataset: Dataset,
    scorer: Scorer,
    settings: MiningSettings,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Measure more sequences for the questions with few positives; writes these and those of the stage before."""
    groups = read_groups(candidates_folder / CANDIDATES)
    questions = [q for q in dataset.questions("train") if q.id in groups]

    def similarity(question_id: str) -> np.ndarray:
        return np.asarray(table.similarity_of(question_id).sum(-1))

    mined = mining.mine(scorer, questions, groups, table.pool_ids, similarity, settings, seed, progress)
    union = by_question([c for group in groups.values() for c in group] + mined.candidates)
    write_groups(out / CANDIDATES, union)
    metadata = {"before": shape(groups), "after": shape(union), **mined.metadata}
    write_json(out / MINED, metadata)
    return metadata


def balance(out: Path, candidates_folder: Path, balancer: Balancer, seed: int) -> dict[str, Any]:
    """Let the balancer pick which candidates teach; returns and stores `balance_facts`, and each question's unmet.

    Raises DataError as `balanced`.
    """
    picked, metadata, shortfall = balanced(read_groups(candidates_folder / CANDIDATES), balancer, seed)
    write_groups(out / BALANCED, picked)
    write_json(out / "balance.json", metadata)
    write_json(out / "unmet.json", shortfall)
    return metadata


def balanced(groups: Groups, balancer: Balancer, seed: int) -> tuple[Groups, dict[str, Any], dict[str, str]]:
    """What the balancer picks, `balance_facts`, and question id -> what could not be met.

    Raises DataError when it drops every question, or picks what it was not given.
    """
    picked: dict[str, list[Candidate]] = {}
    shortfall: dict[str, str] = {}
    for q, group in groups.items():
        picked[q] = balancer.select(group, rng(seed, "balance", q))
        if Counter(picked[q]) - Counter(group):
            raise DataError(f"the balancer picked for question {q} what it was not given, or twice.", "Mend it.")
        why = balancer.shortfall(group, picked[q]) or ("" if picked[q] else "dropped")
        if why:
            shortfall[q] = why
    metadata = balance_facts(groups, picked, shortfall)
    if not metadata["after"]["questions"]:
        whys = "; ".join(f"{why}: {count}" for why, count in metadata["unmet"].items())
        raise DataError(
            f"the balancer dropped all {len(groups)} questions ({whys}).",
            "Loosen its settings, score more questions, or use keep_all.",
        )
    return picked, metadata, shortfall
