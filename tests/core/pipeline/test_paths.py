"""Paths of a recipe file begin in its folder, those of an option in the current one; where they lead is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from leverplus_core import Catalog, Recipe, RunContext
from leverplus_core.pipeline.paths import paths_of, with_paths

CATALOG = Catalog.load(disabled="")


def recipe_file(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return folder / "mine.yaml"


def test_a_path_of_a_recipe_file_begins_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = recipe_file(tmp_path / "a", "dataset: {name: vqa_json, folder: official, images: ../photos}\n")
    dataset = with_paths(Recipe.load(file), CATALOG).dataset.settings
    assert dataset == {"folder": f"{tmp_path}/a/official", "images": f"{tmp_path}/photos"}
    given = with_paths(Recipe.load(file, ["dataset.images=own", "dataset.folder=/there"]), CATALOG).dataset.settings
    assert given == {"folder": "/there", "images": "own"}, "of an option: in the current folder"
    above = recipe_file(tmp_path / "b", "extends: ../a/mine.yaml\ndataset: {images: here}\n")
    extended = with_paths(Recipe.load(above), CATALOG).dataset.settings
    assert extended == {"folder": f"{tmp_path}/a/official", "images": f"{tmp_path}/b/here"}, "each begins in its own"


def test_what_is_no_path_stays_as_it_is(tmp_path: Path) -> None:
    text = "dataset: {name: vqa_json, folder: okvqa-slice}\nmodel: {name: hf_vlm, path: some/model}\n"
    file = recipe_file(tmp_path, f"{text}encoder: {{name: clip, path: ./weights}}\nextends: demo\n")
    recipe = with_paths(Recipe.load(file), CATALOG)
    assert recipe.dataset.settings["folder"] == "okvqa-slice" and recipe.model.settings["path"] == "some/model"
    (tmp_path / "weights").mkdir()
    recipe = with_paths(Recipe.load(file), CATALOG)
    assert recipe.encoder.settings["path"] == f"{tmp_path}/weights", (
        "a checkpoint's path is one where its folder exists"
    )
    bundled = Recipe.load("okvqa-qwen2.5-vl-3b")
    assert with_paths(bundled, CATALOG) is bundled, "bundled recipes name folders of the user's"


def test_files_in_a_folder_that_is_given_stay_relative_to_it(tmp_path: Path) -> None:
    dataset = "{name: vqa_json, folder: official, train_questions: q.json, captions: c.json}"
    settings = with_paths(Recipe.load(recipe_file(tmp_path, f"dataset: {dataset}\n")), CATALOG).dataset.settings
    assert (settings["folder"], settings["train_questions"]) == (f"{tmp_path}/official", "q.json")
    alone = recipe_file(tmp_path, "dataset: {name: vqa_json, train_questions: q.json}\n")
    assert with_paths(Recipe.load(alone), CATALOG).dataset.settings == {"train_questions": f"{tmp_path}/q.json"}


def test_two_folders_with_one_recipe_are_two_runs_and_each_is_one_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "extends: demo\ndataset: {name: vqa_json, folder: official}\n"
    files = [recipe_file(tmp_path / name, text) for name in ("a", "b")]
    runs = [RunContext(Recipe.load(file), CATALOG).recipe.fingerprint() for file in files]
    assert runs[0] != runs[1]
    monkeypatch.chdir(tmp_path / "a")
    assert RunContext(Recipe.load("mine.yaml"), CATALOG).recipe.fingerprint() == runs[0]
    again = RunContext(Recipe.load("mine.yaml").changed(seed=1), CATALOG).recipe
    assert again.dataset.settings["folder"] == f"{tmp_path}/a/official", "with other seeds, too"


def test_paths_are_shown_as_they_are_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., tuple[int, str, str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = recipe_file(tmp_path / "a", "extends: demo\ndataset: {name: table, train: t.jsonl, validation: v.jsonl}\n")
    shown = json.loads(cli("recipes", "show", str(file), "--json")[1])
    assert shown["dataset"]["train"] == f"{tmp_path}/a/t.jsonl"
    loaded = Recipe.load(file, ["dataset.validation=v.jsonl"])
    assert paths_of(loaded, CATALOG) == {
        "dataset.train": f"{tmp_path}/a/t.jsonl", "dataset.validation": f"{tmp_path}/v.jsonl"
    }  # fmt: skip
