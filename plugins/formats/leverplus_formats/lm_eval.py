"""Logs of lm-eval and of lmms-eval, which began as a copy of it: a line for each document and filter (`--log_samples`).

lm-eval 0.4 writes `samples_TASK_TIME.jsonl` and, beside it, `results_TIME.json`, where the model, the versions and the
number of examples stand; lmms-eval `TIME_samples_TASK.jsonl` and `TIME_results.json`. Without that file, they are not
known. Each line has the document's position in its split, `doc_id`, by which two logs of one task are paired.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from leverplus_core import (
    DataError,
    LoggedSample,
    Progress,
    SampleLog,
    SamplesImporter,
    Unreadable,
    fingerprint,
    iter_jsonl,
    parse_json,
)
from leverplus_formats.json_file import text_of

HEAD = 1 << 22
"""Bytes in which a first line must end for a file to be recognized."""
LARGEST_RESULTS = 1 << 26
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
"""Of a picture, where a document is written as text: another one each time."""
_KEY = re.compile(r'"(\w+)"\s*:')
_NO_DOCUMENT = "74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b"
"""sha256 of `null`: the hash that lmms-eval 0.7 writes for every document, as it hands none on."""


class _Importer(SamplesImporter):
    """What both have: lines of JSON, and a file of results beside them."""

    harness: ClassVar[str]
    file_name: ClassVar[re.Pattern[str]]
    """Of a file of samples, with the groups `task` and `time`."""
    results_name: ClassVar[str]
    version_key: ClassVar[str]
    own_keys: ClassVar[frozenset[str]]
    """Keys of a line that are no metric."""

    required: ClassVar[frozenset[str]]
    """Keys of every line."""
    foreign: ClassVar[str] = ""
    """A key that a line of this harness does not have, and one of the other has."""

    @classmethod
    def is_row(cls, row: Container[str]) -> bool:
        """Whether a line with these keys is one of this harness."""
        return all(key in row for key in cls.required) and cls.foreign not in row

    @abstractmethod
    def sample(self, row: Mapping[str, Any], scores: Mapping[str, float]) -> LoggedSample:
        """The sample of a line."""

    def recognizes(self, source: Path) -> bool:
        """By the keys of its first line; of one that is no JSON, which `read` says, by what stands in it."""
        line = b""
        try:
            with source.open("rb") as f:
                line = f.readline(HEAD)
            row = parse_json(line, lenient=True)
        except OSError:
            return False
        except ValueError:
            return line.startswith(b"{") and self.is_row(set(_KEY.findall(line.decode("utf-8", "replace"))))
        return isinstance(row, dict) and self.is_row(row)

    def read(self, source: Path, progress: Progress) -> SampleLog:
        """The log in `source`. Raises DataError that names the line of what is no sample of this harness."""
        named = self.file_name.fullmatch(source.name)
        task = named["task"] if named else ""
        results = _results(source.with_name(self.results_name.format(named["time"]))) if named else {}
        lower = {name for name, better in _table(results, "higher_is_better", task).items() if better is False}
        remarks = [f"{name} is left out: lower is better" for name in sorted(lower)]
        if not results:
            remarks.append("no results file beside it, so the model and its version are not known")
        shots = _at(results, "n-shot", task)
        return SampleLog(
            harness=self.harness,
            version=_versions(results.get(self.version_key), task, _at(results, "versions", task)),
            task=task,
            model=_word(results.get("model_name")) or _word(_table(results, "config", "").get("model")),
            shots=shots if isinstance(shots, int) and not isinstance(shots, bool) and 0 <= shots < 10_000 else None,
            samples=self._samples(source, lower, progress),
            remarks=tuple(remarks),
        )

    def _samples(self, source: Path, lower: set[str], progress: Progress) -> Iterator[LoggedSample]:
        with progress.task(f"read {source.name} (rows)", 0) as task:
            for number, row in iter_jsonl(source, lenient=True):
                if not self.is_row(row):
                    raise DataError(f"{source}:{number} is no sample of {self.harness}.", "The file was edited.")
                yield self.sample(row, self._scores(row, lower))
                task.advance()

    def _scores(self, row: Mapping[str, Any], lower: set[str]) -> dict[str, float]:
        """The numbers of a line by metric, with the name of a filter that is not the default behind a comma."""
        listed = row.get("metrics")
        names = listed if isinstance(listed, list) else [key for key in row if key not in self.own_keys]
        suffix = f",{f}" if isinstance(f := row.get("filter"), str) and f not in ("", "none") else ""
        found: dict[str, float] = {}
        for name in names:
            value = row.get(name) if isinstance(name, str) and name not in lower else None
            if isinstance(value, dict):
                value = value.get("score")  # lmms-eval, of metrics that are computed over groups
            if isinstance(value, bool | int | float) and abs(value) < 1e300:
                found[f"{name}{suffix}"] = float(value)
        return found


class LmEvalImporter(_Importer):
    """Samples of lm-eval (samples_*.jsonl), as predictions of the registry."""

    harness = "lm-eval"
    file_name = re.compile(r"samples_(?P<task>.+)_(?P<time>\d{4}-\d\d-\d\dT[\d.-]+)\.jsonl")
    results_name = "results_{}.json"
    version_key = "lm_eval_version"
    own_keys = frozenset({
        "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash",
        "prompt_hash", "target_hash",
    })  # fmt: skip

    required = frozenset({"doc_id", "doc", "arguments", "filtered_resps", "target"})

    def sample(self, row: Mapping[str, Any], scores: Mapping[str, float]) -> LoggedSample:
        """The sample of a line: of a multiple choice, the text of what the model holds most probable."""
        doc, target = row["doc"], text_of(row["target"])
        calls = list(row["arguments"].values()) if isinstance(row["arguments"], dict) else []
        choices = [text_of(call.get("arg_1")) for call in calls if isinstance(call, dict)]
        raw, cut, answers = _first(row.get("resps")), _first(row["filtered_resps"]), (target,)
        if (best := _most_probable(row["filtered_resps"])) is not None and best < len(choices):
            raw = cut = choices[best].strip()
            if target.isdecimal() and int(target[:9]) < len(choices):
                answers = (choices[int(target[:9])].strip(),)
        question = doc.get("question") if isinstance(doc, dict) else None
        prompt = calls[0].get("arg_0") if calls and isinstance(calls[0], dict) else ""
        return LoggedSample(
            id=text_of(row["doc_id"]), scores=scores, text=question if isinstance(question, str) else text_of(prompt),
            answers=answers, raw_text=raw, prediction=cut, digest=_digest(row),
        )  # fmt: skip


class LmmsEvalImporter(_Importer):
    """Samples of lmms-eval (*_samples_*.jsonl), as predictions of the registry."""

    harness = "lmms-eval"
    file_name = re.compile(r"(?P<time>\d{8}_\d{6})_samples_(?P<task>.+)\.jsonl")
    results_name = "{}_results.json"
    version_key = "lmms_eval_version"
    own_keys = frozenset({
        "doc_id", "target", "input", "input_media", "resps", "filtered_resps", "token_counts", "doc_hash", "doc",
        "arguments", "submission",
    })  # fmt: skip

    required = frozenset({"doc_id", "filtered_resps", "target", "doc_hash", "input"})
    foreign = "arguments"

    def sample(self, row: Mapping[str, Any], scores: Mapping[str, float]) -> LoggedSample:
        """The sample of a line, whose document is identified by its true answer alone where no hash of it is logged."""
        target, known = text_of(row["target"]), row["doc_hash"] not in (_NO_DOCUMENT, None)
        cut = _first(row["filtered_resps"])
        return LoggedSample(
            id=text_of(row["doc_id"]), scores=scores, text=text_of(row["input"]), answers=(target,),
            raw_text=_first(row["resps"]) if "resps" in row else cut, prediction=cut,
            digest=fingerprint([target, text_of(row["doc_hash"]) if known else ""]),
        )  # fmt: skip


def _digest(row: Mapping[str, Any]) -> str:
    """The hash that lm-eval logs; of a document with a picture, one that does not depend on the memory it was in."""
    logged = row.get("doc_hash")
    text = str(row["doc"])
    if isinstance(logged, str) and logged and not _ADDRESS.search(text):
        return logged[:64]
    return fingerprint([_ADDRESS.sub("", text), text_of(row["target"])])


def _results(path: Path) -> dict[str, Any]:
    """What the harness wrote about the whole evaluation; empty where there is no such file."""
    try:
        if path.stat().st_size > LARGEST_RESULTS:
            raise DataError(f"{path} has over {LARGEST_RESULTS >> 20} MB.", "It is no file of results: move it away.")
        value = parse_json(path.read_bytes(), lenient=True)
    except FileNotFoundError:
        return {}
    except (OSError, Unreadable) as e:
        raise DataError(f"{path} cannot be read: {e}.", "Correct it, or move it away.") from e
    return value if isinstance(value, dict) else {}


def _at(results: Mapping[str, Any], key: str, task: str) -> Any:
    found = results.get(key)
    return found.get(task) if isinstance(found, dict) else None


def _table(results: Mapping[str, Any], key: str, task: str) -> dict[str, Any]:
    found = _at(results, key, task) if task else results.get(key)
    return found if isinstance(found, dict) else {}


def _versions(harness: object, task: str, version: object) -> str:
    """`0.4.13, gsm8k 3.0`: of the harness (lmms-eval's is a branch and a commit) and of the task."""
    of_task = f"{task} {version}" if isinstance(version, str | int | float) else ""
    return ", ".join(filter(None, (_word(harness), of_task)))


def _word(value: object) -> str:
    return value.strip()[:200] if isinstance(value, str) and value != "unknown@unknown" else ""


def _first(value: object) -> str:
    """The first text of responses, however deep they are nested."""
    while isinstance(value, list) and value:
        value = value[0]
    return "" if isinstance(value, list) else text_of(value)


def _most_probable(responses: object) -> int | None:
    """The position of the choice with the largest log-probability; None where these are no choices."""
    if not isinstance(responses, list) or not all(isinstance(r, list) and len(r) == 2 for r in responses):
        return None
    try:
        values = [float(text_of(r[0])) for r in responses]
    except ValueError:
        return None
    return values.index(max(values)) if values else None
