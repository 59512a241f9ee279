"""Logs of inspect: .eval, a zip file with a member for each sample and epoch, and .json, one object (format 2).

Both have a header with the task, the model and the version. A scorer gives a value: a number, true or false, a letter
(C correct, P partial, I incorrect, N no answer: 1, 0.5, 0 and 0, as inspect's own metrics read them), or several by
name, which become metrics `scorer/name`. NaN, which stands for a sample that could not be scored, is no score.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from leverplus_core import (
    DataError,
    LoggedSample,
    Progress,
    SampleLog,
    SamplesImporter,
    Unreadable,
    fingerprint,
    parse_json,
)
from leverplus_formats.json_file import entries, text_of
from leverplus_formats.log_zip import LogZip

HEAD = 1 << 16
HEADER, START, SAMPLES = "header.json", "_journal/start.json", "samples/"
_LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
_WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
_NUMBER = re.compile(r"[-+]?\d{1,20}(\.\d{1,20})?")
_ATTACHED = "attachment://"
_FORMAT = 2


class InspectImporter(SamplesImporter):
    """Samples of inspect (.eval or .json), as predictions of the registry."""

    def recognizes(self, source: Path) -> bool:
        """A zip file with the header or the beginning of a log; a JSON object that begins with a log's keys.

        A damaged zip file is one by its name, so that `read` says what is wrong with it.
        """
        try:
            with source.open("rb") as f:
                head = f.read(HEAD)
        except OSError:
            return False
        if head.startswith(b"PK"):
            try:
                with LogZip(source) as log:
                    return HEADER in log.members or START in log.members
            except DataError:
                return source.suffix == ".eval"
        start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
        return start.startswith(b"{") and all(f'"{key}"'.encode() in head for key in ("version", "status", "eval"))

    def read(self, source: Path, progress: Progress) -> SampleLog:
        """The log in `source`. Raises DataError for one that is cut, out of bounds, no log, or of another format."""
        is_zip = source.suffix == ".eval" or _begins_as_zip(source)
        header, samples = _of_zip(source, progress) if is_zip else _of_json(source, progress)
        if not isinstance(about := header.get("eval"), dict):
            raise DataError(f"{source} has no header of a log of inspect.", "Give a .eval or .json file that it wrote.")
        if header.get("version") != _FORMAT:
            raise DataError(f"{source} has the format {header.get('version')} of inspect, not {_FORMAT}.",
                            "Convert it with `inspect log convert`.")  # fmt: skip
        packages = about.get("packages")
        status = header.get("status", "started")
        remarks = () if status == "success" else (f"its evaluation did not end: {status}",)
        return SampleLog(
            harness="inspect",
            version=text_of(packages.get("inspect_ai")) if isinstance(packages, dict) else "",
            task=text_of(about.get("task")),
            model=text_of(about.get("model")),
            shots=None,
            samples=(_sample(source, row) for row in samples),
            remarks=remarks,
        )


def _begins_as_zip(source: Path) -> bool:
    try:
        with source.open("rb") as f:
            return f.read(2) == b"PK"
    except OSError as e:
        raise DataError(f"{source} cannot be read: {e.strerror or e}.", "Check the path.") from e


def _of_zip(source: Path, progress: Progress) -> tuple[dict[str, Any], Iterator[Any]]:
    with LogZip(source) as log:
        name = HEADER if HEADER in log.members else START
        header = _parsed(source, name, log.read(name)) if name in log.members else {}
        names = [n for n in log.members if n.startswith(SAMPLES) and n.endswith(".json")]

    def samples() -> Iterator[Any]:
        with LogZip(source) as log, progress.task(f"read {source.name} (samples)", len(names)) as task:
            for name in names:
                yield _parsed(source, name, log.read(name))
                task.advance()

    return header, samples()


def _of_json(source: Path, progress: Progress) -> tuple[dict[str, Any], Iterator[Any]]:
    header: dict[str, Any] = {}
    rest = entries(source, progress, inside="samples", lenient=True)
    first: list[Any] = []
    for key, value in rest:
        if key == "samples":
            first.append(value)
            break
        header[key] = value

    return header, chain(first, (value for key, value in rest if key == "samples"))


def _parsed(source: Path, name: str, data: bytes) -> Any:
    try:
        value = parse_json(data, lenient=True)
    except Unreadable as e:
        raise DataError(f"{source}: {name} is not JSON: {e}.", "The file was edited.") from e
    if not isinstance(value, dict):
        raise DataError(f"{source}: {name} is not an object.", "The file was edited.")
    return value


def _sample(source: Path, row: Any) -> LoggedSample:
    if not isinstance(row, dict) or not isinstance(row.get("id"), str | int) or "input" not in row:
        raise DataError(f"{source} has a sample without an id or an input.", "The file was edited.")
    epoch = row.get("epoch", 1)
    if not isinstance(epoch, int) or not 0 < epoch < 1_000_000:
        raise DataError(f"{source}: sample {row['id']} has no epoch.", "The file was edited.")
    attached = row["attachments"] if isinstance(row.get("attachments"), dict) else {}
    scored = row["scores"] if isinstance(row.get("scores"), dict) and row.get("invalidation") is None else {}
    said = next(
        (s["answer"] for s in scored.values() if isinstance(s, dict) and isinstance(s.get("answer"), str)), None
    )
    asked = _parts(row["input"], attached)
    target = row["target"] if isinstance(row.get("target"), list) else [row.get("target")]
    output = row["output"] if isinstance(row.get("output"), dict) else {}
    written = _resolved(text_of(output.get("completion")), attached)
    return LoggedSample(
        id=str(row["id"]),
        scores={name: value for scorer, score in scored.items() for name, value in _values(scorer, score)},
        text="\n".join(part for part in asked if not part.startswith("data:")),
        answers=tuple(map(text_of, target)),
        raw_text=written,
        prediction=_resolved(said, attached) if said is not None else written,
        digest=fingerprint([asked, [text_of(t) for t in target], row.get("choices")]),
        repeat=epoch,
    )


def _values(scorer: str, score: Any) -> Iterator[tuple[str, float]]:
    value = score.get("value") if isinstance(score, dict) else None
    named = (
        [(f"{scorer}/{key}", one) for key, one in value.items()] if isinstance(value, Mapping) else [(scorer, value)]
    )
    for name, one in named:
        if (number := _number(one)) is not None:
            yield name, number


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        known = _LETTERS.get(value, _WORDS.get(value.lower()))
        return float(value) if known is None and _NUMBER.fullmatch(value) else known
    return float(value) if isinstance(value, bool | int | float) and abs(value) < 1e300 else None


def _parts(given: Any, attached: Mapping[str, Any]) -> list[str]:
    """What the model was asked: the texts and the pictures of all messages, without their ids."""
    if not isinstance(given, list):
        return [_resolved(text_of(given), attached)]
    found: list[str] = []
    for message in given:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else [{"text": content}]:
            if isinstance(part, dict):
                kept = [part[key] for key in ("text", "image", "audio", "video") if isinstance(part.get(key), str)]
                found += [_resolved(one, attached) for one in kept]
    return found


def _resolved(text: str, attached: Mapping[str, Any]) -> str:
    """Long texts are written once, and named by their hash."""
    kept = attached.get(text.removeprefix(_ATTACHED)) if text.startswith(_ATTACHED) else None
    return kept if isinstance(kept, str) else text
