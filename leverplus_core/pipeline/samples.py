"""Logs of other harnesses: what several `SamplesImporter` read becomes the methods of one run, question by question.

A method is a model's answers to one task, or to several, whose questions are then told apart by the task. Of a sample
that was asked several times the score is the mean over its repeats, so that the question stays the unit of every
interval; the texts are those of its first repeat.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from leverplus_core.errors import DataError, did_you_mean
from leverplus_core.io import fingerprint
from leverplus_core.plugins.format_contracts import SamplesImporter
from leverplus_core.progress import Progress, Silent
from leverplus_core.records import Image, LoggedSample, Prediction, Question, SampleLog
from leverplus_core.registry.imported import ImportedMethod
from leverplus_core.text import shortened

MOST_SAMPLES = 1_000_000
"""Rows of all files of one call: they are held in memory."""
MOST_TEXT = 4_000
"""Characters of a text that are kept."""
LONGEST_ID, LONGEST_METHOD = 190, 64
"""What a column of the registry holds, and what a table shows."""


@dataclass(frozen=True)
class ImportedSamples:
    """The methods of one run: the `task` that they answered ('' where several), the `metric` of their scores, and the
    `harness` that logged them. `remarks` are what a reader must know."""

    task: str
    metric: str
    harness: str
    methods: tuple[ImportedMethod, ...]
    remarks: tuple[str, ...]


@dataclass
class _File:
    """What one file holds: (id, repeat) -> its rows."""

    path: Path
    log: SampleLog
    rows: dict[tuple[str, int], list[LoggedSample]] = field(default_factory=dict)

    def metrics(self) -> Counter[str]:
        """How many samples have a score by each metric."""
        return Counter(metric for rows in self.rows.values() for row in rows for metric in row.scores)


def recognize(importers: Mapping[str, SamplesImporter], path: Path) -> SamplesImporter:
    """The importer that recognizes the file. Raises DataError where none does, naming them."""
    if not path.is_file():
        raise DataError(f"{path} is no file.", "Give the log of each task and model, such as OUT/*/samples_*.jsonl.")
    if not path.stat().st_size:
        raise DataError(f"{path} is empty.", "Was its evaluation stopped? Give a log with samples.")
    for importer in importers.values():
        if importer.recognizes(path):
            return importer
    raise DataError(f"{path} is no log of {', '.join(importers)}.", "Give a file of single samples, not of results.")


def read_samples(
    sources: Sequence[tuple[SamplesImporter, Path]],
    *,
    metric: str | None = None,
    scale: float = 1.0,
    method: str | None = None,
    shots: int | None = None,
    progress: Progress | None = None,
) -> ImportedSamples:
    """Read the logs of one run: each with its importer.

    `metric` is whose scores are taken, where the logs have several; scores are divided by `scale`, the metric's best
    value. `method` names the only model of the logs, `shots` says how many examples its prompts had.

    Raises DataError for all that an importer refuses; a metric that is not there, or none where there are several;
    scores outside [0, 1]; a sample that comes twice, or has two documents; files of several harnesses; and names that
    no method can have.
    """
    left = MOST_SAMPLES
    files: list[_File] = []
    for importer, path in sources:
        files.append(_read(importer, path, left, progress or Silent()))
        left -= sum(map(len, files[-1].rows.values()))
    harnesses = sorted({file.log.harness for file in files})
    if len(harnesses) > 1:
        raise DataError(f"the files are logs of {' and '.join(harnesses)}.", "Import each harness's in a call.")
    chosen = _metric(files, metric)
    # A file whose name does not say its task is taken for one of the only other: the documents are checked anyway.
    tasks = sorted({file.log.task for file in files if file.log.task}) or [""]
    groups: dict[str, list[_File]] = {}
    for file in files:
        groups.setdefault(file.log.model or file.path.stem, []).append(file)
    if method is not None and len(groups) > 1:
        raise DataError(f"--method names one model, and the logs have {len(groups)}: {', '.join(groups)}.",
                        "Import each in a call.")  # fmt: skip
    names = [method] if method is not None else _names(list(groups))
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"two models of the logs would be called '{twice}'.",
                        "Import each in a call, and name it with --method.")  # fmt: skip
    documents: dict[str, tuple[str, Path]] = {}
    methods = [
        _method(_checked(name), group, chosen, scale, shots, len(tasks) > 1, documents)
        for name, group in zip(names, groups.values(), strict=True)
    ]
    remarks = [f"{file.path.name}: {remark}" for file in files for remark in file.log.remarks]
    remarks += [f"{m.method}: {m.left_out} without a score by {chosen} are left out" for m in methods if m.left_out]
    repeats = {m.method: m.repeats for m in methods if m.repeats > 1}
    remarks += [f"{name}: scores are means over {n} repeats, texts are of the first" for name, n in repeats.items()]
    return ImportedSamples(tasks[0] if len(tasks) == 1 else "", chosen, harnesses[0], tuple(methods), tuple(remarks))


def _read(importer: SamplesImporter, path: Path, most: int, progress: Progress) -> _File:
    file = _File(path, importer.read(path, progress))
    for count, row in enumerate(file.log.samples):
        if count >= most:
            raise DataError(f"{path} has over {most:,} rows.", f"One call reads up to {MOST_SAMPLES:,}.")
        rows = file.rows.setdefault((row.id, row.repeat), [])
        twice = next((metric for metric in row.scores if any(metric in other.scores for other in rows)), None)
        if twice is not None or (rows and not row.scores):
            raise DataError(f"{path}: sample {row.id} comes twice.", "A log has one answer for each sample and repeat.")
        rows.append(row)
    if not file.rows:
        raise DataError(f"{path} holds no sample.", "Log samples: --log_samples in lm-eval and lmms-eval.")
    return file


def _metric(files: Sequence[_File], wanted: str | None) -> str:
    """The full name of the metric to take; a filter behind a comma need not be given where there is one only."""
    found = [file.metrics() for file in files]
    shared = [name for name in found[0] if all(name in other for other in found[1:])]
    listed = ", ".join(f"'{name}' ({_counted(files, name)})" for name in shared)
    if not shared:
        raise DataError("the logs have no metric with a number for each sample in common.",
                        f"{files[0].path.name} has {', '.join(found[0]) or 'none'}.")  # fmt: skip
    fitting = [name for name in shared if wanted in (None, name)]
    fitting = fitting or [name for name in shared if name.partition(",")[0] == wanted]
    if not fitting:
        raise DataError(
            f"the logs have no metric '{wanted}'.", f"{did_you_mean(str(wanted), shared)} They have {listed}."
        )
    if len(fitting) > 1:
        raise DataError(f"the logs have {len(fitting)} metrics.", f"Choose one with --metric: {listed}.")
    return fitting[0]


def _counted(files: Sequence[_File], metric: str) -> str:
    scores = [row.scores[metric] for f in files for rows in f.rows.values() for row in rows if metric in row.scores]
    return f"{len(scores):,} scores, mean {fmean(scores):.4g}"


def _names(models: Sequence[str]) -> list[str]:
    """A short name for each model: the end of its path, or all of it where two end alike."""
    ends = [model.rstrip("/").rpartition("/")[2] for model in models]
    chosen = ends if len(set(ends)) == len(ends) else models
    return [shortened(name.replace(":", "-"), LONGEST_METHOD - 30) if len(name) > LONGEST_METHOD
            else name.replace(":", "-") for name in chosen]  # fmt: skip


def _checked(name: str) -> str:
    if not name.strip() or ":" in name or len(name) > LONGEST_METHOD:
        limit = f"A method's name is not empty, and has no ':' and at most {LONGEST_METHOD} characters."
        raise DataError(f"'{name}' cannot name a method.", f"{limit} Give one with --method.")
    return name


def _method(
    name: str,
    files: Sequence[_File],
    metric: str,
    scale: float,
    shots: int | None,
    several: bool,
    documents: dict[str, tuple[str, Path]],
) -> ImportedMethod:
    """One model's answers, in one order whatever the order of its log. Adds to `documents`, by id."""
    known = sorted({file.log.shots for file in files if file.log.shots is not None})
    if shots is None and len(known) > 1:
        raise DataError(f"{name} was asked with {' and '.join(map(str, known))} examples.", "Say which with --shots.")
    at = shots if shots is not None else (known or [0])[0]
    asked: dict[str, list[LoggedSample]] = {}
    given_by: dict[str, Path] = {}
    left_out: set[str] = set()
    for file in files:
        for rows in file.rows.values():
            row = next((row for row in rows if metric in row.scores), rows[0])
            key = short_id(f"{file.log.task}/{row.id}" if several else row.id)
            if given_by.setdefault(key, file.path) != file.path:
                raise DataError(f"sample {key} of {name} is in {given_by[key].name} and in {file.path.name}.",
                                "Import the logs of one task in a call each, and name each with --method.")  # fmt: skip
            digest, other = documents.setdefault(key, (row.digest, file.path))
            if digest != row.digest:
                raise DataError(
                    f"sample {key} has other documents in {other.name} and in {file.path.name}.",
                    "Only answers to the same questions can be compared: log both on one version of the task.",
                )
            if metric in row.scores:
                asked.setdefault(key, []).append(row)
            else:
                left_out.add(key)
    if not asked:
        raise DataError(f"no sample of {name} has a score by {metric}.", "Choose another with --metric.")
    predictions, questions = [], []
    for key in sorted(asked, key=_in_order):
        rows = asked[key]
        first = min(rows, key=lambda row: row.repeat)
        accuracy = fmean(_share(given_by[key], key, metric, row.scores[metric], scale) for row in rows)
        raw, cut, text = (shortened(one, MOST_TEXT) for one in (first.raw_text, first.prediction, first.text))
        predictions.append(Prediction(name, at, key, key, (), raw, cut, accuracy))
        answers = tuple(shortened(answer, MOST_TEXT) for answer in first.answers)
        questions.append(Question(key, text, Image(key), answers))
    return ImportedMethod(
        method=name,
        model=files[0].log.model,
        shots=at,
        files=tuple(file.path.name for file in files),
        harness=" ".join(filter(None, (files[0].log.harness, files[0].log.version))),
        predictions=tuple(predictions),
        questions=tuple(questions),
        digests={key: documents[key][0] for key in asked},
        repeats=max(map(len, asked.values())),
        left_out=len(left_out - set(asked)),
    )


def _share(path: Path, key: str, metric: str, score: float, scale: float) -> float:
    share = score / scale
    if not math.isfinite(share) or not 0 <= share <= 1:
        raise DataError(
            f"{path.name}: {metric} of sample {key} is {score:g}, outside [0, {scale:g}].",
            "Scores become shares of 1: give a metric's best value with --scale, such as 100 for percent.",
        )
    return share


def short_id(text: str) -> str:
    """The id, or of one that no column holds its beginning and its hash."""
    return text if len(text) <= LONGEST_ID else f"{text[: LONGEST_ID - 20]}...{fingerprint(text)}"


def _in_order(key: str) -> list[tuple[int, str] | str]:
    """Numbers by their size: sample 9 comes before sample 10."""
    parts = re.split(r"([0-9]+)", key)
    return [(int(part[:40]), part) if part.isdigit() and part.isascii() else part for part in parts]
