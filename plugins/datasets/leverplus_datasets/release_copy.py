"""A local copy of an official release: download what is absent, and check what is there.

A check finds what would otherwise fail hours into a run: files that are absent or cut, counts, ids that do not match,
photos that are missing or cannot be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from leverplus_core import DataError, PictureError, PictureSettings, Progress, Split, rng
from leverplus_datasets.download import download, part_of, unpack
from leverplus_datasets.reading import read_document
from leverplus_datasets.releases import Release, ReleaseSplit, Source

PHOTOS_OPENED = 64
"""Photos of a split that a check opens and decodes; it looks for all of them."""


@dataclass(frozen=True)
class Finding:
    """What a check found about one file, the ids of a split or its photos; `hint` says what to do unless it is ok."""

    what: str
    state: Literal["ok", "absent", "wrong", "unknown"]
    detail: str
    hint: str = ""


def download_release(
    release: Release, folder: Path, images: Path, photos: bool, mirror: str | None, progress: Progress | None = None
) -> list[Finding]:
    """Download and unpack the files that are absent, with `photos` also the photos, and check the copy.

    `mirror` is a URL below which the archives are found under their official names. Raises DataError when a download
    fails; what was downloaded is kept.
    """

    def bring(source: Source, suffix: str, archives: Path, target: Path) -> None:
        url = f"{mirror.rstrip('/')}/{source.archive}" if mirror else source.url
        download(url, archives / source.archive, progress)
        unpack(archives / source.archive, suffix, target, progress)

    for split in release.splits:
        for file in (split.questions, split.annotations):
            if not _existing(file, folder):
                bring(file, file.name, folder, folder)
    findings = check(release, folder, images)
    absent = {finding.what for finding in findings if photos and finding.state == "absent"}
    for split in release.splits:
        if f"{split.name} photos" in absent:
            bring(split.photos, ".jpg", images, images / split.photos.name)
    return check(release, folder, images) if absent else findings


def check(release: Release, folder: Path, images: Path) -> list[Finding]:
    """Check a copy of a release, JSON files in `folder` and photos in `images`, without changing anything.

    The findings of each split: one per file, one about the ids that join them, one about the photos.
    """
    findings = []
    for split in release.splits:
        asked, questions = _check_file(split.questions, "questions", "question", split.count, folder)
        told, annotations = _check_file(split.annotations, "annotations", "answers", split.count, folder)
        findings += [asked, told]
        if questions and annotations:
            findings.append(_check_ids(split.name, questions, annotations))
        needed = sorted({row["image_id"] for row in questions})
        findings.append(_check_photos(split, images, needed))
    return findings


def photo_places(subset: str, images: Path, image_id: int) -> tuple[Path, Path]:
    """Where `vqa_json` looks for a photo: in the folder of its COCO subset, and in `images` itself."""
    name = f"COCO_{subset}_{image_id:012d}.jpg"
    return images / subset / name, images / name


def _existing(file: Source, folder: Path) -> Path | None:
    return next((path for path in (folder / file.name, folder / f"{file.name}.gz") if path.is_file()), None)


def _check_file(file: Source, key: str, content: str, count: int, folder: Path) -> tuple[Finding, list[dict[str, Any]]]:
    path = _existing(file, folder)
    if path is None:
        said = f"not in {folder}{_archive_state(folder / file.archive)}"
        return Finding(file.name, "absent", said, f"Run this command without --check, or unzip {file.url} there."), []
    hint = f"Delete {path} and run this command without --check."
    try:
        rows = read_document(path, key)[key]
    except DataError as e:
        return Finding(path.name, "wrong", e.what, hint), []
    needed = {"question_id", "image_id", content}
    if not all(isinstance(row, dict) and row.keys() >= needed and isinstance(row["image_id"], int) for row in rows):
        return Finding(path.name, "wrong", f"no list '{key}' of rows with {', '.join(sorted(needed))}", hint), []
    if len(rows) != count:
        return Finding(path.name, "wrong", f"{len(rows):,} {key}, not {count:,}", hint), rows
    return Finding(path.name, "ok", f"{len(rows):,} {key}, {path.stat().st_size:,} bytes"), rows


def _archive_state(archive: Path, size: int | None = None) -> str:
    """What there is of an archive whose content is absent, as the end of a sentence."""
    if archive.is_file():
        of = f" of {size:,} bytes" if size and archive.stat().st_size != size else " bytes, not unpacked"
        return f"; {archive.name} is there: {archive.stat().st_size:,}{of}"
    part = part_of(archive)
    return f"; {part.stat().st_size:,} bytes of {archive.name} were downloaded" if part.is_file() else ""


def _check_ids(split: Split, questions: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]]) -> Finding:
    """Ids are unique, both files are about the same questions and images, and every question has ten answers."""
    images = {row["question_id"]: row["image_id"] for row in questions}
    annotated = {row["question_id"]: row["image_id"] for row in annotations}
    problems = [
        f"{len(rows) - len(ids):,} {name} repeat an id"
        for name, ids, rows in (("questions", images, questions), ("annotations", annotated, annotations))
        if len(ids) != len(rows)
    ]
    if unmatched := images.keys() ^ annotated.keys():
        problems.append(f"{len(unmatched):,} ids are in one file only, such as {min(unmatched)}")
    if moved := [q for q in images.keys() & annotated.keys() if images[q] != annotated[q]]:
        problems.append(f"{len(moved):,} questions have another image in the annotations, such as {min(moved)}")
    if lacking := [row["question_id"] for row in annotations if not _answered(row["answers"])]:
        problems.append(f"{len(lacking):,} questions lack ten answers, such as {lacking[0]}")
    if problems:
        return Finding(f"{split} ids", "wrong", "; ".join(problems), "Take both files from one release.")
    distinct = len(set(images.values()))
    return Finding(f"{split} ids", "ok", f"{len(images):,} questions about {distinct:,} images, ten answers each")


def _answered(answers: object) -> bool:
    return (
        isinstance(answers, list)
        and len(answers) == 10
        and any(isinstance(answer, dict) and str(answer.get("answer", "")).strip() for answer in answers)
    )


def _check_photos(split: ReleaseSplit, images: Path, needed: Sequence[int]) -> Finding:
    what, photos = f"{split.name} photos", split.photos
    hint = f"Run this command with --photos ({(photos.size or 0) / 1e9:.1f} GB), or unzip {photos.url} in {images}."
    if not needed:
        return Finding(what, "unknown", "which ones are needed is not known without the questions", hint)
    places = [photo_places(photos.name, images, image_id) for image_id in needed]
    found = [path for pair in places if (path := next((p for p in pair if p.is_file()), None))]
    if len(found) < len(needed):
        first = next(pair[0] for pair in places if not any(p.is_file() for p in pair))
        said = f"{len(needed) - len(found):,} of {len(needed):,} are not in {images}, such as {first.name}"
        return Finding(what, "absent", said + _archive_state(images / photos.archive, photos.size), hint)
    opened = set(rng(0, "photos opened", split.name).permutation(len(found))[:PHOTOS_OPENED].tolist())
    problems = ((path.name, _problem(path, decode=i in opened)) for i, path in enumerate(found))
    if bad := [f"{name} ({problem})" for name, problem in problems if problem]:
        return Finding(what, "wrong", f"{len(bad):,} cannot be read, such as {bad[0]}", f"Delete these. {hint}")
    return Finding(what, "ok", f"{len(found):,} are there; {len(opened):,} were opened and decoded")


def _problem(path: Path, decode: bool) -> str:
    """What is wrong with a photo; '' when nothing is found."""
    if not path.stat().st_size:
        return "0 bytes"
    if decode:
        reader = PictureSettings()
        try:
            reader.read_picture(reader.read_file(str(path)), str(path))
        except PictureError as e:
            return e.reason
    return ""
