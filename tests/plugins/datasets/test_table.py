"""`table`: one set of rows reads the same from every kind of file, and pictures come from files, rows and the web."""

from __future__ import annotations

import base64
import contextlib
import csv
import gzip
import http.server
import io
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from leverplus_core import Catalog, DataError
from leverplus_core.testing import check_dataset
from leverplus_datasets import pictures
from leverplus_datasets.table import Table

ROWS: list[dict[str, Any]] = [
    {"qid": 1, "query": 'What is "this"?', "img": "a.png", "said": ["rain", "rain", "sun"], "part": "train"},
    {"qid": 2, "query": "Two\nlines, and é?", "img": "b.png", "said": ["sun"], "part": "val"},
]
COLUMNS = {"id": "qid", "question": "query", "image": "img", "answers": "said", "split": "part"}


def picture(color: str = "red", size: int = 8) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (size, size), color).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEVERPLUS_CACHE", str(tmp_path / "cache"))
    for name, color in (("a.png", "red"), ("b.png", "blue")):
        (tmp_path / name).write_bytes(picture(color))


def _csv(rows: list[dict[str, Any]], separator: str) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows({key: "|".join(v) if isinstance(v, list) else v for key, v in row.items()} for row in rows)
    return out.getvalue()


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    name = file.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), file)
        return file
    text = {
        ".jsonl": lambda: "\n\n".join(json.dumps(row) for row in rows),
        ".json": lambda: json.dumps(rows),
        ".csv": lambda: "\ufeff" + _csv(rows, ","),
        ".tsv": lambda: _csv(rows, "\t"),
    }[Path(name).suffix]()
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return file


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet", "csv.gz", "jsonl.gz"])
def test_the_same_rows_are_the_same_questions_in_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    dataset = Table(path=str(write(tmp_path / f"rows.{kind}", ROWS)), columns=COLUMNS)
    check_dataset(dataset)
    [train], [validation] = dataset.questions("train"), dataset.questions("validation")
    assert (train.id, train.text, train.image.id) == ("1", 'What is "this"?', "a.png")
    assert train.answers == ("rain", "rain", "sun") * 4, "repeated up to ten and more"
    assert (validation.id, validation.text, set(validation.answers)) == ("2", "Two\nlines, and é?", {"sun"})
    assert Table(path=dataset.path, columns=COLUMNS).identity() == dataset.identity()
    assert Table(path=dataset.path, columns={**COLUMNS, "id": "#"}).identity() != dataset.identity()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,question,id\n", r"rows.csv names the column 'id' twice"),
        ("", r"rows.csv is empty"),
        ("id,question,caption,answer,split\n1,a?,c,x,train\n2,b?,c\n", r"rows.csv:3 has 3 cells, and the first line 5"),
        ('id,question,caption,answer,split\n1,"a\nb?",c,x,train\n1,b?,c,x,train', r"rows.csv:4: id 1 is .*rows.csv:2"),
        ('id,question\n1,"open', r"rows.csv:2 is not CSV: unexpected end of data"),
        ("id,question,caption,answer,split\n1,a?,c,,train\n", r"rows.csv:2 \(id 1\): no answers. A row needs"),
        ("id,question,caption,answer,split\n1,a?,c,x,other\n", r"rows.csv:2: split is 'other'"),
        ("id,question,caption,answer\n1,a?,c,x\n", r"set dataset.validation_share=0.3"),
    ],
)
def test_what_cannot_be_read_of_a_csv_is_told_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "rows.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=says):
        Table(path=str(tmp_path / "rows.csv")).questions("train")


