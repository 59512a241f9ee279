"""`leverplus bench`: how fast a user's own model scores and generates, and what one of its settings changes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from leverplus_core import AnswerLogprob, Catalog, Demonstration, Model, Prompt, Question, Recipe

T = TypeVar("T")


def bench(
    recipe: Annotated[str, typer.Argument(metavar="[RECIPE]", help="The recipe whose model is timed.")] = "demo",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a setting; repeatable.")
    ] = None,
    compare: Annotated[
        list[str] | None, typer.Option(metavar="A.B=C", help="Time the recipe with this override as well; repeatable.")
    ] = None,
    questions: Annotated[int, typer.Option(min=1, help="Questions searched.")] = 4,
    pool: Annotated[int, typer.Option(min=2, help="Demonstrations per question.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Timed runs of each variant, in turn; medians are shown.")] = 3,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:1; sets model.device. Default: the recipe's.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's own choice.")] = None,
    plugin: Annotated[
        list[Path] | None, typer.Option(metavar="FILE.py", help="Try a plugin file without packaging it.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time a recipe's model: prompts per second of the InfoScore search and of generation, on a few questions.

    `cpu_s` is CPU seconds per 1,000 prompts, on which other programs of the machine have less influence. Responses are
    not cached; images are encoded in a first run that is not timed. A GPU has finished a call when its
    results are there.
    """
    import torch

    from leverplus_core import Catalog, Recipe, output

    if threads:
        torch.set_num_threads(threads)
    catalog = Catalog.load(plugin or ())
    variants = []
    for extra in ([], *([override] for override in compare or [])):
        on = [f"model.device={device}"] if device else []
        loaded = Recipe.load(recipe, [*(overrides or []), *on, *extra])
        variants.append(_Variant.of(extra[0] if extra else recipe, loaded, catalog, questions, pool))
    for number in range(rounds + 1):
        for variant in variants if number % 2 == 0 else reversed(variants):
            variant.run(timed=number > 0)
    output.rows([row for variant in variants for row in variant.rows()], json)


@dataclass
class _Variant:
    """A model with the work it is timed on; what `beam_search` asks goes to the model under a stopwatch."""

    name: str
    recipe: Recipe
    model: Model
    questions: Sequence[Question]
    demonstrations: Mapping[str, Demonstration]
    pools: Mapping[str, Sequence[str]]
    runs: dict[str, list[tuple[int, float, float]]] = field(default_factory=lambda: {"search": [], "generation": []})
    """Per timed run: prompts, seconds, CPU seconds."""

    @classmethod
    def of(cls, name: str, recipe: Recipe, catalog: Catalog, count: int, pool: int) -> _Variant:
        from leverplus_core import DataError, rng

        dataset = catalog.build("dataset", recipe.dataset.name, recipe.dataset.settings)
        model = catalog.build("model", recipe.model.name, recipe.model.settings)
        shown, asked, pools = dataset.demonstrations(), dataset.questions("validation")[:count], {}
        for q in asked:
            others = [d.id for d in shown if d.id != q.id and d.image.id != q.image.id]
            if len(others) < pool:
                raise DataError(f"question {q.id} may be shown {len(others)} demonstrations.", "Set --pool lower.")
            chosen = rng(recipe.data_seed, "bench", q.id).choice(len(others), size=pool, replace=False)
            pools[q.id] = [others[i] for i in chosen]
        return cls(name, recipe, model, asked, {d.id: d for d in shown}, pools)

    def run(self, timed: bool) -> None:
        """A beam search with the recipe's settings, then the answers to at most four sequences of each level."""
        from leverplus_core import beam_search

        self._spent = {name: (0, 0.0, 0.0) for name in self.runs}
        kept = beam_search(self, self.questions, self.pools, self.recipe.scoring.beam_search)
        rows = [(q, k.demonstrations) for q in self.questions for level in kept[q.id] for k in level[:4]]
        prompts, decoding = self._prompts(rows), self.recipe.decoding.decoding()
        self._time("generation", len(prompts), lambda: self.model.generate(prompts, decoding))
        for name in self.runs if timed else ():
            self.runs[name].append(self._spent[name])

    def logprobs(self, rows: Sequence[tuple[Question, tuple[str, ...]]], label: str = "") -> list[AnswerLogprob]:
        """Log-probability of each question's most frequent answer, not cached."""
        from leverplus_core import most_frequent

        prompts, answers = self._prompts(rows), [most_frequent(q.answers) for q, _ in rows]
        return self._time("search", len(prompts), lambda: self.model.logprob(prompts, answers))

    def answers(
        self, rows: Sequence[tuple[Question, tuple[str, ...]]], label: str = ""
    ) -> list[tuple[str, str, float]]:
        raise NotImplementedError("a beam search asks for log-probabilities")

    def _prompts(self, rows: Sequence[tuple[Question, tuple[str, ...]]]) -> list[Prompt]:
        from leverplus_core import build_prompt

        return [build_prompt([self.demonstrations[i] for i in ids], q, self.recipe.prompt) for q, ids in rows]

    def _time(self, name: str, count: int, call: Callable[[], T]) -> T:
        began, cpu = time.perf_counter(), time.process_time()
        found = call()
        prompts, seconds, cpu_seconds = self._spent[name]
        seconds += time.perf_counter() - began
        self._spent[name] = (prompts + count, seconds, cpu_seconds + time.process_time() - cpu)
        return found

    def rows(self) -> list[dict[str, object]]:
        """One row for the search and one for generation."""
        return [
            {
                "variant": self.name,
                "device": getattr(self.model, "device_name", ""),
                "work": work,
                "prompts": runs[0][0],
                "prompts_per_s": runs[0][0] / statistics.median(seconds for _, seconds, _ in runs),
                "cpu_s": 1000 * statistics.median(cpu for _, _, cpu in runs) / runs[0][0],
            }
            for work, runs in self.runs.items()
        ]
