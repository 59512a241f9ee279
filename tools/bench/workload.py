"""The work that is timed: the InfoScore beam search of a question set, with an empty response cache."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from leverplus_core import (
    AnswerLogprob,
    BeamSettings,
    Catalog,
    Dataset,
    Decoding,
    Demonstration,
    Image,
    Model,
    PromptSettings,
    Question,
    beam_search,
    most_frequent,
    rng,
)
from leverplus_core.scoring.cache import CachedModel, ResponseCache
from leverplus_core.scoring.scorer import Scorer
from tools.bench.photos import drawn_photos

Order = Literal["append", "prepend"]
Rows = list[tuple[int, tuple[str, ...]]]
"""(number of the question, demonstration ids) of prompts."""
ONE_WORD = "Answer with one word."


@dataclass(frozen=True)
class Workload:
    """Questions with their pools, and how they are searched."""

    questions: Sequence[Question]
    demonstrations: Mapping[str, Demonstration]
    pools: Mapping[str, Sequence[str]]
    beams: BeamSettings
    system: str

    @property
    def image_count(self) -> int:
        """Images that the search shows."""
        shown = {i for ids in self.pools.values() for i in ids}
        return len({q.image.id for q in self.questions} | {self.demonstrations[i].image.id for i in shown})

    @property
    def prompt_count(self) -> int:
        """Prompts that the search asks."""
        return len(self.questions) * sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        """Prompts of the search with no demonstration, with one and so on, for each question."""
        pool = len(next(iter(self.pools.values())))
        starts = [1, *(min(self.beams.num_beams, pool) for _ in range(1, self.beams.shots))]
        return [1, *(start * (pool - shots) for shots, start in enumerate(starts))]

    def settings(self, order: Order) -> PromptSettings:
        return PromptSettings(system=self.system, order=order)

    def search(self, model: Model, order: Order) -> Rows:
        """Run the beam search; the prompts that were asked."""
        with self._scorer(model, order) as scorer:
            beam_search(scorer, self.questions, self.pools, self.beams)
            return scorer.asked

    def score(self, model: Model, order: Order, rows: Rows) -> list[AnswerLogprob]:
        """Score the given prompts alone."""
        with self._scorer(model, order) as scorer:
            return scorer.logprobs([(self.questions[i], ids) for i, ids in rows])

    def sample(self, count: int, seed: int) -> Rows:
        """`count` prompts of the search, each number of shots in its share; the demonstrations are drawn by `seed`."""
        sizes = self._sizes
        draw = rng(seed, "bench", "sample", count)
        rows: Rows = []
        for shots, size in enumerate(sizes):
            for n in range(round(count * size / sum(sizes))):
                question = n % len(self.questions)
                ids = self.pools[self.questions[question].id]
                rows.append((question, tuple(ids[i] for i in draw.choice(len(ids), size=shots, replace=False))))
        return list(dict.fromkeys(rows))

    def chains(self, count: int, shots: int, seed: int) -> Rows:
        """`count` times the prompts with 1 to `shots` demonstrations, each prompt with one more than the last."""
        draw = rng(seed, "bench", "chains", count)
        rows: Rows = []
        for n in range(count):
            ids = self.pools[self.questions[n % len(self.questions)].id]
            order = draw.choice(len(ids), size=shots, replace=False)
            rows += [(n % len(self.questions), tuple(ids[i] for i in order[:k])) for k in range(1, shots + 1)]
        return rows

    @contextmanager
    def _scorer(self, model: Model, order: Order) -> Iterator[_Recorded]:
        with tempfile.TemporaryDirectory(prefix="leverplus-bench-") as folder:
            cache = ResponseCache(Path(folder) / "responses.sqlite")
            try:
                cached = CachedModel(lambda: model, lambda: "bench", cache)
                numbers = {q.id: i for i, q in enumerate(self.questions)}
                yield _Recorded(cached, self.demonstrations, self.settings(order), Decoding(), numbers=numbers)
            finally:
                cache.close()


@dataclass(frozen=True)
class _Recorded(Scorer):
    """A scorer that remembers what it asked."""

    numbers: Mapping[str, int] = field(default_factory=dict)
    asked: Rows = field(default_factory=list)

    def logprobs(
        self, rows: Sequence[tuple[Question, tuple[str, ...]]], label: str = "log-probabilities"
    ) -> list[AnswerLogprob]:
        self.asked.extend((self.numbers[question.id], ids) for question, ids in rows)
        return super().logprobs(rows, label)


def demo_workload(questions: int, pool: int, beams: BeamSettings, seed: int) -> Workload:
    """Questions of the demo world, each with a pool drawn from 1,000 demonstrations."""
    return _drawn_pools(_dataset("demo_world", validation=questions), pool, beams, seed, ONE_WORD)


def okvqa_workload(questions: int, pool: int, beams: BeamSettings, seed: int, folder: Path) -> Workload:
    """Questions of the packaged OK-VQA slice; a drawn photo of 640 x 480 stands for each COCO photo."""
    dataset = _dataset("vqa_json", folder="okvqa-slice", validation_limit=questions)
    found = _drawn_pools(dataset, pool, beams, seed, PromptSettings().system)
    shown = {i for ids in found.pools.values() for i in ids}

    images = [q.image.id for q in found.questions] + [found.demonstrations[i].image.id for i in sorted(shown)]
    files = drawn_photos(folder / "photos-640x480", images, 640, 480)

    def photo(image: Image) -> Image:
        return Image(image.id, files[image.id])

    return Workload(
        [Question(q.id, q.text, photo(q.image), q.answers) for q in found.questions],
        {i: Demonstration(i, d.text, photo(d.image), d.answer) for i, d in found.demonstrations.items() if i in shown},
        found.pools,
        beams,
        found.system,
    )


def okvqa_texts() -> list[str]:
    """What the tokenizer of a random model is trained on."""
    dataset = _dataset("vqa_json", folder="okvqa-slice")
    prompt = PromptSettings()
    questions = [*dataset.questions("train"), *dataset.questions("validation")]
    lines = (prompt.question.replace("{question}", q.text) + most_frequent(q.answers) for q in questions)
    return [prompt.system, *lines]


def distinct_workload(questions: int, pool: int, beams: BeamSettings, folder: Path) -> Workload:
    """Questions with pools that share no image: (pool + 1) distinct drawn images of 56 x 56 per question."""
    asked = []
    shown: dict[str, Demonstration] = {}
    pools = {}
    names = [name for n in range(questions) for name in (f"q{n}", *(f"d{n}-{k}" for k in range(pool)))]
    files = drawn_photos(folder / "pictures-56x56", names, 56, 56)
    for n in range(questions):
        asked.append(Question(f"q{n}", "What shape is it?", Image(f"q{n}", files[f"q{n}"]), ("circle",)))
        pools[f"q{n}"] = [f"d{n}-{k}" for k in range(pool)]
        for k, name in enumerate(pools[f"q{n}"]):
            text, answer = (("What shape is it?", "star"), ("What colour is it?", "red"))[k % 2]
            shown[name] = Demonstration(name, text, Image(name, files[name]), answer)
    return Workload(asked, shown, pools, beams, ONE_WORD)


def _dataset(name: str, **settings: object) -> Dataset:
    dataset: Dataset = Catalog.load(disabled="").build("dataset", name, settings)
    return dataset


def _drawn_pools(dataset: Dataset, pool: int, beams: BeamSettings, seed: int, system: str) -> Workload:
    questions, demonstrations = dataset.questions("validation"), dataset.demonstrations()
    pools = {}
    for q in questions:
        others = [d.id for d in demonstrations if d.image.id != q.image.id]
        chosen = rng(seed, "bench", "pool", q.id).choice(len(others), size=pool, replace=False)
        pools[q.id] = [others[i] for i in chosen]
    return Workload(questions, {d.id: d for d in demonstrations}, pools, beams, system)
