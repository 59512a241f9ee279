"""`hub`: a folder that `datasets` saved or reads is questions; without a network the hub is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
from huggingface_hub import constants
from PIL import Image

from leverplus_core import DataError
from leverplus_core.pretrained import _answers
from leverplus_core.testing import check_dataset
from leverplus_datasets.hub import Hub

COLUMNS = {"id": "qid", "answer": "label"}


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> datasets.DatasetDict:
    monkeypatch.setenv("LEVERPLUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    datasets.disable_progress_bars()
    features = datasets.Features({
        "qid": datasets.Value("int64"), "question": datasets.Value("string"), "image": datasets.Image(),
        "label": datasets.ClassLabel(names=["red", "blue"]),
    })  # fmt: skip

    def rows(first: int, count: int) -> list[dict[str, Any]]:
        colors = ["red", "blue"]
        return [
            {"qid": i, "question": "What color?", "image": Image.new("RGB", (8 + i, 8), colors[i % 2]), "label": i % 2}
            for i in range(first, first + count)
        ]

    splits = {"train": rows(0, 6), "validation": rows(10, 3)}
    return datasets.DatasetDict({k: datasets.Dataset.from_list(v, features=features) for k, v in splits.items()})


def test_a_saved_folder_and_one_of_parquet_files_are_the_same_questions(saved: Any, tmp_path: Path) -> None:
    saved.save_to_disk(str(tmp_path / "saved"))
    for split in saved:
        saved[split].to_parquet(str(tmp_path / "files" / f"{split}-0.parquet"))
    found = [Hub(path=str(tmp_path / name), columns=COLUMNS) for name in ("saved", "files")]
    for dataset in found:
        check_dataset(dataset)
        train = dataset.questions("train")
        assert [(q.id, q.answers[0]) for q in train[:2]] == [("0", "red"), ("1", "blue")], "labels by name"
        with Image.open(str(train[1].image.path)) as picture:
            assert picture.size == (9, 8) and picture.getpixel((0, 0)) == (0, 0, 255)
        assert [q.id for q in dataset.questions("validation")] == ["10", "11", "12"]
    assert found[0].identity() == found[1].identity()


def test_one_split_is_divided_by_picture(saved: Any, tmp_path: Path) -> None:
    saved["train"].save_to_disk(str(tmp_path / "one"))
    dataset = Hub(path=str(tmp_path / "one"), columns=COLUMNS, validation=None, validation_share=0.5)
    assert [len(dataset.questions(split)) for split in ("train", "validation")] == [3, 3]
    with pytest.raises(DataError, match=r"no validation split of .*one. Set dataset.validation to its name"):
        Hub(path=str(tmp_path / "one"), columns=COLUMNS, validation=None).questions("train")
    with pytest.raises(DataError, match=r"one has no split 'validation': it has train. Set dataset.validation"):
        Hub(path=str(tmp_path / "one"), columns=COLUMNS).questions("train")


def test_a_bad_row_is_told_with_its_number(saved: Any, tmp_path: Path) -> None:
    saved.save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match=r"saved \(train\) row 1 \(id 0\): no question. A row needs \"text\" \(dataset"):
        Hub(path=str(tmp_path / "saved"), columns={**COLUMNS, "question": "text"}).questions("train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty cannot be read: .*save_to_disk") as e:
        Hub(path=str(tmp_path / "empty")).questions("train")
    assert "\n" not in str(e.value)


def test_without_a_network_the_hub_is_one_line_at_once(saved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    _answers.cache_clear()
    with pytest.raises(
        DataError, match=r"'acme/none' is no folder here, and was not downloaded, and .* does not answer"
    ):
        Hub(path="acme/none").questions("train")
    assert constants.HF_HUB_OFFLINE is False
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"HF_HUB_OFFLINE is set. .*load_dataset\('acme/none'\).save_to_disk") as e:
        Hub(path="acme/none").questions("train")
    assert "\n" not in str(e.value)
    _answers.cache_clear()
