"""The work that is timed: InfoScore beam search over a question set, through the measurement store."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from leverplus_core import metrics as vqa
from leverplus_core.io import storage_errors
from leverplus_core.plugins.contracts import Model
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.settings import BeamSettings, PromptSettings
from leverplus_core.records import AnswerLogprob, Decoding, Demonstration, Ids, Image, Question
from leverplus_core.scoring.beam_search import beam_search
from leverplus_core.scoring.cache import CachedModel, ResponseCache
from leverplus_core.scoring.scorer import Scorer
from leverplus_core.seeding import rng
from leverplus_models.bench.geometry import draw_photo

Order = Literal["append", "prepend"]
Rows = list[tuple[int, Ids]]
"""(number of the question, demonstration ids) of prompts."""


@dataclass(frozen=True)
class Stage:
    """Questions with their pools, and how they are searched."""

    questions: Sequence[Question]
    demonstrations: Mapping[str, Demonstration]
    pools: Mapping[str, Sequence[str]]
    beams: BeamSettings
    system: str

    def settings(self, order: Order) -> PromptSettings:
        return PromptSettings(system=self.system, order=order)

    def search(self, vlm: Model, order: Order) -> Rows:
        """The beam search with a store that holds nothing yet; the prompts that were asked."""
        with self._scorer(vlm, order) as scorer:
            beam_search(scorer, self.questions, self.pools, self.beams)
            return scorer.asked

    def ask(self, vlm: Model, order: Order, rows: Rows) -> list[AnswerLogprob]:
        """The given prompts alone, with a store that holds nothing yet."""
        with self._scorer(vlm, order) as scorer:
            return scorer.logprobs([(self.questions[i], ids) for i, ids in rows])

    def sample(self, count: int, seed: int) -> Rows:
        """`count` prompts of the search, each number of shots in its share; which ones a search extends is drawn."""
        sizes = [1] + [self._prompts(shots) for shots in range(1, self.beams.shots + 1)]
        total = sum(sizes)
        draw = rng(seed, "bench", "sample", count)
        rows: Rows = []
        for shots, size in enumerate(sizes):
            for n in range(round(count * size / total)):
                question = n % len(self.questions)
                pool = self.pools[self.questions[question].id]
                chosen = draw.choice(len(pool), size=shots, replace=False)
                rows.append((question, tuple(pool[i] for i in chosen)))
        return list(dict.fromkeys(rows))

    def _prompts(self, shots: int) -> int:
        """Prompts a question of one level of the search."""
        pool = len(next(iter(self.pools.values())))
        starts = 1 if shots == 1 else min(self.beams.num_beams, pool)
        return starts * (pool - shots + 1)

    @contextmanager
    def _scorer(self, vlm: Model, order: Order) -> Iterator[_Recorded]:
        with tempfile.TemporaryDirectory(prefix="leverplus-bench-") as folder:
            store = ResponseCache(Path(folder) / "responses.sqlite")
            try:
                asker = CachedModel(lambda: vlm, lambda: "bench", store)
                yield _Recorded(
                    asker, self.demonstrations, self.settings(order), Decoding(),
                    numbers={q.id: i for i, q in enumerate(self.questions)},
                )  # fmt: skip
            finally:
                store.close()


@dataclass(frozen=True)
class _Recorded(Scorer):
    """A scorer that remembers what it asked."""

    numbers: Mapping[str, int] = field(default_factory=dict)
    asked: Rows = field(default_factory=list)

    def logprobs(self, rows: Sequence[tuple[Question, Ids]], label: str = "log-probabilities") -> list[AnswerLogprob]:
        self.asked.extend((self.numbers[question.id], ids) for question, ids in rows)
        return super().logprobs(rows, label)


def answer_of(question: Question) -> str:
    """The answer whose probability is scored."""
    return vqa.most_frequent(question.answers)


def demo_stage(questions: int, pool: int, beams: BeamSettings, seed: int) -> Stage:
    """Questions of the demo world, each with a pool drawn from 1,000 demonstrations."""
    dataset = Catalog.load(disabled="").build("dataset", "demo_world", {"validation": questions})
    return _stage(dataset.questions("validation"), dataset.demonstrations(), pool, beams, seed, "Answer with one word.")


def okvqa_stage(questions: int, pool: int, beams: BeamSettings, seed: int, folder: Path) -> Stage:
    """Questions of the packaged OK-VQA slice; a drawn photo of 640 x 480 stands for each COCO photo."""
    catalog = Catalog.load(disabled="")
    dataset = catalog.build("dataset", "vqa_json", {"folder": "okvqa-slice", "validation_limit": questions})
    system = PromptSettings().system
    stage = _stage(dataset.questions("validation"), dataset.demonstrations(), pool, beams, seed, system)
    known = stage.demonstrations.items()
    shown = {i for ids in stage.pools.values() for i in ids}

    def pictured(image: Image) -> Image:
        return _drawn(folder / "photos-640x480", image.id, 640, 480)

    return Stage(
        [Question(q.id, q.text, pictured(q.image), q.answers) for q in stage.questions],
        {i: Demonstration(i, d.text, pictured(d.image), d.answer) for i, d in known if i in shown},
        stage.pools,
        beams,
        system,
    )


def okvqa_texts() -> list[str]:
    """What the tokenizer of a random model is trained on."""
    dataset = Catalog.load(disabled="").build("dataset", "vqa_json", {"folder": "okvqa-slice"})
    prompt = PromptSettings()
    asked = [*dataset.questions("train"), *dataset.questions("validation")]
    return [prompt.system, *(prompt.question.replace("{question}", q.text) + answer_of(q) for q in asked)]


def distinct_stage(questions: int, pool: int, beams: BeamSettings, folder: Path) -> Stage:
    """Questions with pools that share no picture: (pool + 1) distinct drawn pictures of 56 x 56 a question."""
    asked = []
    shown: dict[str, Demonstration] = {}
    pools = {}
    for n in range(questions):
        image = _drawn(folder / "pictures-56x56", f"q{n}", 56, 56)
        asked.append(Question(f"q{n}", "What shape is it?", image, ("circle",)))
        pools[f"q{n}"] = [f"d{n}-{k}" for k in range(pool)]
        for k, name in enumerate(pools[f"q{n}"]):
            text, answer = (("What shape is it?", "star"), ("What colour is it?", "red"))[k % 2]
            shown[name] = Demonstration(name, text, _drawn(folder / "pictures-56x56", name, 56, 56), answer)
    return Stage(asked, shown, pools, beams, "Answer with one word.")


def _stage(
    questions: Sequence[Question],
    demonstrations: Sequence[Demonstration],
    pool: int,
    beams: BeamSettings,
    seed: int,
    system: str,
) -> Stage:
    pools = {}
    for q in questions:
        others = [d.id for d in demonstrations if d.image.id != q.image.id]
        chosen = rng(seed, "bench", "pool", q.id).choice(len(others), size=pool, replace=False)
        pools[q.id] = [others[i] for i in chosen]
    return Stage(questions, {d.id: d for d in demonstrations}, pools, beams, system)


def _drawn(folder: Path, name: str, width: int, height: int) -> Image:
    """A drawn picture, kept in `folder`; no fsync, since it can be drawn again."""
    file = folder / f"{name.replace('/', '-')}.jpg"
    if not file.exists():
        with storage_errors(file):
            folder.mkdir(parents=True, exist_ok=True)
            scratch = file.with_name(f".{file.name}.{os.getpid()}")
            draw_photo(rng(0, "bench", "photo", name), width, height).save(scratch, format="JPEG", quality=90)
            scratch.replace(file)
    return Image(name, str(file))
