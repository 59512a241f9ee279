"""The built-in datasets: the same rows every time, nothing leaks between splits, mistakes are one line."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from leverplus_core.errors import DataError
from leverplus_core.metrics import accuracy
from leverplus_core.testing import check_dataset
from leverplus_datasets.table import Table
from leverplus_datasets.vqa_json import SplitByImage, VqaJson

Write = Callable[..., Path]


def one_line(error: pytest.ExceptionInfo[DataError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# --- vqa_json ---------------------------------------------------------------------------------------------------


def official(folder: Path, split: str, rows: list[tuple[int, int]], name: str = "OK-VQA") -> dict[str, Any]:
    """Write a split's official files for (question_id, image_id) rows; the documents, to be spoilt by a test."""
    subtype = f"{split}2014"
    questions = [{"question_id": q, "image_id": i, "question": f"What is {q}?"} for q, i in rows]
    answers = [{"answer_id": n, "answer": f"answer {n // 4}", "answer_confidence": "yes"} for n in range(10)]
    annotations = [{"question_id": q, "image_id": i, "answers": answers} for q, i in rows]
    info = {"description": f"This is v1.0 of the {name} dataset."}
    documents = {
        f"OpenEnded_mscoco_{subtype}_questions.json": {"info": info, "data_subtype": subtype, "questions": questions},
        f"mscoco_{subtype}_annotations.json": {"info": info, "data_subtype": subtype, "annotations": annotations},
    }
    folder.mkdir(exist_ok=True)
    for file, document in documents.items():
        (folder / file).write_text(json.dumps(document))
    return documents