def test_a_file_of_no_known_name_and_a_damaged_one_are_told(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_bytes(b"x")
    with pytest.raises(DataError, match=r"rows.xlsx has no name that says what it is. It must end in .jsonl"):
        Table(path=str(tmp_path / "rows.xlsx")).questions("train")
    (tmp_path / "rows.csv").write_bytes(b"PAR1\x15\x04")
    with pytest.raises(DataError, match=r"rows.csv is a Parquet file"):
        Table(path=str(tmp_path / "rows.csv")).questions("train")
    (tmp_path / "rows.json").write_text(json.dumps({"annotations": []}))
    with pytest.raises(DataError, match=r"rows.json is no list of rows. Its dataset is vqa_json"):
        Table(path=str(tmp_path / "rows.json")).questions("train")


def test_a_json_document_on_one_long_line_is_read(tmp_path: Path) -> None:
    """As GQA has it; only a line that is a row is bounded."""
    row = {"question": "a?", "caption": "c", "answer": "x", "note": "n" * (1 << 26)}
    document = {"1": {**row, "split": "train"}, "2": {**row, "note": "", "split": "validation"}}
    (tmp_path / "rows.json").write_text(json.dumps(document))
    assert [q.id for q in Table(path=str(tmp_path / "rows.json")).questions("train")] == ["1"]


def test_answers_of_a_cell_are_a_list_in_json_or_divided_by_the_separator(tmp_path: Path) -> None:
    head = "id,question,caption,answers,split\n"
    (tmp_path / "rows.csv").write_text(f'{head}1,a?,c,"[""x"", 7]",train\n2,b?,d,x;y z ;,validation\n')
    dataset = Table(path=str(tmp_path / "rows.csv"), separator=";")
    assert set(dataset.questions("train")[0].answers) == {"x", "7"}
    assert set(dataset.questions("validation")[0].answers) == {"x", "y z"}


def test_one_file_without_splits_is_divided_by_picture(tmp_path: Path) -> None:
    rows = [{"question": f"{i}?", "image": f"{i % 10}.png", "answer": "x"} for i in range(40)]
    for i in range(10):
        (tmp_path / f"{i}.png").write_bytes(picture("red", 8 + min(i, 8)))  # the last two are the same picture
    settings: dict[str, Any] = {"path": str(write(tmp_path / "r.jsonl", rows)), "columns": {"id": "#"}}
    dataset = Table(**settings, validation_share=0.3)
    check_dataset(dataset)
    train, validation = dataset.questions("train"), dataset.questions("validation")
    assert [q.id for q in (*train, *validation)] == sorted(
        (q.id for q in (*train, *validation)), key=_place(validation)
    )
    images = {q.image.id for q in validation}
    assert not images & {q.image.id for q in train} and ("8.png" in images) == ("9.png" in images)
    assert len(images - {"9.png"}) == 3, "0.3 of nine pictures, rounded"
    assert Table(**settings, validation_share=0.3).questions("train") == train
    assert Table(**settings, validation_share=0.3, seed=1).questions("train") != train
    assert "validation questions are those about 30% of the pictures, drawn with seed 0" in dataset.note()


def _place(validation: Any) -> Callable[[str], tuple[bool, int]]:
    last = {q.id for q in validation}
    return lambda key: (key in last, int(key.removeprefix("path-")))


OTHERS: Mapping[str, tuple[Any, dict[str, Any]]] = {
    "aokvqa_v1p0_train.json": (
        [{"question_id": "a", "image_id": 42, "question": "?", "direct_answers": ["x", "y"], "rationales": []}],
        {"columns": {"id": "question_id", "image": "image_id", "answers": "direct_answers"},
         "image_name": "{image:012d}.jpg"},
    ),
    "vizwiz.json": (
        [{"image": "000000000042.jpg", "question": "?", "answers": [{"answer": "x"}, {"answer": "y"}]}],
        {"columns": {"id": "#"}},
    ),
    "gqa.json": (
        {"a": {"imageId": "000000000042", "question": "?", "answer": "x"}},
        {"columns": {"image": "imageId"}, "image_name": "{image}.jpg"},
    ),
    "TextVQA_0.5.1_train.json": (
        {"data": [{"question_id": 1, "image_id": "000000000042", "question": "?", "answers": ["x"]}]},
        {"columns": {"id": "question_id", "image": "image_id"}, "image_name": "{image}.jpg"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_files_of_other_data_sets_are_read_as_they_are(name: str, tmp_path: Path) -> None:
    document, settings = OTHERS[name]
    (tmp_path / name).write_text(json.dumps(document))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "000000000042.jpg").write_bytes(picture())
    (tmp_path / "v.jsonl").write_text(json.dumps({"id": "v", "question": "?", "caption": "c", "answer": "x"}))
    own = {"caption": "c", "image": None, "answer": "x"}
    validation = {**own, **{settings["columns"].get(k, k): v for k, v in (("id", "v"), ("question", "?"))}}
    (tmp_path / "v.jsonl").write_text(json.dumps(validation))
    dataset = Table(
        train=str(tmp_path / name), validation=str(tmp_path / "v.jsonl"), images=str(tmp_path / "photos"), **settings
    )
    [question] = dataset.questions("train")
    assert question.image.path == str(tmp_path / "photos" / "000000000042.jpg") and question.answers[0] == "x"


def test_a_pattern_of_image_names_must_fit_the_images(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"must hold \{image\}"):
        Table(image_name="a.png")
    file = write(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(DataError, match=r"no file name from image_name '\{image:012d\}.png' and image a.png"):
        Table(path=str(file), columns=COLUMNS, image_name="{image:012d}.png").questions("train")
    with pytest.raises(DataError, match=r"there is no image file .*a.png.jpg. dataset.images, the folder, is not set, "
                                        r"dataset.image_name is '\{image\}.jpg'; the column is \"img\""):  # fmt: skip
        Table(path=str(file), columns=COLUMNS, image_name="{image}.jpg").questions("train")


# --- pictures in the rows ---


def test_bytes_in_rows_are_pictures_and_equal_bytes_are_one(tmp_path: Path) -> None:
    red, blue = picture("red", 64), picture("blue", 64)
    text = base64.b64encode(red).decode()
    rows = {
        "t.parquet": [{"image": {"bytes": red, "path": None}}, {"image": {"bytes": None, "path": "a.png"}}],
        "t.jsonl": [{"image": text}, {"image": f"data:image/png;base64,{text}"}],
    }
    last = {
        "id": "v",
        "question": "?",
        "answer": "x",
        "image": f"data:image/png;base64,{base64.b64encode(blue).decode()}",
    }
    validation = str(write(tmp_path / "v.jsonl", [last]))
    images = {}
    for name, given in rows.items():
        full = [{"id": f"{name}{i}", "question": "?", "answer": "x", **row} for i, row in enumerate(given)]
        dataset = Table(train=str(write(tmp_path / name, full)), validation=validation)
        check_dataset(dataset)
        images[name] = [q.image for q in dataset.questions("train")]
    stored = images["t.parquet"][0]
    assert stored == images["t.jsonl"][0] == images["t.jsonl"][1] and stored.id.startswith("picture-")
    assert stored.path is not None and Path(stored.path).read_bytes() == red
    assert images["t.parquet"][1].path == str(tmp_path / "a.png")


# --- pictures on the web ---


class _Site(http.server.BaseHTTPRequestHandler):
    asked: list[str]
    answers: dict[str, tuple[int, dict[str, str], bytes]]

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        status, headers, body = self.answers.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[tuple[str, type[_Site]]]:
    handler = type("Site", (_Site,), {"asked": [], "answers": {}})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()
    thread.join()


def _about(tmp_path: Path, address: str, **settings: Any) -> Table:
    rows = [{"id": "1", "question": "?", "image": address, "answer": "x", "split": "train"},
            {"id": "2", "question": "?", "caption": "c", "answer": "x", "split": "validation"}]  # fmt: skip
    return Table(path=str(write(tmp_path / "web.jsonl", rows)), **settings)


def test_an_address_is_fetched_once_and_only_where_it_is_allowed(site: Any, tmp_path: Path) -> None:
    address, handler = site
    handler.answers = {
        "/p%20q.png?x=1": (200, {}, picture("green")),
        "/moved": (302, {"Location": "/p%20q.png?x=1"}, b""),
    }
    for path in ("/p q.png?x=1", "/moved"):
        with pytest.raises(DataError, match=r"image is an address .*dataset.download=true"):
            _about(tmp_path, address + path).questions("train")
        with pytest.raises(DataError, match=r"127.0.0.1 is 127.0.0.1, an address of this machine .*private_addresses"):
            _about(tmp_path, address + path, download=True).questions("train")
    assert handler.asked == []
    for _ in range(2):
        [question] = _about(tmp_path, address + "/moved", download=True, private_addresses=True).questions("train")
        assert Path(str(question.image.path)).read_bytes() == picture("green")
    assert handler.asked == ["/moved", "/p%20q.png?x=1"], "the second time it is in the cache"


def test_what_a_server_answers_is_checked_before_it_is_kept(site: Any, tmp_path: Path) -> None:
    address, handler = site
    handler.answers = {
        "/page": (200, {}, b"<html>"), "/large": (200, {}, b"x" * 2_000_001), "/gone": (410, {}, b""),
        "/round": (302, {"Location": "/round"}, b""), "/file": (302, {"Location": "file:///etc/passwd"}, b""),
    }  # fmt: skip
    says = {
        "/page": "is no picture of a format that is read", "/large": "it has more than 2 MB",
        "/gone": "the server answers 410 Gone", "/round": "it leads on more than 5 times",
        "/file": "not an address that is fetched",
    }  # fmt: skip
    for path, text in says.items():
        with pytest.raises(DataError, match=rf"web.jsonl:1 \(id 1\): .*{text}") as e:
            _about(tmp_path, address + path, download=True, private_addresses=True, max_megabytes=2).questions("train")
        assert "\n" not in str(e.value)
    assert not list((tmp_path / "cache").rglob("web/*/*"))


def test_a_picture_that_was_cut_on_the_way_is_not_kept(site: Any, tmp_path: Path) -> None:
    """Its header is whole, so that only the announced length tells."""
    address, handler = site
    whole = picture("red")
    handler.answers = {"/cut.png": (200, {"Content-Length": str(len(whole) + 9)}, whole)}
    with pytest.raises(DataError, match=r"cut.png cannot be fetched: the connection ended 9 bytes early"):
        _about(tmp_path, address + "/cut.png", download=True, private_addresses=True).questions("train")
    assert not list((tmp_path / "cache").rglob("web/*/*"))


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: "], ids=["body", "header"])
def test_a_server_that_sends_a_byte_at_a_time_is_left(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "LONGEST", 0.3)
    done = threading.Event()

    def drip(server: socket.socket) -> None:
        with server.accept()[0] as client, contextlib.suppress(OSError):
            client.sendall(start)
            while not done.wait(0.05):
                client.sendall(b"a")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,), daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.png"
        try:
            with pytest.raises(pictures._Refused, match=r"it takes over 0.3 s"):
                pictures._get(address, 100, private=True)
        finally:
            done.set()
            thread.join()


@pytest.mark.parametrize(
    "place",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fe80::1%eth0", "::ffff:192.168.0.1", "0.0.0.0", "224.0.0.1",
     "64:ff9b::7f00:1", "2002:a00:1::"],
)  # fmt: skip
def test_addresses_of_the_machine_and_its_network_are_not_public(place: str) -> None:
    assert not pictures._is_public(place) and pictures._is_public("93.184.216.34")


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path, site: Any) -> None:
    with pytest.raises(DataError, match=r"http://127.0.0.1:1/a.png cannot be fetched: Connection refused"):
        _about(tmp_path, "http://127.0.0.1:1/a.png", download=True, private_addresses=True).questions("train")
    with pytest.raises(DataError, match=r"not an address that is fetched"):
        _about(tmp_path, "http://user:word@127.0.0.1/a.png", download=True).questions("train")


def test_the_part_is_found_by_name(catalog: Catalog) -> None:
    assert catalog.part_class("dataset", "table") is Table
