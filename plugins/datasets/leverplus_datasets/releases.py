"""Official releases of datasets: where their files come from, how many rows they have, and whether a copy is whole.

What is known of a release stands here once. A check looks at everything that would otherwise fail hours into a run:
files that are absent or cut, counts, ids that do not match, photos that are missing or cannot be read.
"""

from __future__ import annotations

import gzip
import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from leverplus_core.download import download, unpack, unpack_photos
from leverplus_core.errors import DataError, did_you_mean
from leverplus_core.progress import Progress, Silent
from leverplus_core.seeding import rng

ReleaseName = Literal["okvqa", "vqav2"]
State = Literal["ok", "absent", "wrong", "unknown"]
PHOTOS_OPENED = 64
"""Photos of a split that a check opens and decodes; all are looked for."""


@dataclass(frozen=True)
class File:
    """A JSON file of a release, the archive that holds it, and its size where that is known."""

    name: str
    url: str
    size: int | None = None

    @property
    def archive(self) -> str:
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Photos:
    """The photos of a split: COCO's `subtype`, and its archive."""

    subtype: str
    url: str
    size: int

    @property
    def archive(self) -> str:
        return self.url.rpartition("/")[2]

    def places(self, folder: Path, image_id: int) -> tuple[Path, Path]:
        """Where `vqa_json` looks for a photo: in `folder`, or in its folder of the subtype."""
        name = f"COCO_{self.subtype}_{image_id:012d}.jpg"
        return folder / self.subtype / name, folder / name


@dataclass(frozen=True)
class ReleaseSplit:
    """One split: its two files, its photos, and how many questions and distinct images it has."""

    name: Literal["train", "validation"]
    questions: File
    annotations: File
    photos: Photos
    count: int
    images: int


@dataclass(frozen=True)
class Release:
    """A published dataset, whole."""

    name: ReleaseName
    title: str
    page: str
    splits: tuple[ReleaseSplit, ReleaseSplit]

    @property
    def files(self) -> list[File]:
        return [file for split in self.splits for file in (split.questions, split.annotations)]


@dataclass(frozen=True)
class Finding:
    """What a check saw of one thing; `do` says how to mend it, '' when it is ok."""

    what: str
    state: State
    detail: str
    do: str = ""


_COCO = "http://images.cocodataset.org/zips"
_TRAIN_PHOTOS = Photos("train2014", f"{_COCO}/train2014.zip", 13_510_573_713)
_VALIDATION_PHOTOS = Photos("val2014", f"{_COCO}/val2014.zip", 6_645_013_297)
_OKVQA = "https://okvqa.allenai.org/static/data"
_VQAV2 = "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa"


def _okvqa(name: str, size: int | None = None) -> File:
    return File(name, f"{_OKVQA}/{name}.zip", size)


def _vqav2(name: str, archive: str) -> File:
    return File(name, f"{_VQAV2}/{archive}")


RELEASES: dict[str, Release] = {
    "okvqa": Release(
        "okvqa",
        "OK-VQA 1.0 (Marino et al. 2019)",
        "https://okvqa.allenai.org/download.html",
        (
            ReleaseSplit(
                "train",
                _okvqa("OpenEnded_mscoco_train2014_questions.json", 931_923),
                _okvqa("mscoco_train2014_annotations.json"),
                _TRAIN_PHOTOS,
                9_009,
                8_998,
            ),
            ReleaseSplit(
                "validation",
                _okvqa("OpenEnded_mscoco_val2014_questions.json", 521_744),
                _okvqa("mscoco_val2014_annotations.json"),
                _VALIDATION_PHOTOS,
                5_046,
                5_033,
            ),
        ),
    ),
    "vqav2": Release(
        "vqav2",
        "VQA v2.0 (Goyal et al. 2017)",
        "https://visualqa.org/download.html",
        (
            ReleaseSplit(
                "train",
                _vqav2("v2_OpenEnded_mscoco_train2014_questions.json", "v2_Questions_Train_mscoco.zip"),
                _vqav2("v2_mscoco_train2014_annotations.json", "v2_Annotations_Train_mscoco.zip"),
                _TRAIN_PHOTOS,
                443_757,
                82_783,
            ),
            ReleaseSplit(
                "validation",
                _vqav2("v2_OpenEnded_mscoco_val2014_questions.json", "v2_Questions_Val_mscoco.zip"),
                _vqav2("v2_mscoco_val2014_annotations.json", "v2_Annotations_Val_mscoco.zip"),
                _VALIDATION_PHOTOS,
                214_354,
                40_504,
            ),
        ),
    ),
}


