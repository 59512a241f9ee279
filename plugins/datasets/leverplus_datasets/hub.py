"""A dataset of the Hugging Face hub, or one that `datasets` saved or reads from a folder: the extra `hub`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from leverplus_core import DataError, PathSetting, fingerprint, needs_extra, without_hub
from leverplus_datasets.from_rows import RowDataset
from leverplus_datasets.reading import Rows, image_files_hash, place
from leverplus_datasets.rows import Row

_SAVED = ("dataset_dict.json", "state.json")
"""What `save_to_disk` leaves: of several splits, of one."""

_SPLIT_HINT = {
    "train": "Set dataset.train to the name of one.",
    "validation": "Set dataset.validation to the name of one, or to null with dataset.validation_share=0.3.",
}
_SPLIT_HINT["path"] = _SPLIT_HINT["train"]


class Hub(RowDataset):
    """A dataset of the Hugging Face hub, or a folder that `datasets` saved or reads, columns by name."""

    path: Annotated[str, PathSetting(only_there=True)] = Field(
        min_length=1, description="hub id; or a folder of `save_to_disk`, or of Parquet files"
    )
    subset: str | None = Field(None, description="the configuration, of a dataset that has several")
    revision: str | None = Field(None, description="commit, tag or branch of a hub id; pin it")
    train: str = Field("train", min_length=1, description="name of the split of train questions")
    validation: str | None = Field(
        "validation", description="name of the split that is evaluated; null: a share of `train`, `validation_share`"
    )

    def identity(self) -> dict[str, object]:
        """The questions themselves, wherever they were read, with the content of their pictures."""
        rows: Rows = {"train": self.questions("train"), "validation": self.questions("validation")}
        questions = [
            [split, q.id, q.text, q.image.id, q.image.caption, list(q.answers)] for split in rows for q in rows[split]
        ]
        return {"questions": fingerprint(questions), "images": image_files_hash(rows)}

    def sources(self) -> Mapping[str, Sequence[Path]]:
        """Two splits, or one whose rows are divided by `validation_share`; none is a file."""
        if self.validation is None and self.validation_share is None:
            raise DataError(
                f"hub was given no validation split of {self.path}.",
                "Set dataset.validation to its name, or dataset.validation_share=0.3.",
            )
        return {"train": [], "validation": []} if self.validation is not None else {"path": []}

    def named(self, role: str) -> str:
        """The split of `role`, as messages name it."""
        return f"{self.path} ({self.validation if role == 'validation' else self.train})"

    def rows(self, role: str) -> Iterator[tuple[str, Row | DataError]]:
        """The rows of a split. Raises DataError where it cannot be loaded."""
        split = (self.validation if role == "validation" else self.train) or ""
        if split not in self._splits:
            known = ", ".join(self._splits)
            raise DataError(f"{self.path} has no split '{split}': it has {known}.", _SPLIT_HINT[role])
        rows, labels = self._splits[split], dict[str, Any]()
        from datasets import ClassLabel, Image

        for name, feature in rows.features.items():
            if isinstance(feature, Image):
                rows = rows.cast_column(name, Image(decode=False))
            elif isinstance(feature, ClassLabel):
                labels[name] = feature
        for number, row in enumerate(rows, 1):
            for name, feature in labels.items():
                row[name] = None if row[name] is None or row[name] < 0 else feature.int2str(row[name])
            yield f"{self.named(role)} row {number}", row

    @property
    def home(self) -> Path:
        """The folder, where it is one."""
        folder = place(self.path)
        return folder.resolve() if os.path.isdir(folder) else Path.cwd()

    @cached_property
    def _splits(self) -> Mapping[str, Any]:
        """Split -> its rows."""
        with needs_extra("hub"):
            import datasets
        datasets.disable_progress_bars()
        folder = place(self.path)
        if not os.path.isdir(folder):
            return _several(self._from_hub(datasets), self.train)
        try:
            saved = any(os.path.isfile(folder / name) for name in _SAVED)
            found = datasets.load_from_disk(str(folder)) if saved else datasets.load_dataset(str(folder), self.subset)
        except Exception as e:  # `datasets` raises whatever its readers do
            hint = "Is it a folder of `save_to_disk`, or of Parquet files?"
            raise DataError(f"{self.path} cannot be read: {_reason(e)}.", hint) from e
        return _several(found, self.train)

    def _from_hub(self, datasets: Any) -> Any:
        from huggingface_hub import constants

        before, why = constants.HF_HUB_OFFLINE, without_hub()
        constants.HF_HUB_OFFLINE = before or bool(why)  # the library would try for half a minute
        try:
            return datasets.load_dataset(self.path, self.subset, revision=self.revision)
        except Exception as e:  # `datasets` raises whatever its network and its readers do
            raise DataError(
                f"'{self.path}' is no folder here, and "
                + (f"was not downloaded, and {why}." if why else f"cannot be had from the hub: {_reason(e)}."),
                f"Where a network is: datasets.load_dataset('{self.path}').save_to_disk('FOLDER'); then set "
                "dataset.path=FOLDER.",
            ) from e
        finally:
            constants.HF_HUB_OFFLINE = before


def _several(found: Any, split: str) -> Mapping[str, Any]:
    """Split -> rows, of what `datasets` loaded: a dictionary, or one split that has no name."""
    return dict(found) if isinstance(found, dict) else {split: found}


def _reason(error: Exception) -> str:
    return (str(error).strip().split("\n")[0] or type(error).__name__).rstrip(".")
