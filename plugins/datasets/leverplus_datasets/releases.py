"""Official releases of datasets: where their files come from, and how many questions and images they have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from leverplus_core import DataError, Split, did_you_mean

ReleaseName = Literal["okvqa", "vqav2"]


@dataclass(frozen=True)
class Source:
    """A JSON file, or the photos of a COCO subset, and the zip archive that holds it (bytes where known)."""

    name: str
    url: str
    size: int | None = None

    @property
    def archive(self) -> str:
        """The file name of the archive."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class ReleaseSplit:
    """One split: its two files, its photos, and how many questions and distinct images it has."""

    name: Split
    questions: Source
    annotations: Source
    photos: Source
    count: int
    images: int


@dataclass(frozen=True)
class Release:
    """A published dataset: its train and its validation split, the page that offers it, and its title."""

    name: ReleaseName
    title: str
    page: str
    splits: tuple[ReleaseSplit, ReleaseSplit]


_PHOTOS = {
    year: Source(year, f"http://images.cocodataset.org/zips/{year}.zip", size)
    for year, size in (("train2014", 13_510_573_713), ("val2014", 6_645_013_297))
}


def _okvqa(name: Split, subset: str, count: int, images: int) -> ReleaseSplit:
    base = "https://okvqa.allenai.org/static/data"
    questions, annotations = f"OpenEnded_mscoco_{subset}_questions.json", f"mscoco_{subset}_annotations.json"
    sources = Source(questions, f"{base}/{questions}.zip"), Source(annotations, f"{base}/{annotations}.zip")
    return ReleaseSplit(name, *sources, _PHOTOS[subset], count, images)


def _vqav2(name: Split, subset: str, short: str, count: int, images: int) -> ReleaseSplit:
    base = "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa/v2"
    questions = Source(f"v2_OpenEnded_mscoco_{subset}_questions.json", f"{base}_Questions_{short}_mscoco.zip")
    annotations = Source(f"v2_mscoco_{subset}_annotations.json", f"{base}_Annotations_{short}_mscoco.zip")
    return ReleaseSplit(name, questions, annotations, _PHOTOS[subset], count, images)


RELEASES: dict[str, Release] = {
    "okvqa": Release(
        "okvqa",
        "OK-VQA 1.0 (Marino et al. 2019)",
        "https://okvqa.allenai.org/download.html",
        (_okvqa("train", "train2014", 9_009, 8_998), _okvqa("validation", "val2014", 5_046, 5_033)),
    ),
    "vqav2": Release(
        "vqav2",
        "VQA v2.0 (Goyal et al. 2017)",
        "https://visualqa.org/download.html",
        (
            _vqav2("train", "train2014", "Train", 443_757, 82_783),
            _vqav2("validation", "val2014", "Val", 214_354, 40_504),
        ),
    ),
}


def find_release(name: str) -> Release:
    """The release of that name. Raises DataError that lists the known ones."""
    if name not in RELEASES:
        raise DataError(f"no release named '{name}'.", did_you_mean(name, RELEASES))
    return RELEASES[name]
