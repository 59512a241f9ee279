"""Imported data as training reads it: candidates, pools, beams and features that take the place of stages."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from leverplus_core.candidates.merge import merge
from leverplus_core.candidates.store import CANDIDATES, iter_groups
from leverplus_core.errors import DataError
from leverplus_core.io import fingerprint, iter_jsonl
from leverplus_core.pipeline.import_folder import MANIFEST, POOLS, SEQUENCES, Manifest, hash_of
from leverplus_core.pipeline.importing import import_data
from leverplus_core.plugins.format_contracts import DataImporter, ImportReport
from leverplus_core.plugins.manager import Catalog
from leverplus_core.progress import Progress
from leverplus_core.records import Question, QuestionData
from leverplus_core.selector.feature_set import FEATURES

FILES = {"candidates": CANDIDATES, "pools": POOLS, "sequences": SEQUENCES, "features": FEATURES}
"""Content, as stages name what they provide -> its file in the folder."""


@dataclass(frozen=True)
class ImportedFolder:
    """A folder that `leverplus import` made, whole and unchanged. The files are in the formats that stages write."""

    root: Path
    manifest: Manifest

    @classmethod
    def load(cls, root: Path) -> ImportedFolder:
        """Raises DataError when there is none, or a file of it is cut, edited or missing."""
        return cls(root, Manifest.read(root))

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the content that training reads: equal wherever and whenever the same file is imported."""
        return fingerprint({name: self.manifest.files[FILES[name]] for name in FILES if self.has(name)})

    def has(self, content: str) -> bool:
        """Whether the folder holds this content."""
        return FILES[content] in self.manifest.files

    def question_ids(self, content: str) -> set[str] | None:
        """The questions that the imported sequences or candidates are about; None where the folder has none."""
        if not self.has(content):
            return None
        return {str(row["question_id"]) for _, row in iter_jsonl(self.path(content))}

    def path(self, content: str) -> Path:
        """The file of this content. Raises DataError when the folder has none."""
        if not self.has(content):
            there = ", ".join(name for name in FILES if self.has(name))
            raise DataError(f"{self.root} has no {content}, only {there}.", "Import a file that has them into it.")
        return self.root / FILES[content]


def ensure_imported(
    source: Path,
    work: Path,
    catalog: Catalog,
    *,
    correct_threshold: float = 0.5,
    progress: Progress | None = None,
) -> ImportedFolder:
    """The imported folder `source`, or what the file `source` becomes below `work`/imported, once.

    A file is read by the importer of `catalog` that recognizes it, or is a candidates file (.jsonl) of leverplus.
    Raises DataError as `ImportedFolder.load` and `import_data`, and for a file that none or several recognize.
    """
    if os.path.isdir(source):
        return ImportedFolder.load(source)
    content = hash_of(source)
    kind, importer, code = _importer_of(source, catalog, correct_threshold)
    settings = importer.model_dump(mode="json")
    mixed_shots = kind == "candidates"  # stages of leverplus measure several lengths
    root = work / "imported" / fingerprint([content, kind, code, settings, mixed_shots])
    if not os.path.isfile(root / MANIFEST):
        try:
            import_data(importer, kind, source, root, mixed_shots=mixed_shots, progress=progress)
        except DataError:
            if not os.path.isfile(root / MANIFEST):  # else another run has just made it
                raise
    return ImportedFolder.load(root)


def _importer_of(source: Path, catalog: Catalog, correct_threshold: float) -> tuple[str, DataImporter, str]:
    """The importer of a file with its name and code."""
    if source.suffix == ".jsonl":
        return "candidates", _CandidatesImporter(), ""
    found: list[tuple[str, DataImporter]] = []
    known = []
    for name in catalog.names("importer"):
        part = catalog.part_class("importer", name)
        if issubclass(part, DataImporter):
            known.append(name)
            threshold = {"correct_threshold": correct_threshold} if "correct_threshold" in part.model_fields else {}
            importer = part.model_validate(threshold)
            if importer.recognizes(source):
                found.append((name, importer))
    if len(found) != 1:
        names = " and ".join(name for name, _ in found)
        what = f"is recognized by {names}" if found else f"is recognized by no importer ({', '.join(known)})"
        raise DataError(
            f"{source} {what}.", "Import it with `leverplus import NAME FILE -o FOLDER` and name the folder."
        )
    ((name, importer),) = found
    return name, importer, catalog.identity("importer", name)["code"]


class _CandidatesImporter(DataImporter):
    """A candidates file of leverplus alone: the recipe has the dataset and the pools."""

    def recognizes(self, source: Path) -> bool:
        return source.suffix == ".jsonl"

    def read(
        self, source: Path, report: ImportReport, questions: Sequence[Question] | None, progress: Progress
    ) -> Iterator[QuestionData]:
        for question_id, (group,) in iter_groups([source]):
            for shown in (candidate.demonstrations for candidate in group):
                if question_id in shown or len(set(shown)) < len(shown):
                    what = "the question itself" if question_id in shown else "a demonstration twice"
                    raise DataError(
                        f"{source}: question {question_id}: {', '.join(shown)} shows {what}.",
                        f"Leave it out; `leverplus candidates inspect {source}` counts such sequences.",
                    )
            yield QuestionData(question_id, candidates=tuple(merge([(str(source), group)])))