@pytest.fixture
def vqa(tmp_path: Path) -> Path:
    """OK-VQA in small: 6 train and 12 validation questions, two an image, given in disorder; captions for all."""
    folder = tmp_path / "okvqa"
    official(folder, "train", [(q, q // 10) for q in (305, 105, 215, 101, 301, 211)])
    official(folder, "val", [(q, q // 10) for q in (1205, 999, 991, 1201, *range(500, 580, 10))])
    images = {q // 10 for q in (305, 105, 215, 1205, 999, *range(500, 580, 10))}
    (folder / "captions.json").write_text(json.dumps({str(i): f"a thing on table {i}" for i in images}))
    return folder


def test_vqa_json_keeps_the_contract(vqa: Path) -> None:
    dataset = VqaJson(folder=str(vqa))
    check_dataset(dataset)
    assert [q.id for q in dataset.questions("train")] == ["101", "105", "211", "215", "301", "305"]
    assert dataset.questions("train")[0].image == dataset.questions("train")[1].image
    assert dataset.questions("validation")[-1].text == "What is 1205?"
    assert dataset.questions("validation")[0].answers.count("answer 0") == 4
    assert dataset.demonstrations()[0].answer == "answer 0"
    assert dataset.note() == "captions stand in for the photos."


def test_vqa_json_reads_gzip_and_single_file_settings(vqa: Path, tmp_path: Path) -> None:
    whole = VqaJson(folder=str(vqa))
    settings = {"captions": str(vqa / "captions.json")}
    for split, short in (("train", "train"), ("validation", "val")):
        for kind, prefix in (("questions", "OpenEnded_"), ("annotations", "")):
            plain = vqa / f"{prefix}mscoco_{short}2014_{kind}.json"
            packed = tmp_path / f"{split}_{kind}.json.gz"
            packed.write_bytes(gzip.compress(plain.read_bytes()))
            settings[f"{split}_{kind}"] = str(packed)
    assert VqaJson.model_validate(settings).questions("train") == whole.questions("train")


def test_vqa_json_finds_photos_by_split_and_names_the_missing_one(vqa: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for split, document in (("train", "train2014"), ("validation", "val2014")):
        (photos / document).mkdir(parents=True)
        for question in VqaJson(folder=str(vqa)).questions(split):  # type: ignore[arg-type]
            # Validation photos lie in a folder of their own, train photos side by side.
            place = photos / document if split == "validation" else photos
            (place / f"COCO_{document}_{int(question.image.id):012d}.jpg").write_bytes(b"jpg")
    dataset = VqaJson(folder=str(vqa), images=str(photos))
    check_dataset(dataset)
    assert dataset.questions("train")[0].image.path == str(photos / "COCO_train2014_000000000010.jpg")
    assert dataset.questions("validation")[0].image.caption == "a thing on table 50"
    assert dataset.note() == ""
    before = dataset.identity()
    (photos / "COCO_train2014_000000000010.jpg").write_bytes(b"another jpg")
    assert VqaJson(folder=str(vqa), images=str(photos)).identity() != before
    (photos / "COCO_train2014_000000000010.jpg").unlink()
    with pytest.raises(DataError, match=r"question 101: there is no image file .*COCO_train2014_000000000010.jpg") as e:
        VqaJson(folder=str(vqa), images=str(photos)).questions("train")
    assert one_line(e).endswith(
        f"dataset.images is {photos}, dataset.image_name is 'COCO_{{subtype}}_{{image_id:012d}}.jpg', and image_id 10: "
        "the photo is looked for there, and in train2014/."
    )


def test_the_files_of_settings_are_looked_for_in_the_folder(vqa: Path, tmp_path: Path) -> None:
    whole = VqaJson(folder=str(vqa)).questions("train")
    (vqa / "captions.json").rename(vqa / "own.json")
    own = {"train_questions": "OpenEnded_mscoco_train2014_questions.json", "captions": "own.json"}
    assert VqaJson.model_validate({"folder": str(vqa), **own}).questions("train") == whole
    with pytest.raises(DataError, match=r"there is no file .*okvqa/lost.json"):
        VqaJson(folder=str(vqa), captions="lost.json").questions("train")
    elsewhere = shutil.move(vqa / "own.json", tmp_path / "c.json")
    assert VqaJson(folder=str(vqa), captions=str(elsewhere)).questions("train") == whole


def test_vqa_json_limits_are_seeded_and_nested(vqa: Path) -> None:
    def ids(limit: int, seed: int = 0) -> list[str]:
        return [q.id for q in VqaJson(folder=str(vqa), validation_limit=limit, seed=seed).questions("validation")]

    every = ids(99)
    assert set(ids(3)) < set(ids(6)) < set(every) and len(ids(6)) == 6
    assert ids(6) == [i for i in every if i in ids(6)], "in the order of ids"
    assert len({tuple(ids(6, seed)) for seed in range(5)}) > 1
    assert any(ids(3, seed) != every[:3] for seed in range(3)), "not the first rows"


def test_vqa_json_split_by_image_shares_no_picture_and_says_so(vqa: Path) -> None:
    for name in ("OpenEnded_mscoco_train2014_questions.json", "mscoco_train2014_annotations.json"):
        (vqa / name).unlink()  # not needed inside one split
    for seed in range(10):
        dataset = VqaJson(folder=str(vqa), split_by_image=SplitByImage(train=7, validation=3, seed=seed))
        check_dataset(dataset)
        train, validation = dataset.questions("train"), dataset.questions("validation")
        assert (len(train), len(validation)) == (7, 3)
        assert not {q.image.id for q in train} & {q.image.id for q in validation}
        assert dataset.note().startswith("not the standard OK-VQA protocol: ")
        assert "val2014, split by image, none on both sides" in dataset.note()
    with pytest.raises(DataError, match="12 questions, too few for split_by_image") as e:
        VqaJson(folder=str(vqa), split_by_image=SplitByImage(train=11, validation=3)).questions("train")
    one_line(e)


def test_vqa_json_identity_is_content_not_place(vqa: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(vqa, moved)
    first, second = (VqaJson(folder=str(folder), train_limit=4) for folder in (vqa, moved))
    assert first.identity() == second.identity()
    assert str(tmp_path) not in json.dumps(first.identity())
    assert VqaJson(folder=str(vqa), train_limit=5).identity() != first.identity()
    captions = moved / "captions.json"
    captions.write_text(captions.read_text().replace("table 10", "chair 10"))
    assert VqaJson(folder=str(moved), train_limit=4).identity() != first.identity()


def test_vqa_json_needs_images_or_captions(vqa: Path) -> None:
    (vqa / "captions.json").unlink()
    with pytest.raises(DataError, match=r"neither images nor captions. Set dataset.images") as e:
        VqaJson(folder=str(vqa)).questions("train")
    one_line(e)
    (vqa / "captions.json").write_text('{"10": "a thing"}')
    with pytest.raises(DataError, match="question 211: image 21 has neither a file nor a caption") as e:
        VqaJson(folder=str(vqa)).questions("train")
    one_line(e)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a, q: q[0].pop("question"), r"questions\[0\] \(question 305\) is not complete"),
        (lambda a, q: a[2].pop("answers"), r"annotations\[2\] \(question 215\) is not complete"),
        (lambda a, q: a[1].update(answers=[]), "question 105 has no answers"),
        (lambda a, q: a[1].update(answers=[{"answer": " "}]), "question 105 has no answers"),
        (lambda a, q: a[1].update(answers=[{"answer": None}]), "question 105.* needs answers that are texts"),
        (lambda a, q: a.append(a[1]), r"annotations\[6\] is a second one of question 105"),
        (lambda a, q: a.pop(3), "no answers to question 101 of OpenEnded_mscoco_train2014_questions.json"),
        (lambda a, q: q.append(q[0]), "question id 305 is there twice"),
        (lambda a, q: q.clear(), "no train questions"),
        (lambda a, q: (q[0].update(question_id=500), a[0].update(question_id=500)), "question id 500 is there and in"),
    ],
)
def test_vqa_json_refuses_bad_rows(vqa: Path, spoil: Callable[[Any, Any], object], message: str) -> None:
    documents = official(vqa, "train", [(q, q // 10) for q in (305, 105, 215, 101, 301, 211)])
    asked, told = documents
    spoil(documents[told]["annotations"], documents[asked]["questions"])
    for name, document in documents.items():
        (vqa / name).write_text(json.dumps(document))
    with pytest.raises(DataError, match=message) as e:
        VqaJson(folder=str(vqa)).questions("train")
    assert str(vqa) in one_line(e)


def test_vqa_json_says_where_the_json_breaks(vqa: Path) -> None:
    (vqa / "captions.json").write_text('{"10": "a thing",\n "21" "no colon"}')
    with pytest.raises(DataError, match=r"captions.json is not JSON: .* at line 2, column 7"):
        VqaJson(folder=str(vqa)).questions("train")


def test_vqa_json_refuses_two_captions_of_one_image(vqa: Path) -> None:
    captions = json.loads((vqa / "captions.json").read_text())
    (vqa / "captions.json").write_text(json.dumps({**captions, "0010": "another thing"}))
    with pytest.raises(DataError, match=r"captions.json has two captions of image 10") as e:
        VqaJson(folder=str(vqa)).questions("train")
    one_line(e)


@pytest.mark.parametrize("name", ["{image_id.__class__}", "{image_id[0]}", "{number}", "{}", "{image_id", "{0}"])
def test_image_name_holds_the_id_and_nothing_of_the_program(name: str) -> None:
    with pytest.raises(ValidationError):
        VqaJson(image_name=name)


def test_vqa_json_refuses_bad_files(vqa: Path) -> None:
    told = vqa / "mscoco_train2014_annotations.json"
    told.write_text(told.read_text()[:-40])
    with pytest.raises(DataError, match=r"mscoco_train2014_annotations.json is not JSON: .* at column") as e:
        VqaJson(folder=str(vqa)).questions("train")
    one_line(e)
    told.write_text("[]")
    with pytest.raises(DataError, match="has no list 'annotations'"):
        VqaJson(folder=str(vqa)).questions("train")
    told.unlink()
    with pytest.raises(DataError, match=r"train_annotations is to be one file .*, not none"):
        VqaJson(folder=str(vqa)).questions("train")
    with pytest.raises(DataError, match="there is no folder"):
        VqaJson(folder=str(vqa / "nowhere")).questions("train")
    with pytest.raises(DataError, match="there is no file"):
        VqaJson(folder=str(vqa), train_annotations=str(vqa / "lost.json")).questions("train")
    with pytest.raises(DataError, match="vqa_json has no train_questions"):
        VqaJson(captions=str(vqa / "captions.json")).questions("train")
    packed = vqa / "cut.json.gz"
    packed.write_bytes(gzip.compress(b"{}" * 99)[:-9])
    with pytest.raises(DataError, match=r"cut.json.gz cannot be read"):
        VqaJson(folder=str(vqa), train_annotations=str(packed)).questions("train")


def test_vqa_json_warns_when_given_files_of_one_split_share_images(vqa: Path) -> None:
    for kind, prefix in (("questions", "OpenEnded_mscoco_train2014"), ("annotations", "mscoco_train2014")):
        path = vqa / f"{prefix}_{kind}.json"
        path.write_text(path.read_text().replace("train2014", "val2014").replace('"image_id": 10', '"image_id": 99'))
    assert "with 1 images on both sides" in VqaJson(folder=str(vqa)).note()


def test_the_shipped_slice_of_okvqa() -> None:
    dataset = VqaJson(folder="okvqa-slice")
    check_dataset(dataset)
    train, validation = dataset.questions("train"), dataset.questions("validation")
    assert (len(train), len(validation), len(dataset.demonstrations())) == (4000, 1000, 4000)
    assert not {q.image.id for q in train} & {q.image.id for q in validation}
    assert all(q.image.caption and len(q.answers) == 10 for q in (*train, *validation))
    # Five people's answers, doubled.
    assert all(q.answers.count(a) % 2 == 0 for q in train for a in q.answers)
    assert "not the standard OK-VQA protocol" in dataset.note() and "none on both sides" in dataset.note()
    folder = Path(__file__).parents[3] / "plugins" / "datasets" / "leverplus_datasets" / "okvqa_slice"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1_000_000
    assert "CC BY 4.0" in (folder / "README.md").read_text()


# --- jsonl ------------------------------------------------------------------------------------------------------

ROW = {"id": "1", "question": "What is it?", "caption": "a red kite", "answers": ["kite"] * 6 + ["toy"] * 4}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, *rows: object) -> Path:
        lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def test_table_keeps_the_contract(write: Write, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"png")
    chinese = {"id": 3, "question": "这是什么", "image": "a.png", "caption": "风筝", "answers": ["风筝"] * 9 + ["鸟"]}
    train = write("train.jsonl", ROW, "", {**ROW, "id": "2", "caption": "a red kite"}, chinese)
    validation = write("validation.jsonl", {**ROW, "id": "v", "caption": "a blue kite", "image_id": 7})
    dataset = Table(train=str(train), validation=str(validation))
    check_dataset(dataset)
    first, second, third = dataset.questions("train")
    assert first.image.id == second.image.id, "the same caption counts as the same picture"
    assert (third.id, third.text, third.answers[-1]) == ("3", "这是什么", "鸟")
    assert third.image.id == "a.png" and third.image.path == str((tmp_path / "a.png").resolve())
    assert dataset.demonstrations()[2].answer == "风筝"
    assert dataset.questions("validation")[0].image.id == "7"
    assert dataset.note() == ""


def test_table_both_splits_in_one_file(write: Write) -> None:
    path = write("all.jsonl", {**ROW, "split": "train"}, {**ROW, "id": "2", "caption": "b", "split": "validation"})
    dataset = Table(path=str(path))
    check_dataset(dataset)
    assert [q.id for q in dataset.questions("validation")] == ["2"]


def test_table_few_answers_can_score_and_are_noted(write: Write) -> None:
    bare = {k: v for k, v in ROW.items() if k != "answers"}
    train = write("train.jsonl", {**bare, "answer": "kite"}, {**bare, "id": "2", "answers": ["kite", "toy", 2]})
    dataset = Table(train=str(train), validation=str(write("v.jsonl", {**ROW, "id": "v"})))
    one, three = dataset.questions("train")
    assert len(one.answers) == 10 and accuracy("a kite", one.answers) == 1.0
    assert len(three.answers) == 12 and accuracy("two", three.answers) == 1.0
    assert dataset.note().startswith("2 questions had 5 answers or fewer")


def test_table_identity_is_content_not_place(write: Write, tmp_path: Path) -> None:
    write("train.jsonl", ROW), write("v.jsonl", {**ROW, "id": "v"})
    shutil.copytree(tmp_path, tmp_path / "moved")
    here, there = (
        Table(train=str(d / "train.jsonl"), validation=str(d / "v.jsonl")) for d in (tmp_path, tmp_path / "moved")
    )
    assert here.identity() == there.identity()
    write("moved/v.jsonl", {**ROW, "id": "w"})
    assert Table(**there.model_dump()).identity() != here.identity()


def test_table_null_is_as_absent_and_numbers_are_texts(write: Write) -> None:
    rows = [
        {**ROW, "image_id": None, "answers": None, "answer": 3.0},
        {**ROW, "id": "2", "caption": "b", "image_id": None},
    ]
    dataset = Table(train=str(write("t.jsonl", *rows)), validation=str(write("v.jsonl", {**ROW, "id": "v"})))
    first, second = dataset.questions("train")
    assert first.image.id != second.image.id and set(first.answers) == {"3"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"id": "2", ', r"train.jsonl:2 is not JSON: .* at column"),
        ("[1]", "train.jsonl:2 is not a JSON object"),
        ({**ROW}, "train.jsonl:2: id 1 is already at .*train.jsonl:1"),
        ({**ROW, "id": None}, "train.jsonl:2: no id"),
        ({**ROW, "id": "2", "question": ""}, r"train.jsonl:2 \(id 2\): no question"),
        ({**ROW, "id": "2", "answers": []}, r"train.jsonl:2 \(id 2\): no answers"),
        ({**ROW, "id": "2", "answers": ["", " "]}, r"train.jsonl:2 \(id 2\): no answers"),
        ({"id": "2", "question": "x", "caption": "y"}, r"train.jsonl:2 \(id 2\): no answers"),
        ({**ROW, "id": "2", "answers": "kite"}, r"train.jsonl:2 \(id 2\): answers must be a list"),
        ({**ROW, "id": "2", "answers": [{}]}, r"train.jsonl:2 \(id 2\): answers must be a list"),
        ({**ROW, "id": "2", "answers": [float("nan")]}, "train.jsonl:2 is not JSON: NaN is not JSON"),
        ({**ROW, "id": "2", "answers": ["kite", True]}, r"train.jsonl:2 \(id 2\): answers must be a list"),
        ({**ROW, "id": "2", "caption": ""}, "neither image nor caption"),
        ({**ROW, "id": "2", "caption": 4}, "caption must be a text"),
        ({**ROW, "id": "2", "image": "no.png"}, r"train.jsonl:2 \(id 2\): there is no image file .*no.png"),
        ({**ROW, "id": "2", "split": "validation"}, "split is 'validation'. It must be train in this file"),
        ({**ROW, "id": "2", "split": ["train"]}, r"split is '\['train'\]'. It must be train in this file"),
    ],
)
def test_table_refuses_bad_rows(write: Write, row: object, message: str) -> None:
    dataset = Table(train=str(write("train.jsonl", ROW, row)), validation=str(write("v.jsonl", {**ROW, "id": "v"})))
    with pytest.raises(DataError, match=message) as e:
        dataset.questions("train")
    one_line(e)


def test_table_refuses_bad_files(write: Write, tmp_path: Path) -> None:
    train = str(write("train.jsonl", ROW))
    with pytest.raises(DataError, match=r"was given train. Set dataset.train and dataset.validation"):
        Table(train=train).questions("train")
    with pytest.raises(DataError, match=r"there is no file .*lost.jsonl"):
        Table(train=train, validation=str(tmp_path / "lost.jsonl")).questions("train")
    with pytest.raises(DataError, match=r"v.jsonl has no validation questions"):
        Table(train=train, validation=str(write("v.jsonl"))).questions("train")
    with pytest.raises(DataError, match=r"id 1 is already at .*train.jsonl:1"):
        Table(train=train, validation=str(write("v.jsonl", ROW))).questions("train")
    (tmp_path / "latin.jsonl").write_bytes('{"id": "é"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"latin.jsonl is not UTF-8 text: byte 8"):
        Table(train=train, validation=str(tmp_path / "latin.jsonl")).questions("train")


# --- one picture is one image -----------------------------------------------------------------------------------

PICTURE = {"id": "1", "question": "What is it?", "answers": ["kite"] * 10}


def test_a_file_is_one_image_however_its_path_is_written(write: Write, tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "a.png").write_bytes(b"png")
    (tmp_path / "link.png").symlink_to(tmp_path / "img" / "a.png")
    written = ("img/a.png", "./img/a.png", str(tmp_path / "img" / "a.png"), "img/../img/a.png", "link.png")
    rows = [{**PICTURE, "id": str(i), "image": path} for i, path in enumerate(written)]
    dataset = Table(train=str(write("t.jsonl", *rows)), validation=str(write("v.jsonl", {**ROW, "id": "v"})))
    assert {q.image.id for q in dataset.questions("train")} == {"img/a.png"}


def test_equal_names_in_two_folders_are_two_images(write: Write, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.png").write_bytes(split.encode())
        write(f"{split}/rows.jsonl", {**PICTURE, "id": split, "image": "a.png"})
    dataset = Table(**{split: str(tmp_path / split / "rows.jsonl") for split in ("train", "validation")})
    check_dataset(dataset)
    assert [dataset.questions(split)[0].image.id for split in ("train", "validation")] == [
        "train/a.png", "validation/a.png",
    ]  # fmt: skip


def test_table_reads_images_from_a_folder_of_their_own(write: Write, tmp_path: Path) -> None:
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    (tmp_path / "photos" / "deep" / "a.png").write_bytes(b"png")
    train = write("rows/t.jsonl", {**PICTURE, "image": "deep/a.png"})
    validation = write("rows/v.jsonl", {**ROW, "id": "v"})
    dataset = Table(train=str(train), validation=str(validation), images=str(tmp_path / "photos"))
    assert dataset.questions("train")[0].image.id == "deep/a.png"
    with pytest.raises(DataError, match=r"there is no folder .*lost. Set dataset.images"):
        Table(train=str(train), validation=str(validation), images=str(tmp_path / "lost")).questions("train")


@pytest.mark.parametrize("way", ["..", "absolute", "link"])
def test_images_outside_of_their_folder_need_leave(write: Write, tmp_path: Path, way: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"png")
    (tmp_path / "rows").mkdir()
    if way == "link":
        (tmp_path / "rows" / "a.png").symlink_to(tmp_path / "secret.png")
    path = {"..": "../secret.png", "absolute": str(tmp_path / "secret.png"), "link": "a.png"}[way]
    settings = {
        "train": str(write("rows/t.jsonl", {**PICTURE, "image": path})),
        "validation": str(write("rows/v.jsonl", {**ROW, "id": "v"})),
    }
    with pytest.raises(
        DataError, match=r"\(id 1\): image .* is the file .*secret.png, which is not in .*rows. Set"
    ) as e:
        Table(**settings).questions("train")
    one_line(e)
    allowed = Table(**settings, allow_outside=True).questions("train")[0].image
    assert allowed.path == str(tmp_path / "secret.png")


def test_photos_of_vqa_json_stay_in_their_folder_too(vqa: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "train2014").mkdir(parents=True)
    for image_id in json.loads((vqa / "captions.json").read_text()):
        (tmp_path / f"{image_id}.jpg").write_bytes(b"jpg")
    settings: dict[str, Any] = {"folder": str(vqa), "images": str(photos), "image_name": "../{image_id}.jpg"}
    with pytest.raises(DataError, match=r"question 101: image .*10.jpg is the file .*10.jpg, which is not in .*photos"):
        VqaJson(**settings).questions("train")
    assert VqaJson(**settings, allow_outside=True).questions("train")[0].image.path == str(tmp_path / "10.jpg")


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("data:image/png;base64," + "A" * 5000, r"the picture in the row is no picture of a format that is read"),
        ("iVBORw0KGgo" * 500, r"the picture in the row is no picture of a format that is read"),
        ("data:image/png;base64,A", "image is no picture: its base64 is damaged"),
        ("data:image/png", "image is no picture: it is a data URI without data"),
        ("a/" * 3000, r"image is a text of 6,000 characters"),
        ("https://example.org/a.png", r"image is an address \(https://example.org/a.png\), not a file"),
        ("a\0b.png", r"image 'a\\x00b.png' cannot be the name of a file"),
    ],
)
def test_an_image_that_is_no_path_is_told_in_one_line(write: Write, image: str, says: str) -> None:
    train = write("t.jsonl", {**PICTURE, "image": image})
    dataset = Table(train=str(train), validation=str(write("v.jsonl", {**ROW, "id": "v"})))
    with pytest.raises(DataError, match=rf"t.jsonl:1 \(id 1\): {says}") as e:
        dataset.questions("train")
    assert len(one_line(e)) < 400


def test_a_number_and_its_text_are_one_id(write: Write) -> None:
    ids = [7, 7.0, "7"]
    rows = [{**ROW, "id": f"{i}", "caption": f"c{i}", "image_id": image_id} for i, image_id in enumerate(ids)]
    dataset = Table(train=str(write("t.jsonl", *rows[:2])), validation=str(write("v.jsonl", rows[2])))
    assert {q.image.id for q in (*dataset.questions("train"), *dataset.questions("validation"))} == {"7"}
    zero = Table(
        train=str(write("t.jsonl", {**ROW, "image_id": 0})),
        validation=str(write("v.jsonl", {**ROW, "id": 5.0, "image_id": -0.0})),
    )
    assert zero.questions("train")[0].image.id == zero.questions("validation")[0].image.id == "0"
    assert zero.questions("validation")[0].id == "5"
    twice = Table(train=str(write("t.jsonl", {**ROW, "id": 5}, {**ROW, "id": 5.0})), validation=zero.validation)
    with pytest.raises(DataError, match=r"t.jsonl:2: id 5 is already at .*t.jsonl:1"):
        twice.questions("train")


@pytest.mark.parametrize("value", [0.5, True, [7], {"id": 7}, "", " ", "x" * 191])
def test_what_is_no_id_is_refused(write: Write, value: object) -> None:
    validation = str(write("v.jsonl", {**ROW, "id": "v"}))
    for key, says in (("id", "t.jsonl:1: no id"), ("image_id", r"t.jsonl:1 \(id 1\): image_id is no id")):
        with pytest.raises(DataError, match=says) as e:
            Table(train=str(write("t.jsonl", {**ROW, key: value})), validation=validation).questions("train")
        one_line(e)


def test_an_empty_list_of_answers_is_as_absent(write: Write) -> None:
    rows = [{**ROW, "answers": [], "answer": "sun"}, {**ROW, "id": "2", "answers": None, "answer": "rain"}]
    dataset = Table(train=str(write("t.jsonl", *rows)), validation=str(write("v.jsonl", {**ROW, "id": "v"})))
    assert [q.answers[0] for q in dataset.questions("train")] == ["sun", "rain"]


def test_padded_image_ids_are_the_numbers_that_they_write(vqa: Path, tmp_path: Path) -> None:
    """The official files have numbers; others write the same ids as texts, and one photo must not become two."""
    captions = json.loads((vqa / "captions.json").read_text())
    (vqa / "captions.json").write_text(json.dumps({f"{int(k):012d}": text for k, text in captions.items()}))
    expected = VqaJson(folder=str(vqa)).questions("train")
    for name in ("OpenEnded_mscoco_train2014_questions.json", "mscoco_train2014_annotations.json"):
        document = json.loads((vqa / name).read_text())
        for row in document["annotations" if "annotations" in name else "questions"]:
            row["image_id"] = f"{row['image_id']:012d}"
        (vqa / name).write_text(json.dumps(document))
    assert VqaJson(folder=str(vqa)).questions("train") == expected
    photos = tmp_path / "photos"
    photos.mkdir()
    for image_id in map(int, captions):
        for subtype in ("train2014", "val2014"):
            (photos / f"COCO_{subtype}_{image_id:012d}.jpg").write_bytes(b"jpg")
        for name in (f"{image_id:012d}.jpg", f"{image_id}.jpg"):
            (photos / name).write_bytes(b"jpg")
    for pattern, name in (
        ("COCO_{subtype}_{image_id:012d}.jpg", "COCO_train2014_000000000010.jpg"),
        ("{image_id}.jpg", "000000000010.jpg"),
    ):
        first = VqaJson(folder=str(vqa), images=str(photos), image_name=pattern).questions("train")[0].image
        assert (first.id, Path(str(first.path)).name) == ("10", name)


def test_a_pattern_of_names_cannot_ask_for_gigabytes() -> None:
    with pytest.raises(ValueError, match="a width of more than 999"):
        VqaJson(image_name="{image_id:09999999999d}.jpg")


def test_texts_are_image_ids_as_in_textvqa(vqa: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for split in ("train", "val"):
        for prefix, key in ((f"OpenEnded_mscoco_{split}2014_", "questions"), (f"mscoco_{split}2014_", "annotations")):
            document = json.loads((vqa / f"{prefix}{key}.json").read_text())
            for row in document[key]:
                row["image_id"] = f"00ab{row['image_id']}"
                (photos / f"{row['image_id']}.jpg").write_bytes(b"jpg")
            (vqa / f"{prefix}{key}.json").write_text(json.dumps(document))
    settings = {"folder": str(vqa), "images": str(photos)}
    image = VqaJson(**settings, image_name="{image_id}.jpg").questions("train")[0].image
    assert (image.id, image.path) == ("00ab10", str(photos / "00ab10.jpg"))
    with pytest.raises(DataError, match=r"no file name from image_name 'COCO_.*' and image id 00ab10"):
        VqaJson(**settings).questions("train")


@pytest.mark.parametrize("answer", [None, True, {"answer": "kite"}, float("nan"), ["kite"]])
def test_vqa_json_refuses_answers_that_are_none_with_their_question(vqa: Path, answer: object) -> None:
    told = vqa / "mscoco_train2014_annotations.json"
    document = json.loads(told.read_text())
    document["annotations"][2]["answers"][4]["answer"] = answer
    told.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"annotations.json.*(question 215|NaN)") as e:
        VqaJson(folder=str(vqa)).questions("train")
    one_line(e)


def test_both_annotations_of_one_question_are_named(vqa: Path) -> None:
    told = vqa / "mscoco_train2014_annotations.json"
    document = json.loads(told.read_text())
    document["annotations"].append({**document["annotations"][1], "question_id": 105.0})
    told.write_text(json.dumps(document))
    with pytest.raises(
        DataError, match=r"annotations\[6\] is a second one of question 105. The first is annotations\[1\]"
    ):
        VqaJson(folder=str(vqa)).questions("train")


def test_annotations_about_another_image_are_refused(vqa: Path) -> None:
    told = vqa / "mscoco_train2014_annotations.json"
    told.write_text(told.read_text().replace('"image_id": 30', '"image_id": 31'))
    with pytest.raises(DataError, match=r"annotations\[0\] is of question 305 about image 31; in .* about image 30"):
        VqaJson(folder=str(vqa)).questions("train")


@pytest.mark.parametrize(
    ("document", "known"),
    [
        ([{"question_id": "a", "image_id": 1, "question": "?", "direct_answers": ["x"], "rationales": []}], "A-OKVQA"),
        ([{"image": "a.jpg", "question": "?", "answers": [], "answer_type": "other", "answerable": 1}], "VizWiz"),
        ({"1": {"imageId": "2", "question": "?", "answer": "yes"}}, "GQA"),
        ({"data": [{"image_id": "a", "question": "?", "answers": [], "image_classes": []}]}, "TextVQA"),
    ],
)
def test_files_of_other_datasets_are_known_and_the_way_to_convert_them_is_told(
    vqa: Path, document: object, known: str
) -> None:
    (vqa / "mscoco_train2014_annotations.json").write_text(json.dumps(document))
    with pytest.raises(
        DataError, match=rf"has no list 'annotations': it looks like a file of {known}. The dataset table"
    ) as e:
        VqaJson(folder=str(vqa)).questions("train")
    one_line(e)


def test_a_parquet_file_is_known(write: Write, tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1\x15\x04\xff")
    with pytest.raises(DataError, match=r"t.parquet cannot be read as Parquet: .*complete"):
        Table(train=str(tmp_path / "t.parquet"), validation=str(write("v.jsonl", ROW))).questions("train")


def test_the_identity_follows_the_content_of_pictures(write: Write, tmp_path: Path) -> None:
    """Also where size and time of change stay what they were."""
    picture = tmp_path / "a.png"
    picture.write_bytes(b"red")
    settings = {
        "train": str(write("t.jsonl", {**PICTURE, "image": "a.png"})),
        "validation": str(write("v.jsonl", {**ROW, "id": "v"})),
    }
    stamp, before = picture.stat(), Table(**settings).identity()
    assert Table(**settings).identity() == before
    picture.write_bytes(b"sea")
    os.utime(picture, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert (picture.stat().st_size, picture.stat().st_mtime_ns) == (stamp.st_size, stamp.st_mtime_ns)
    assert Table(**settings).identity() != before
