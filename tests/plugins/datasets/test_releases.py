"""Official releases: what a check says about a copy, and downloads that are complete or absent."""

from __future__ import annotations

import gzip
import io
import json
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

import leverplus_datasets
from leverplus_core.errors import DataError
from leverplus_datasets import data_download, releases
from leverplus_datasets.download import download, unpack
from leverplus_datasets.release_copy import Finding, check, download_release, photo_places
from leverplus_datasets.releases import RELEASES, Release, find_release
from leverplus_datasets.vqa_json import VqaJson

SLICE = Path(leverplus_datasets.__file__).parent / "okvqa_slice"
QUESTIONS = 40


def _rows(side: str, kind: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(gzip.decompress((SLICE / f"slice_{side}_{kind}.json.gz").read_bytes()))
    return {**document, kind: document[kind][:QUESTIONS]}


@pytest.fixture
def known() -> Release:
    """OK-VQA cut to the first questions of the packaged slice, whose photos are all of val2014."""
    train, validation = RELEASES["okvqa"].splits
    photos = validation.photos
    return replace(
        RELEASES["okvqa"],
        splits=tuple(replace(split, count=QUESTIONS, photos=photos) for split in (train, validation)),
    )


@pytest.fixture
def copy(known: Release, tmp_path: Path) -> tuple[Path, Path]:
    """A complete copy: the folder of the JSON files and the folder of the photos."""
    folder, images = tmp_path / "okvqa", tmp_path / "coco"
    (images / "val2014").mkdir(parents=True)
    folder.mkdir()
    for split, side in zip(known.splits, ("train", "val"), strict=True):
        for kind, file in (("questions", split.questions), ("annotations", split.annotations)):
            (folder / file.name).write_text(json.dumps(_rows(side, kind)))
        for row in _rows(side, "questions")["questions"]:
            Image.new("RGB", (8, 6)).save(photo_places(split.photos.name, images, row["image_id"])[0])
    return folder, images


def _of(findings: list[Finding], what: str) -> Finding:
    return next(f for f in findings if f.what == what)


def test_what_is_known_of_the_releases() -> None:
    counts = {name: [(s.count, s.images) for s in r.splits] for name, r in RELEASES.items()}
    assert counts["okvqa"] == [(9_009, 8_998), (5_046, 5_033)]
    assert counts["vqav2"] == [(443_757, 82_783), (214_354, 40_504)]
    for known in RELEASES.values():
        for split in known.splits:
            side = "train" if split.name == "train" else "val"  # what vqa_json looks for
            assert re.fullmatch(f".*{side}.*questions.json", split.questions.name)
            assert re.fullmatch(f".*{side}.*annotations.json", split.annotations.name)
    with pytest.raises(DataError, match="Did you mean 'okvqa'"):
        find_release("ok-vqa")


def test_a_complete_copy_is_ok_and_can_be_read(known: Release, copy: tuple[Path, Path]) -> None:
    folder, images = copy
    findings = check(known, folder, images)
    assert {f.state for f in findings} == {"ok"} and len(findings) == 8
    dataset = VqaJson(folder=str(folder), images=str(images))
    assert len(dataset.questions("train")) == len(dataset.questions("validation")) == QUESTIONS


def test_a_gzipped_copy_is_ok(known: Release, copy: tuple[Path, Path]) -> None:
    folder, images = copy
    for path in list(folder.iterdir()):
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert {f.state for f in check(known, folder, images)} == {"ok"}


TRAIN_QUESTIONS = "OpenEnded_mscoco_train2014_questions.json"
TRAIN_ANNOTATIONS = "mscoco_train2014_annotations.json"


@pytest.mark.parametrize(
    ("spoil", "what", "state", "says"),
    [
        (lambda d: d.update(questions=d["questions"][1:]), TRAIN_QUESTIONS, "wrong", "39 questions, not 40"),
        (lambda d: d["questions"][0].pop("image_id"), TRAIN_QUESTIONS, "wrong", "no list 'questions' of rows"),
        (lambda d: d["questions"][3].update(question_id=1), "train ids", "wrong", "2 ids are in one file only"),
        (lambda d: d["questions"].__setitem__(1, d["questions"][0]), "train ids", "wrong", "1 questions repeat an id"),
        (lambda d: d["questions"][5].update(image_id=7), "train ids", "wrong", "1 questions have another image"),
    ],
)
def test_spoilt_questions(
    known: Release, copy: tuple[Path, Path], spoil: Any, what: str, state: str, says: str
) -> None:
    folder, images = copy
    document = json.loads((folder / TRAIN_QUESTIONS).read_text())
    spoil(document)
    (folder / TRAIN_QUESTIONS).write_text(json.dumps(document))
    finding = _of(check(known, folder, images), what)
    assert finding.state == state and says in finding.detail and finding.hint


def test_too_few_answers(known: Release, copy: tuple[Path, Path]) -> None:
    folder, images = copy
    document = json.loads((folder / TRAIN_ANNOTATIONS).read_text())
    document["annotations"][2]["answers"].pop()
    document["annotations"][3]["answers"] = [{"answer": " "}] * 10
    (folder / TRAIN_ANNOTATIONS).write_text(json.dumps(document))
    assert "2 questions lack ten answers" in _of(check(known, folder, images), "train ids").detail


def test_a_cut_file_and_a_cut_archive(known: Release, copy: tuple[Path, Path]) -> None:
    folder, images = copy
    whole = (folder / TRAIN_QUESTIONS).read_bytes()
    (folder / TRAIN_QUESTIONS).write_bytes(whole[:-100])
    findings = check(known, folder, images)
    assert _of(findings, TRAIN_QUESTIONS).state == "wrong" and "not JSON" in _of(findings, TRAIN_QUESTIONS).detail
    assert "train ids" not in [f.what for f in findings]
    (folder / TRAIN_QUESTIONS).unlink()
    assert _of(check(known, folder, images), TRAIN_QUESTIONS).state == "absent"
    archive = folder / f"{TRAIN_QUESTIONS}.zip"
    archive.write_bytes(_zipped({TRAIN_QUESTIONS: whole}))
    assert "not unpacked" in _of(check(known, folder, images), TRAIN_QUESTIONS).detail
    archive.rename(archive.with_name(f"{archive.name}.part"))
    assert "bytes of OpenEnded" in _of(check(known, folder, images), TRAIN_QUESTIONS).detail


def test_photos_that_are_absent_empty_or_damaged(known: Release, copy: tuple[Path, Path]) -> None:
    folder, images = copy
    first, second, third, *_ = sorted((images / "val2014").iterdir())
    inside = second.read_bytes()
    second.write_bytes(b"")
    third.write_bytes(inside[: len(inside) // 2])
    found = [f for f in check(known, folder, images) if f.what.endswith("photos") and f.state == "wrong"]
    assert found and re.search(r"\d cannot be read, such as COCO_val2014_\d{12}.jpg", found[0].detail)
    first.unlink()
    second.unlink()
    absent = [f for f in check(known, folder, images) if f.state == "absent"]
    assert absent and "are not in" in absent[0].detail and "unzip http" in absent[0].hint
    (images / known.splits[0].photos.archive).write_bytes(b"half of it")
    found = next(f for f in check(known, folder, images) if f.state == "absent")
    assert "10 of 6,645,013,297 bytes" in found.detail


def _zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return buffer.getvalue()


class Site(ThreadingHTTPServer):
    """A real server on this machine: files by path; `cut` bytes end the next answers, `ranges` are known or not."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.cut: int | None = None
        self.ranges = True
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        site, wanted = self.server, self.headers.get("Range")
        site.asked.append(wanted or "")
        content = site.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and site.ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = None if site.cut is None else start + site.cut
        self.wfile.write(content[start:end])
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    server = Site()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


CONTENT = bytes(range(256)) * 5000  # 1.28 MB


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_was_cut_off_goes_on(site: Site, tmp_path: Path, ranges: bool) -> None:
    site.files["/a.zip"], site.ranges = CONTENT, ranges
    target = tmp_path / "deep" / "a.zip"
    site.cut = 500_000
    with pytest.raises(DataError, match=r"stopped at 500,000 of 1,280,000 bytes.*resumes it"):
        download(f"{site.url}/a.zip", target)
    assert not target.exists() and (tmp_path / "deep" / "a.zip.part").stat().st_size == 500_000
    site.cut = None
    download(f"{site.url}/a.zip", target)
    assert target.read_bytes() == CONTENT
    assert site.asked == ["", "bytes=500000-"]
    assert [p.name for p in target.parent.iterdir()] == ["a.zip"]
    download(f"{site.url}/a.zip", target)
    assert len(site.asked) == 2, "a complete file is not downloaded again"


def test_a_partial_file_longer_than_the_file_is_discarded(site: Site, tmp_path: Path) -> None:
    site.files["/a.zip"] = CONTENT
    (tmp_path / "a.zip.part").write_bytes(b"x" * (len(CONTENT) + 7))
    download(f"{site.url}/a.zip", tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_no_such_file_and_no_server(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="404") as caught:
        download(f"{site.url}/none.zip", tmp_path / "none.zip")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"cannot be reached.*Go online"):
        download("http://127.0.0.1:9/a.zip", tmp_path / "a.zip")
    with pytest.raises(DataError, match="cannot be reached"):
        download("http://nowhere.invalid/a.zip", tmp_path / "a.zip")
    assert not list(tmp_path.iterdir())


def test_a_damaged_archive_is_downloaded_again(site: Site, tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    content = _zipped({"x.json": b"{}" * 100})
    site.files["/a.zip"] = content
    for damaged in (content.replace(b"{}{}{}", b"{}[]{}", 1), content[:-30]):  # a wrong checksum; cut off
        archive.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a.zip is damaged.*same command"):
            unpack(archive, "x.json", tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["a.zip.part"]
        download(f"{site.url}/a.zip", archive)
        assert archive.read_bytes() == content
    assert site.asked == [f"bytes={len(content)}-", "", f"bytes={len(content) - 30}-"], "what was cut off is resumed"
    with pytest.raises(DataError, match=r"holds no y.json"):
        unpack(archive, "y.json", tmp_path)
    unpack(archive, "x.json", tmp_path)
    assert (tmp_path / "x.json").read_bytes() == b"{}" * 100


@pytest.fixture
def served(known: Release, copy: tuple[Path, Path], site: Site) -> Site:
    """A site with the archives of the release."""
    folder, images = copy
    for split in known.splits:
        for file in (split.questions, split.annotations):
            site.files[f"/{file.archive}"] = _zipped({f"inside/{file.name}": (folder / file.name).read_bytes()})
    photos = {f"val2014/{p.name}": p.read_bytes() for p in images.rglob("*.jpg")}
    site.files[f"/{known.splits[0].photos.archive}"] = _zipped(photos)
    return site


def test_a_release_is_downloaded_complete(known: Release, served: Site, tmp_path: Path) -> None:
    folder, images = tmp_path / "new", tmp_path / "photos"
    findings = download_release(known, folder, images, True, served.url + "/")
    assert {f.state for f in findings} == {"ok"} and findings == check(known, folder, images)
    assert VqaJson(folder=str(folder), images=str(images)).questions("train")
    (images / "val2014.zip").unlink()
    requests = len(served.asked)
    assert download_release(known, folder, images, True, served.url) == findings
    assert len(served.asked) == requests, "an archive whose content is there is not downloaded"


Run = Callable[..., tuple[int | DataError, str]]


@pytest.fixture
def run(known: Release, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`leverplus data download` in this process: its exit code or error, and its standard output."""
    monkeypatch.setitem(releases.RELEASES, "okvqa", known)
    app = typer.Typer()
    app.command()(data_download.download)

    def run(*arguments: str | Path) -> tuple[int | DataError, str]:
        done = CliRunner().invoke(app, ["okvqa", *map(str, arguments)])
        return done.exception if isinstance(done.exception, DataError) else done.exit_code, done.stdout

    return run


def test_the_command_downloads_what_is_absent(run: Run, served: Site, tmp_path: Path) -> None:
    places = ("--folder", tmp_path / "new", "--images", tmp_path / "photos")
    status, _ = run(*places, "--check")
    assert isinstance(status, DataError) and "4 of 6 checks of okvqa failed" in str(status)
    assert not (tmp_path / "new").exists() and not served.asked, "a check changes nothing"
    status, _ = run(*places, "--mirror", "http://127.0.0.1:9")
    assert isinstance(status, DataError) and "cannot be reached" in str(status)
    status, said = run(*places, "--mirror", served.url)
    assert status == 0 and "absent   train photos" in said, "photos are downloaded on request only"
    assert not (tmp_path / "photos").exists()
    status, _ = run(*places, "--check", "--photos")
    assert isinstance(status, DataError) and "2 of 8 checks of okvqa failed: train photos" in str(status)
    status, said = run(*places, "--mirror", served.url, "--photos", "--json")
    assert status == 0 and {row["state"] for row in json.loads(said)} == {"ok"}


def test_the_command_fails_when_a_file_is_wrong(run: Run, copy: tuple[Path, Path]) -> None:
    folder, images = copy
    (folder / TRAIN_QUESTIONS).write_text("{}")
    status, _ = run("--folder", folder, "--images", images)
    assert isinstance(status, DataError) and f"failed: {TRAIN_QUESTIONS}" in str(status)