def release(name: str) -> Release:
    """The release of that name. Raises DataError with the ones that are known."""
    if name not in RELEASES:
        raise DataError(f"no release named '{name}'.", did_you_mean(name, RELEASES))
    return RELEASES[name]


def check(known: Release, folder: Path, images: Path, progress: Progress | None = None) -> list[Finding]:
    """Look at a copy of a release: its JSON files in `folder`, its photos in `images`. Nothing is changed.

    The findings of one split: a line a file, the ids that join them, the photos.
    """
    shown = progress or Silent()
    findings: list[Finding] = []
    for split in known.splits:
        rows = {}
        for kind, file in (("questions", split.questions), ("annotations", split.annotations)):
            finding, rows[kind] = _check_file(file, kind, split, folder)
            findings.append(finding)
        if rows["questions"] and rows["annotations"]:
            findings.append(_check_ids(split, rows["questions"], rows["annotations"]))
        findings.append(_check_photos(split, images, rows["questions"], shown))
    return findings


def fetch_absent(
    known: Release, folder: Path, images: Path, photos: bool, mirror: str | None, progress: Progress | None = None
) -> None:
    """Download and unpack the files of a release that are not there; the photos, too, when asked for.

    `mirror` is a URL below which the archives lie under their official names. Raises DataError when one cannot be had;
    what came is kept.
    """

    def url_of(url: str) -> str:
        return f"{mirror.rstrip('/')}/{url.rpartition('/')[2]}" if mirror else url

    for file in known.files:
        if not any((folder / name).is_file() for name in (file.name, f"{file.name}.gz")):
            archive = download(url_of(file.url), folder / file.archive, progress)
            unpack(archive, [file.name], folder)
    for split in known.splits if photos else ():
        archive = download(url_of(split.photos.url), images / split.photos.archive, progress)
        unpack_photos(archive, split.photos.subtype, images, progress)


def _check_file(file: File, kind: str, split: ReleaseSplit, folder: Path) -> tuple[Finding, list[dict[str, Any]]]:
    path = next((p for p in (folder / file.name, folder / f"{file.name}.gz") if p.is_file()), None)
    if path is None:
        return _without(file, folder), []
    again = f"Fetch {file.url} again."
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        document = json.loads(data)
    except (OSError, EOFError, zlib.error, ValueError) as e:
        return Finding(path.name, "wrong", f"{path.stat().st_size:,} bytes, not JSON: {e}", again), []
    rows = document.get(kind) if isinstance(document, dict) else None
    needed = ("question_id", "image_id", "question" if kind == "questions" else "answers")
    if not isinstance(rows, list) or not all(_complete(row, needed) for row in rows):
        return Finding(path.name, "wrong", f"no list '{kind}' of rows with {', '.join(needed)}", again), []
    if len(rows) != split.count:
        return Finding(path.name, "wrong", f"{len(rows):,} {kind}, not {split.count:,}", again), rows
    size = f", not the known {file.size:,}" if file.size and len(data) != file.size else ""
    return Finding(path.name, "ok", f"{len(rows):,} {kind}, {len(data):,} bytes{size}"), rows


def _complete(row: object, needed: Sequence[str]) -> bool:
    return isinstance(row, dict) and all(key in row for key in needed) and isinstance(row["image_id"], int)


def _without(file: File, folder: Path) -> Finding:
    """A JSON file that is not there: perhaps its archive is."""
    archive = folder / file.archive
    if not archive.is_file():
        partial = archive.with_name(f"{archive.name}.part")
        begun = f"; {partial.stat().st_size:,} bytes of its archive are there" if partial.is_file() else ""
        return Finding(file.name, "absent", f"no such file in {folder}{begun}", f"Fetch {file.url}")
    if problem := archive_problem(archive):
        return Finding(archive.name, "wrong", problem, f"Delete it and fetch {file.url} again.")
    return Finding(file.name, "absent", f"{archive.name} is there, not unpacked", f"Unzip {archive} there.")


