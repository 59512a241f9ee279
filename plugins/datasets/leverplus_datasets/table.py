"""A dataset of your own: files with a row per question, as JSON lines, JSON, CSV, TSV or Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from pydantic import Field

from leverplus_core import DataError
from leverplus_datasets.from_rows import Path_, RowDataset
from leverplus_datasets.reading import Rows, file_hash, image_files_hash, place
from leverplus_datasets.rows import Row, read_rows

_EVIDENCE = {"images", "allow_outside", "download", "private_addresses", "max_megabytes", "train", "validation", "path"}
"""Settings whose effect is in the content of the files and pictures."""


class Table(RowDataset):
    """Your own questions, a row each, in JSON lines, JSON, CSV, TSV or Parquet, with images or captions."""

    train: Path_ = Field(None, description="file of train questions; they are also the demonstrations")
    validation: Path_ = Field(None, description="file of validation questions")
    path: Path_ = Field(None, description="one file for both splits; each row names its `split`, or `validation_share`")

    def identity(self) -> dict[str, object]:
        """The content of the files, independent of their folder, and the settings that are not the defaults."""
        questions: Rows = {"train": self.questions("train"), "validation": self.questions("validation")}
        return {
            "files": {role: file_hash(files[0]) for role, files in self.sources().items()},
            "images": image_files_hash(questions),
            **self.model_dump(mode="json", exclude=_EVIDENCE, exclude_defaults=True),
        }

    @cached_property
    def _sources(self) -> Mapping[str, Sequence[Path]]:
        named = ("train", "validation", "path")
        given = {name: [place(path)] for name in named if (path := getattr(self, name)) is not None}
        if set(given) not in ({"path"}, {"train", "validation"}):
            raise DataError(
                f"table was given {', '.join(given) or 'nothing'}.",
                "Set dataset.train and dataset.validation, or dataset.path.",
            )
        return given

    def sources(self) -> Mapping[str, Sequence[Path]]:
        """The one file of each. Raises DataError unless there are both splits or a file for both."""
        return self._sources

    def rows(self, role: str) -> Iterator[tuple[str, Row | DataError]]:
        """The rows of the file. Raises DataError as `read_rows`."""
        return read_rows(self.sources()[role][0])

    @property
    def splits_texts(self) -> bool:
        """Where a file is CSV or TSV."""
        return any(
            file.name.removesuffix(".gz").endswith((".csv", ".tsv")) for of in self.sources().values() for file in of
        )
