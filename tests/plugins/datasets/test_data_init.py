"""`leverplus data init`: a folder that checks and validates as it stands, with guesses that are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from leverplus_core import Recipe
from leverplus_datasets.guess import guess

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEVERPLUS_CACHE", str(tmp_path / "cache"))


def test_the_example_checks_and_validates_as_it_stands(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("data", "init", "first")
    assert code == 0 and "first/recipe.yaml: 120 train, 40 validation" in out and err == ""
    assert {path.name for path in (tmp_path / "first").iterdir()} == {
        "recipe.yaml", "README.md", "train.jsonl", "validation.jsonl", "pictures",
    }  # fmt: skip
    assert cli("data", "check", "first/recipe.yaml")[0] == 0
    described = json.loads(cli("validate", "first/recipe.yaml", "--json")[1])
    assert described["questions"] == {"train": 120, "validation": 40} and "remarks" not in described
    code, _, err = cli("data", "init", "first")
    assert code == 2 and "first/recipe.yaml is there already. Name another folder" in err


def _own(folder: Path, rows: int = 30) -> None:
    (folder / "photos").mkdir(parents=True)
    lines = ["qid,query,img_path,label"]
    for i in range(rows):
        Image.new("RGB", (9 + i, 9), "red").save(folder / "photos" / f"{i}.jpg")
        lines.append(f"{i},what is {i}?,{i}.jpg,red;crimson")
    (folder / "rows.csv").write_text("\n".join(lines).replace(",label", ",answers"))


def test_the_columns_of_a_file_are_guessed_and_the_guesses_told(cli: Cli, tmp_path: Path) -> None:
    _own(tmp_path / "own")
    code, out, err = cli("data", "init", "own", "--from", "own/rows.csv")
    assert code == 0 and "own/recipe.yaml: 21 train, 9 validation" in out, err
    for text in (
        "id: column 'qid'",
        "question: column 'query'",
        "image: column 'img_path'",
        "separator: answers are split at ';'",
        f"pictures: {tmp_path}/own/photos/",
        "validation: the questions about 30% of the pictures",
    ):
        assert f"guessed: {text}" in err, text
    recipe = Recipe.load(tmp_path / "own" / "recipe.yaml")
    assert recipe.dataset.settings == {
        "columns": {"id": "qid", "question": "query", "image": "img_path"}, "separator": ";", "images": "photos",
        "path": "rows.csv", "validation_share": 0.3,
    }  # fmt: skip
    assert cli("data", "check", "own/recipe.yaml")[0] == 0
    assert json.loads(cli("validate", "own/recipe.yaml", "--json")[1])["questions"] == {"train": 21, "validation": 9}


def test_what_is_wrong_with_a_file_is_told_as_the_recipe_is_written(cli: Cli, tmp_path: Path) -> None:
    _own(tmp_path / "own")
    (tmp_path / "own" / "photos" / "29.jpg").unlink()
    code, _, err = cli("data", "init", "elsewhere", "--from", "own/rows.csv")
    assert code == 0 and "warning: pictures that are missing: 1, such as rows.csv:31 (id 29)" in err
    settings = Recipe.load(tmp_path / "elsewhere" / "recipe.yaml").dataset.settings
    assert settings["path"] == str(tmp_path / "own" / "rows.csv"), "the file stays where it is"
    (tmp_path / "none.jsonl").write_text(json.dumps({"id": 1, "question": "?", "caption": "", "answer": "x"}))
    code, _, err = cli("data", "init", "third", "--from", "none.jsonl")
    assert code == 2 and "no row can be used: rows without a picture" in err and not (tmp_path / "third").exists()


@pytest.mark.parametrize(
    ("name", "rows", "settings", "said"),
    [
        ("aokvqa_train.json", [{"question_id": "a", "question": "?", "image_id": 42, "direct_answers": ["x"]}],
         {"columns": {"id": "question_id", "image": "image_id", "answers": "direct_answers"}, "images": "train2017",
          "image_name": "{image:012d}.jpg"}, "validation: the questions about"),
        ("textvqa.jsonl", [{"question_id": 1, "question": "?", "image_id": "000000000042", "answers": ["x"]}],
         {"columns": {"id": "question_id", "image": "image_id"}, "images": "train2017",
          "image_name": "{image}.jpg"}, ""),
        ("vizwiz.json", [{"question": "?", "image": "000000000042.jpg", "answers": [{"answer": "x"}]}],
         {"columns": {"id": "#"}, "images": "train2017"}, "id: the number of the row"),
        ("web.jsonl", [{"id": 1, "question": "?", "image_url": "https://example.org/a.png", "answer": "x"}],
         {"columns": {"image": "image_url"}}, "pictures: addresses; nothing is fetched without dataset.download=true"),
        ("twice.jsonl", [{"id": 1, "question": "?", "caption": "c", "answer": "x"}] * 2,
         {"columns": {"id": "#"}}, "id: the number of the row"),
    ],
)  # fmt: skip
def test_files_of_other_data_sets_are_known(
    tmp_path: Path, name: str, rows: list[dict[str, Any]], settings: dict[str, Any], said: str
) -> None:
    (tmp_path / "train2017").mkdir()
    (tmp_path / "train2017" / "000000000042.jpg").write_bytes(b"jpg")
    text = json.dumps(rows) if name.endswith(".json") else "\n".join(map(json.dumps, rows))
    (tmp_path / name).write_text(text)
    found = guess(tmp_path / name)
    if "images" in settings:
        settings = {**settings, "images": str(tmp_path / settings["images"])}
    assert found.settings == {**settings, "path": str(tmp_path / name), "validation_share": 0.3}
    assert any(line.startswith(said) for line in found.said)


def test_a_file_of_the_other_split_beside_it_is_found(tmp_path: Path) -> None:
    for name in ("my_train_v1.jsonl", "my_val_v1.jsonl"):
        (tmp_path / name).write_text(json.dumps({"id": name, "question": "?", "caption": "c", "answer": "x"}))
    found = guess(tmp_path / "my_train_v1.jsonl")
    assert found.settings == {split: str(tmp_path / f"my_{short}_v1.jsonl")
                              for split, short in (("train", "train"), ("validation", "val"))}  # fmt: skip


def test_chinese_headings_and_an_unusual_folder_with_a_picture_missing_are_known(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "店" / "图").mkdir(parents=True)
    lines = ["问题,图片,答案,划分"]
    for i in range(12):
        Image.new("RGB", (9 + i, 9), "red").save(tmp_path / "店" / "图" / f"图{i}.png")
        lines.append(f"这是什么,图{i}.png,红色,{'训练' if i < 8 else '验证'}")
    (tmp_path / "店" / "图" / "图0.png").unlink()
    (tmp_path / "店" / "问题.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    code, out, err = cli("data", "init", "店", "--from", "店/问题.csv")
    assert code == 0 and "店/recipe.yaml: 7 train, 4 validation" in out, err
    assert "warning: pictures that are missing: 1" in err and "knows nothing of your pictures" in err
    text = (tmp_path / "店" / "recipe.yaml").read_text(encoding="utf-8")
    assert '"question": "问题", "image": "图片"' in text, "as a person reads it"
    assert Recipe.load(tmp_path / "店" / "recipe.yaml").dataset.settings == {
        "columns": {"id": "#", "question": "问题", "image": "图片", "answer": "答案", "split": "划分"},
        "images": "图", "path": "问题.csv",
    }  # fmt: skip


def test_where_the_pictures_are_can_be_said(cli: Cli, tmp_path: Path) -> None:
    _own(tmp_path / "own")
    (tmp_path / "own" / "photos").rename(tmp_path / "elsewhere")
    code, _, err = cli("data", "init", "own", "--from", "own/rows.csv")
    assert code == 2 and "where the pictures are with --images" in err and not (tmp_path / "own/recipe.yaml").exists()
    code, _, err = cli("data", "init", "own", "--from", "own/rows.csv", "--images", "nowhere")
    assert code == 2 and "--images nowhere is no folder." in err
    code, out, err = cli("data", "init", "own", "--from", "own/rows.csv", "--images", "elsewhere")
    assert code == 0 and "21 train, 9 validation" in out, err
    assert Recipe.load(tmp_path / "own" / "recipe.yaml").dataset.settings["images"] == str(tmp_path / "elsewhere")


def test_addresses_are_asked_only_when_the_user_says_so(tmp_path: Path, cli: Cli) -> None:
    row = {"id": 1, "question": "?", "image": "http://127.0.0.1:1/a.png", "answer": "x"}
    (tmp_path / "web.jsonl").write_text(json.dumps(row))
    init = ("data", "init", str(tmp_path / "mine"), "--from", str(tmp_path / "web.jsonl"))
    code, _, error = cli(*init)
    assert code == 2 and "image is an address (http://127.0.0.1:1/a.png), not a file." in error
    assert "127.0.0.1 is 127.0.0.1, an address of this machine" in cli(*init, "--download")[2], "it went to ask"
    check = ("data", "check", str(tmp_path / "web.jsonl"))
    assert "addresses, which are not fetched (dataset.download): 1" in cli(*check)[1]
    assert "addresses that cannot be fetched: 1" in cli(*check, "--set", "dataset.download=true")[1]