def archive_problem(path: Path, size: int | None = None) -> str:
    """What is wrong with a zip archive, in a few words; '' for nothing. Its content is not read."""
    found = path.stat().st_size
    if size is not None and found != size:
        return f"{found:,} of {size:,} bytes"
    try:
        with zipfile.ZipFile(path) as archive:
            return "" if archive.namelist() else "an empty archive"
    except (zipfile.BadZipFile, OSError) as e:
        return f"{found:,} bytes, a damaged or cut archive ({e})"


def _check_ids(
    split: ReleaseSplit, questions: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]]
) -> Finding:
    """Ids are unique, both files are about the same questions and images, and all have ten answers."""
    what = f"{split.name} ids"
    asked = {row["question_id"]: row["image_id"] for row in questions}
    told = {row["question_id"]: row["image_id"] for row in annotations}
    problems = []
    for name, of, rows in (("questions", asked, questions), ("annotations", told, annotations)):
        if len(of) != len(rows):
            problems.append(f"{len(rows) - len(of):,} {name} repeat an id")
    if alone := asked.keys() ^ told.keys():
        problems.append(f"{len(alone):,} ids stand in one file only, such as {min(alone)}")
    if moved := [q for q in asked.keys() & told.keys() if asked[q] != told[q]]:
        problems.append(f"{len(moved):,} questions have another image in the annotations, such as {min(moved)}")
    odd = [row["question_id"] for row in annotations if not _answered(row)]
    if odd:
        problems.append(f"{len(odd):,} questions lack ten answers, such as {odd[0]}")
    if problems:
        return Finding(what, "wrong", "; ".join(problems), "Take both files from one release.")
    images = len(set(asked.values()))
    return Finding(what, "ok", f"{len(asked):,} questions about {images:,} images, ten answers each")


def _answered(row: dict[str, Any]) -> bool:
    answers = row["answers"]
    return (
        isinstance(answers, list)
        and len(answers) == 10
        and any(isinstance(a, dict) and str(a.get("answer", "")).strip() for a in answers)
    )


def _check_photos(
    split: ReleaseSplit, images: Path, questions: Sequence[dict[str, Any]], progress: Progress
) -> Finding:
    photos = split.photos
    what = f"{split.name} photos"
    needed = sorted({int(row["image_id"]) for row in questions})
    fetch = f"Fetch {photos.url} ({photos.size / 1e9:.1f} GB) and unzip it in {images}."
    if not needed:
        state: State = "unknown" if images.is_dir() else "absent"
        return Finding(what, state, "which ones are needed is not known without the questions", fetch)
    there: list[Path] = []
    absent: list[Path] = []
    with progress.task(f"look for {split.name} photos", len(needed)) as task:
        for image_id in needed:
            places = photos.places(images, image_id)
            found = next((place for place in places if place.is_file()), None)
            (there if found else absent).append(found or places[0])
            task.advance()
    if absent:
        archive = next((a for a in (images / photos.archive, images.parent / photos.archive) if a.is_file()), None)
        if archive is not None:
            problem = archive_problem(archive, photos.size)
            said = f"{archive.name}: {problem}" if problem else f"{archive.name} is there, not unpacked"
            fetch = f"Fetch the rest of {photos.url}." if problem else f"Unzip {archive} in {images}."
        else:
            said = f"the first is {absent[0].name}"
        return Finding(what, "absent", f"{len(absent):,} of {len(needed):,} are not in {images}; {said}", fetch)
    opened = [there[i] for i in sorted(rng(0, "photos opened", split.name).permutation(len(there))[:PHOTOS_OPENED])]
    bad = [problem for path in there if (problem := _empty(path))] + list(_unreadable(opened))
    if bad:
        return Finding(what, "wrong", f"{len(bad):,} cannot be read, such as {bad[0]}", "Fetch these again.")
    return Finding(what, "ok", f"{len(there):,} are there; {len(opened):,} were opened and decoded")


def _empty(path: Path) -> str:
    return f"{path.name} (0 bytes)" if path.stat().st_size == 0 else ""


def _unreadable(paths: Sequence[Path]) -> Iterator[str]:
    for path in paths:
        if path.stat().st_size == 0:
            continue
        try:
            with Image.open(path) as picture:
                picture.load()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
            yield f"{path.name} ({e})"
