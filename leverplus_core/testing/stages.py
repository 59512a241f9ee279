"""The check of stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from leverplus_core.candidates.store import BALANCED, CANDIDATES, by_question, write_groups
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.stage import Stage
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.records import Demonstration, Prediction, Question
from leverplus_core.testing.parts import check_part, returns
from leverplus_core.testing.records import tiny_groups

FILES = {"groups": BALANCED, "candidates": CANDIDATES}
"""Contents that the check makes, and the file of each."""


class _Unheard:
    """A `StageReport` that keeps nothing."""

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        del epoch, metrics

    def validation_questions(self, ids: Iterable[str]) -> None:
        del ids

    def questions(self, questions: Sequence[Question], demonstrations: Iterable[Demonstration]) -> None:
        del questions, demonstrations

    def evaluation(self, split: str, questions: Sequence[Question], methods: Sequence[str]) -> None:
        del split, questions, methods

    def predictions(
        self, method: str, shots: int, predictions: Sequence[tuple[int, Prediction]], sizes: Sequence[int]
    ) -> None:
        del method, shots, predictions, sizes


def check_stage(part: Stage, inputs: Mapping[str, Path] | None = None) -> None:
    """What it reads and depends on can be named; run twice on the same, it writes the same files.

    `inputs` holds a folder for each content that the stage reads; by default `groups` and `candidates` are made of
    `tiny_groups`. A stage that reads another content is not run without `inputs`.
    """
    check_part(part)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        context = RunContext(Recipe.load("demo"), Catalog.load(disabled=""), folder / "work")
        reads = part.reads(context)
        returns("stage", part, "enabled", part.enabled(context))
        returns("stage", part, "reads", reads)
        returns("stage", part, "depends", part.depends(context))
        given = dict(inputs) if inputs is not None else _made(folder / "inputs")
        if not set(reads) <= set(given):
            return
        results = []
        for name in ("first", "second"):
            out = folder / name
            out.mkdir()
            metadata = part.run(context, {content: given[content] for content in reads}, out, _Unheard())
            returns("stage", part, "run", metadata)
            files = {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.is_file()}
            results.append((metadata, files))
        assert results[0] == results[1], "a stage that is run again must give the same files and metadata"


def _made(folder: Path) -> dict[str, Path]:
    """A folder for each content of FILES."""
    made = {}
    for content, file in FILES.items():
        made[content] = folder / content
        made[content].mkdir(parents=True)
        write_groups(made[content] / file, by_question(tiny_groups()[2]))
    return made
