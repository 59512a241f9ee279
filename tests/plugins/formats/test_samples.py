"""Logs of other harnesses, made by their own code (logs/make_*.py), as runs of the registry."""

from __future__ import annotations

import json
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leverplus_core.errors import DataError, RegistryError
from leverplus_core.pipeline.samples import ImportedSamples, read_samples, recognize
from leverplus_core.plugins.format_contracts import SamplesImporter
from leverplus_core.progress import Silent
from leverplus_core.records import LoggedSample, SampleLog
from leverplus_core.registry.registry import Registry
from leverplus_core.report.comparison import compare_rows, primary_rows
from leverplus_core.report.explorer import Outcome, QuestionFilter, question_page
from leverplus_core.report.headline import headline
from leverplus_core.report.leaderboard import leaderboard_rows, shown_rows
from leverplus_core.report.power import power_rows
from leverplus_core.report.question import question_record
from leverplus_core.testing import check
from leverplus_formats import log_zip
from leverplus_formats.inspect_log import InspectImporter
from leverplus_formats.lm_eval import LmEvalImporter, LmmsEvalImporter

LOGS = Path(__file__).parent / "logs"
IMPORTERS: dict[str, SamplesImporter] = {
    "lm-eval": LmEvalImporter(), "lmms-eval": LmmsEvalImporter(), "inspect": InspectImporter(),
}  # fmt: skip
Cli = Callable[..., tuple[int, str, str]]


def logged(pattern: str) -> Path:
    (found,) = LOGS.glob(pattern)
    return found


BASE, NEW, CHANGED = (logged(f"lm_eval_{name}/samples_*.jsonl") for name in ("base", "new", "changed"))
EYES = [logged(f"lmms_eval/*_{hour}0000_samples_*.jsonl") for hour in (12, 13)]
INSPECT = [LOGS / "inspect_mockllm_base.eval", LOGS / "inspect_mockllm_new.json"]
ALL = {"lm-eval": [BASE, NEW, CHANGED], "lmms-eval": EYES, "inspect": [*INSPECT, LOGS / "inspect_mockllm_new.eval"]}


def read(*paths: Path, **options: Any) -> ImportedSamples:
    return read_samples([(recognize(IMPORTERS, path), path) for path in paths], **options)


def registry_of(folder: Path, found: ImportedSamples, name: str = "run") -> Registry:
    registry = Registry(f"sqlite:///{folder / 'r.db'}")
    registry.record_samples(name, found.task, found.metric, found.harness, found.methods)
    return registry


@pytest.mark.parametrize("harness", ALL)
def test_a_log_is_recognized_by_what_it_holds_and_meets_the_contract(harness: str, tmp_path: Path) -> None:
    for i, path in enumerate(ALL[harness]):
        check(IMPORTERS[harness], source=path)
        renamed = tmp_path / f"{i}.log"  # the name says nothing
        shutil.copy(path, renamed)
        assert [name for name, one in IMPORTERS.items() if one.recognizes(renamed)] == [harness]


def test_what_is_no_log_is_recognized_by_none(tmp_path: Path) -> None:
    for i, data in enumerate(
        [b"{}", b"{", b"PK\x03\x04", b'{"doc_id": 1}\n', b"\xff\xfe", b'["version", "status", "eval"]']
    ):
        (tmp_path / str(i)).write_bytes(data)
        with pytest.raises(DataError, match="is no log of lm-eval, lmms-eval, inspect"):
            recognize(IMPORTERS, tmp_path / str(i))
    with pytest.raises(DataError, match="is no file"):
        recognize(IMPORTERS, tmp_path)


def test_a_damaged_log_is_said_to_be_damaged_and_not_to_be_no_log(tmp_path: Path) -> None:
    """All that begins as one does: whoever cut it wants to know that, and not what a log is."""
    lines = {"lm-eval": BASE.read_bytes(), "lmms-eval": EYES[0].read_bytes()}
    for harness, data in lines.items():
        first = data[: data.index(b"\n")]
        for name, damaged in {
            "surrogate": first[:-1] + b', "more": "\\ud800"}\n',
            "long": first[:-1] + b', "more": 1' + b"0" * 5000 + b"}\n",
            "deep": first[:-1] + b', "more": ' + b"[" * 5000 + b"]" * 5000 + b"}\n", "cut": first[:-1],
        }.items():  # fmt: skip
            (file := tmp_path / f"{name}.jsonl").write_bytes(damaged)
            assert recognize(IMPORTERS, file) is IMPORTERS[harness], (harness, name)
            with pytest.raises(DataError, match=f"{name}.jsonl:1 is not JSON"):
                read(file)
    (tmp_path / "cut.eval").write_bytes(INSPECT[0].read_bytes()[:5_000])
    with pytest.raises(DataError, match=r"no whole zip file: File is not a zip file\. It was cut"):
        read(tmp_path / "cut.eval")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match=r"is empty\. Was its evaluation stopped"):
        read(tmp_path / "empty.jsonl")


# --- what the harnesses said themselves -------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "n"), [(BASE, 12), (NEW, 10)])
def test_accuracies_are_those_that_lm_eval_printed(path: Path, n: int) -> None:
    (results,) = path.parent.glob("results_*.json")
    printed = json.loads(results.read_text())["results"]["sums"]
    for metric in ("exact_match,number", "exact_match,strict"):
        (method,) = read(path, metric=metric).methods
        assert len(method.predictions) == n
        assert sum(p.accuracy for p in method.predictions) / n == pytest.approx(printed[metric])
    assert (method.shots, method.harness, method.model) == (2, "lm-eval 0.4.13, sums 1.0", f"acme/{method.method}")


@pytest.mark.parametrize(("path", "wrong"), [(EYES[0], 4), (EYES[1], 1)])
@pytest.mark.parametrize("metric", ["exact_match", "color_accuracy"])
def test_accuracies_are_those_that_lmms_eval_computed(path: Path, wrong: int, metric: str) -> None:
    (method,) = read(path, metric=metric).methods
    assert sum(p.accuracy for p in method.predictions) == 12 - wrong
    assert method.harness == "lmms-eval colors 1.0"  # a wheel of it does not know its version
    first = method.predictions[0]
    assert (first.raw_text, first.prediction, method.questions[0].answers) == ("red.", "red.", ("red",))


def test_accuracies_are_those_that_inspect_computed() -> None:
    """Means over two epochs, without the samples that a scorer could not score: 8/12, and of eleven."""
    header = json.loads(members()["header.json"])
    printed = {score["name"]: next(iter(score["metrics"].values()))["value"] for score in header["results"]["scores"]}
    for metric, name, n, left_out in (
        ("match", "match", 12, 0), ("distance/close", "close", 11, 1), ("distance/brief", "brief", 11, 1),
    ):  # fmt: skip
        found = read(INSPECT[0], metric=metric)
        (method,) = found.methods
        assert (len(method.predictions), method.left_out, method.repeats) == (n, left_out, 2)
        assert sum(p.accuracy for p in method.predictions) / n == pytest.approx(printed[name])
        assert any("left out" in remark for remark in found.remarks) == bool(left_out)
    assert printed["match"] == pytest.approx(8 / 12) and method.harness == "inspect 0.3.285"
    assert [p.question_id for p in method.predictions] == [f"sum-{i}" for i in range(11)]  # 2 before 10
    assert method.questions[4].text == "What is 4 + 4?" and method.questions[4].answers == ("8",)


def test_a_zip_and_a_json_log_of_inspect_say_the_same() -> None:
    one, other = (read(LOGS / f"inspect_mockllm_new.{end}", metric="match").methods[0] for end in ("eval", "json"))
    assert one.predictions == other.predictions and one.questions == other.questions and one.digests == other.digests


# --- is this gain real? -----------------------------------------------------------------------------------------------


def test_two_logs_are_compared_on_the_questions_that_both_answered(tmp_path: Path) -> None:
    """Of the first ten, base has 1, 4, 7 and 9 wrong and new 4 and 9: two questions are gained, none lost."""
    with registry_of(tmp_path, read(BASE, NEW, metric="exact_match,number")) as registry:
        (row,) = compare_rows(registry, "run:sums-new", "run:sums-base")
        assert (row["n"], row["left_out"], row["a"], row["b"]) == (10, 2, 0.8, 0.6)
        assert row["delta"] == pytest.approx(0.2) and row["verdict"] == "no difference seen"
        assert row["p_value"] == pytest.approx(0.5)  # both signs of two pairs: 2 of 4
        (primary,) = primary_rows(registry, "run:sums-new", "run:sums-base")
        assert (primary["n"], primary["left_out"], primary["over"]) == (10, 2, [2])
        shown = {r["method"]: (r["n"], r["source"]) for r in shown_rows(leaderboard_rows(registry))}
        assert shown == {"sums-base": (12, "imported"), "sums-new": (10, "imported")}
        (power,) = power_rows(registry, "run", 0.05)
        assert (power["method"], power["baseline"], power["n"]) == ("sums-new", "sums-base", 10)
        head = headline(registry, ["run"])
        assert (head.method, head.best and head.best.name, head.primary[0]["mark"]) == (
            "sums-new", "sums-base", "no difference seen",
        )  # fmt: skip
        record = question_record(registry, "run", "1")
        assert record["question"]["text"] == "What is 1 + 1?" and record["question"]["answers"] == ["2"]
        assert [(m["method"], m["raw_text"], m["prediction"]) for m in record["methods"]] == [
            ("sums-base", "the sum is 3", "3"), ("sums-new", "the sum is 2", "2"),
        ]  # fmt: skip


def test_a_log_joins_a_run_that_was_imported_before(tmp_path: Path) -> None:
    together, apart = tmp_path / "together", tmp_path / "apart"
    for folder in (together, apart):
        folder.mkdir()
    with registry_of(together, read(*EYES, metric="exact_match")) as registry:
        expected = compare_rows(registry, "run:eye-new", "run:eye-base")
    with registry_of(apart, read(EYES[0], metric="exact_match")) as registry:
        found = read(EYES[1], metric="exact_match")
        registry.record_samples("run", found.task, found.metric, found.harness, found.methods)
        assert compare_rows(registry, "run:eye-new", "run:eye-base") == expected
        (run,) = registry.runs()
        assert (run["source"], run["status"], run["model"]) == ("imported", "done", "acme/eye-base, acme/eye-new")
        assert registry.runs_that_asked(run["dataset_fingerprint"], "log") == 1
        with pytest.raises(RegistryError, match=r"has a method 'eye-new' already.*--method"):
            registry.record_samples("run", found.task, found.metric, found.harness, found.methods)
        other = read(EYES[1], metric="color_accuracy", method="again")
        with pytest.raises(RegistryError, match="has the metric exact_match, this log color_accuracy"):
            registry.record_samples("run", other.task, other.metric, other.harness, other.methods)
        assert len(registry.cells()) == 2
        with pytest.raises(RegistryError, match="imported results only"):
            registry.resolve("latest")
        registry.delete_run(run["id"])
        assert not registry.sql("SELECT * FROM questions")[1] and not registry.sql("SELECT * FROM predictions")[1]


def test_a_position_names_one_question_whichever_logs_answered_it(tmp_path: Path) -> None:
    """So that a list of questions shows each log's answer to the question of its row."""
    few = lines(EYES[1], lambda row: row if row["doc_id"] in (2, 5, 7) else None, tmp_path / "few.jsonl")
    part = lines(EYES[1], lambda row: row if row["doc_id"] > 4 else None, tmp_path / "part.jsonl")
    with registry_of(tmp_path, read(few, part, EYES[0], metric="exact_match")) as registry:
        run = registry.resolve("run")
        rows = registry.sql("SELECT DISTINCT question_id, position FROM predictions")[1]
        assert len(rows) == len(dict(rows)) == 12 and sorted(place for _, place in rows) == list(range(12))
        columns = [(method, 0) for method in ("few", "part", "eye-base")]
        page = {q.id: q.accuracies for q in question_page(registry, run, columns=columns).questions}
        assert page["5"] == {("few", 0): 0.0, ("part", 0): 0.0, ("eye-base", 0): 0.0}
        assert page["7"] == {("few", 0): 1.0, ("part", 0): 1.0, ("eye-base", 0): 0.0}
        assert page["4"] == {("eye-base", 0): 0.0} and page["11"] == {("part", 0): 1.0, ("eye-base", 0): 1.0}
        wrong = QuestionFilter((Outcome("part", 0, False),))
        assert [q.id for q in question_page(registry, run, wrong).questions] == ["5"]
        (row,) = compare_rows(registry, "run:part", "run:eye-base")
        assert (row["n"], row["left_out"], row["delta"]) == (7, 5, pytest.approx(1 / 7))


def test_runs_of_two_logs_are_compared_too(tmp_path: Path) -> None:
    """Named alike, so that `compare new base` pairs them without naming methods."""
    registry = Registry(f"sqlite:///{tmp_path / 'r.db'}")
    for name, path in zip(("base", "new"), EYES, strict=True):
        found = read(path, metric="exact_match", method="eye")
        registry.record_samples(name, found.task, found.metric, found.harness, found.methods)
    (row,) = compare_rows(registry, "new", "base")
    # New has only question 5 wrong, base 1, 4, 5 and 7: three gained of twelve.
    assert row["delta"] == pytest.approx(3 / 12) and row["p_value"] == pytest.approx(0.25)
    found = read(EYES[1], metric="color_accuracy", method="eye")
    registry.record_samples("other metric", found.task, found.metric, found.harness, found.methods)
    with pytest.raises(RegistryError, match="different metrics: color_accuracy and exact_match"):
        compare_rows(registry, "other metric", "base")


def test_another_document_of_one_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sample 0 has other documents in samples_sums_.* and in samples_sums_"):
        read(BASE, CHANGED, metric="exact_match,number")
    with registry_of(tmp_path, read(BASE, metric="exact_match,number")) as registry:
        found = read(CHANGED, metric="exact_match,number")
        with pytest.raises(RegistryError, match=r"12 of 12 samples in samples_sums_.*the first 0,.*--dataset"):
            registry.record_samples("changed", found.task, found.metric, found.harness, found.methods)
        assert [run["name"] for run in registry.runs()] == ["run"] and len(registry.cells()) == 1
        registry.record_samples("changed", "sums 2", found.metric, found.harness, found.methods)
        with pytest.raises(RegistryError, match="different datasets: sums and sums 2"):
            compare_rows(registry, "run:sums-base", "changed:sums-changed")


def test_epochs_are_one_question_of_the_interval(tmp_path: Path) -> None:
    """Asking each sample twice with the same answers says no more than asking once."""
    header, rows = inspect_log()
    once = write_inspect(tmp_path / "once.json", header, [row | {"epoch": 1} for row in rows if row["epoch"] == 1])
    again = [row | {"epoch": epoch} for row in rows if row["epoch"] == 1 for epoch in (1, 2, 3)]
    thrice = write_inspect(tmp_path / "thrice.json", header, again)
    intervals = []
    for path in (once, thrice):
        (tmp_path / path.stem).mkdir()
        with registry_of(tmp_path / path.stem, read(path, metric="match")) as registry:
            (cell,) = registry.cells()
            intervals.append((cell["n"], cell["accuracy"], cell["ci_low"], cell["ci_high"]))
    assert intervals[0] == intervals[1] and intervals[0][0] == 12


# --- choices ----------------------------------------------------------------------------------------------------------


def test_the_metric_must_be_named_where_there_are_several_and_the_message_lists_them() -> None:
    listed = r"'exact_match,number' \(12 scores, mean 0.5833\), 'exact_match,strict' \(12 scores, mean 0.08333\)"
    with pytest.raises(DataError, match=rf"have 2 metrics. Choose one with --metric: {listed}"):
        read(BASE)
    with pytest.raises(DataError, match=r"have 2 metrics"):  # the name without its filter is not enough here
        read(BASE, metric="exact_match")
    with pytest.raises(DataError, match=rf"no metric 'exact'.*{listed}"):
        read(BASE, metric="exact")


def lines(path: Path, change: Callable[[dict[str, Any]], Any], to: Path, count: int = 100) -> Path:
    rows = [json.loads(line) for line in path.read_text().splitlines()[:count]]
    to.write_text("".join(json.dumps(one) + "\n" for row in rows for one in [change(row)] if one is not None))
    return to


def test_scores_are_shares_of_their_best_value(tmp_path: Path) -> None:
    percent = lines(EYES[0], lambda row: row | {"exact_match": 100 * row["exact_match"]}, tmp_path / "p.jsonl")
    with pytest.raises(DataError, match=r"p.jsonl: exact_match of sample 0 is 100, outside \[0, 1\].*--scale"):
        read(percent, metric="exact_match")
    (method,) = read(percent, metric="exact_match", scale=100.0).methods
    assert sum(p.accuracy for p in method.predictions) == 8


def test_numbers_that_are_none_are_no_scores(tmp_path: Path) -> None:
    nan = lines(
        EYES[0], lambda row: row | {"exact_match": float("nan") if row["doc_id"] < 3 else 1.0}, tmp_path / "n.jsonl"
    )
    (method,) = (found := read(nan, metric="exact_match")).methods
    assert (len(method.predictions), method.left_out) == (9, 3)
    assert "n: 3 without a score by exact_match are left out" in found.remarks
    every = lines(EYES[0], lambda row: row | {"exact_match": float("inf")}, tmp_path / "i.jsonl")
    with pytest.raises(DataError, match="no metric 'exact_match'"):
        read(every, metric="exact_match")


def test_several_tasks_are_one_set_of_questions(tmp_path: Path) -> None:
    other = tmp_path / "20261128_120000_samples_shapes.jsonl"
    lines(EYES[0], lambda row: row | {"target": "round"}, other)
    shutil.copy(logged("lmms_eval/*_120000_results.json"), tmp_path)
    found = read(EYES[0], other, metric="exact_match")
    (method,) = found.methods
    assert (found.task, len(method.predictions), method.files) == ("", 24, (EYES[0].name, other.name))
    assert [p.question_id for p in method.predictions][11:13] == ["colors/11", "shapes/0"]
    lines(other, lambda row: row | {"exact_match": 2}, other)
    with pytest.raises(DataError, match=r"_shapes.jsonl: exact_match of sample shapes/0 is 2, outside"):
        read(EYES[0], other, metric="exact_match")


def test_one_task_of_one_model_comes_once(tmp_path: Path) -> None:
    again = tmp_path / EYES[0].name
    shutil.copy(EYES[0], again)
    shutil.copy(logged("lmms_eval/*_120000_results.json"), tmp_path)
    with pytest.raises(DataError, match=r"sample 0 of eye-base is in .* and in .*--method"):
        read(EYES[0], again, metric="exact_match")
    twice = tmp_path / "twice.jsonl"
    twice.write_text(EYES[0].read_text() * 2)
    with pytest.raises(DataError, match=r"twice.jsonl: sample 0 comes twice"):
        read(twice, metric="exact_match")
    with pytest.raises(DataError, match="logs of inspect and lm-eval"):
        read(BASE, INSPECT[0])
    with pytest.raises(DataError, match=r"--method names one model, and the logs have 2: acme/eye-base, acme/eye-new"):
        read(*EYES, metric="exact_match", method="eye")
    (tmp_path / "20261128_120000_results.json").write_text('{"model_name": "acme/eye:new"}')
    (tmp_path / "20261128_130000_results.json").write_text('{"model_name": "acme/eye-new"}')
    shutil.copy(EYES[1], tmp_path)
    with pytest.raises(DataError, match=r"two models of the logs would be called 'eye-new'.*--method"):
        read(again, tmp_path / EYES[1].name, metric="exact_match")
    with pytest.raises(DataError, match="'a:b' cannot name a method"):
        read(EYES[0], metric="exact_match", method="a:b")


def test_a_choice_is_shown_by_its_text(tmp_path: Path) -> None:
    """A multiple choice as lm-eval logs it: log-probabilities as text, and the position of the true answer."""
    row = {
        "doc_id": 3, "doc": {"query": "The sky is"}, "target": "1",
        "arguments": {f"gen_args_{i}": {"arg_0": "The sky is", "arg_1": f" {c}"}
                      for i, c in enumerate(("red", "blue"))},
        "resps": [[["-3.5", "False"]], [["-0.25", "True"]]], "filtered_resps": [["-3.5", "False"], ["-0.25", "True"]],
        "filter": "none", "metrics": ["acc", "acc_norm"], "doc_hash": "a" * 64, "acc": 1.0, "acc_norm": 0.0,
    }  # fmt: skip
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (method,) = read(path, metric="acc").methods
    (question,), (prediction,) = method.questions, method.predictions
    assert (question.text, question.answers, prediction.prediction) == ("The sky is", ("blue",), "blue")
    assert (method.method, method.shots, method.digests) == ("samples", 0, {"3": "a" * 64})


def test_the_memory_address_of_a_picture_makes_no_other_document(tmp_path: Path) -> None:
    """A document with a picture is hashed with where the picture was, so that the hash differs from run to run."""

    def at(address: str, target: str, name: str) -> Path:
        change = {"doc": {"image": f"<PIL.Image.Image size=2x2 at {address}>"}, "doc_hash": address, "target": target}
        return lines(BASE, lambda row: row | change if row["filter"] == "number" else None, tmp_path / name)

    one, same, other = at("0x7f01", "4", "a.jsonl"), at("0x7fff", "4", "b.jsonl"), at("0x7f01", "5", "c.jsonl")
    assert len(read(one, same, metric="exact_match").methods) == 2
    with pytest.raises(DataError, match=r"other documents in a\.jsonl and in c\.jsonl"):
        read(one, other, metric="exact_match")


# --- hostile files ----------------------------------------------------------------------------------------------------


def inspect_log() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    whole = json.loads(INSPECT[1].read_text())
    return {key: value for key, value in whole.items() if key != "samples"}, whole["samples"]


def write_inspect(path: Path, header: dict[str, Any], rows: list[Any]) -> Path:
    path.write_text(json.dumps({**header, "samples": rows}))
    return path


def write_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as z:
        for name, data in members.items():
            z.writestr(name, data)
    return path


def members() -> dict[str, bytes]:
    with log_zip.LogZip(INSPECT[0]) as log:
        return {name: log.read(name) for name in log.members}


def refused(path: Path, match: str, **options: Any) -> None:
    with pytest.raises(DataError, match=match) as e:
        read_samples([(InspectImporter(), path)], metric="match", **options)
    assert "\n" not in str(e.value) and path.name in str(e.value)


def test_a_zip_of_any_compression_is_read_and_later_members_count(tmp_path: Path) -> None:
    (expected,) = read(INSPECT[0], metric="match").methods
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = write_zip(tmp_path / "log.eval", members(), compression)
        assert read(path, metric="match").methods[0].predictions == expected.predictions
    name = "samples/sum-0_epoch_1.json"
    rescored = json.loads(members()[name]) | {"scores": {"match": {"value": "P"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the name that is there already
        with zipfile.ZipFile(path, "a") as z:
            z.writestr(name, json.dumps(rescored))
    assert read(path, metric="match").methods[0].predictions[0].accuracy == 0.75  # (0.5 + 1) / 2


def test_a_log_that_has_not_ended_says_so(tmp_path: Path) -> None:
    there = members()
    there.pop("header.json")
    found = read(write_zip(tmp_path / "log.eval", there), metric="match")
    assert (
        found.remarks[0] == "log.eval: its evaluation did not end: started" and len(found.methods[0].predictions) == 12
    )


@pytest.mark.parametrize("size", [0, 10, 5_000, 30_000])
def test_a_cut_zip_is_one_line(tmp_path: Path, size: int) -> None:
    (tmp_path / "cut.eval").write_bytes(INSPECT[0].read_bytes()[:size])
    refused(tmp_path / "cut.eval", "no whole zip file")


def test_a_damaged_member_is_one_line(tmp_path: Path) -> None:
    for path in (INSPECT[0], write_zip(tmp_path / "deflated.eval", members())):
        data = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as z:
            info = z.getinfo("samples/sum-3_epoch_1.json")
        at = info.header_offset + 30 + len(info.filename)
        data[at + 60 : at + 70] = bytes(10)
        (tmp_path / "damaged.eval").write_bytes(data)
        refused(tmp_path / "damaged.eval", "samples/sum-3_epoch_1.json is damaged")


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One member that says how large it is, many that are large together, and one that lies."""
    header = members()["header.json"]
    name = "samples/a_epoch_1.json"
    large = write_zip(tmp_path / "large.eval", {"header.json": header, name: b" " * (log_zip.LARGEST + 1)})
    refused(large, f"{name} has 64 MB, over 64")
    many = {f"samples/{i}_epoch_1.json": b" " * (1 << 20) for i in range(20)}
    monkeypatch.setattr(log_zip, "ALWAYS", 1 << 22)
    refused(write_zip(tmp_path / "many.eval", {"header.json": header, **many}), "would unpack to 20 MB")
    import zstandard

    packed = zstandard.ZstdCompressor().compress(b" " * (1 << 22))
    liar = tmp_path / "liar.eval"
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 45, 0, 93, 0, 33, 0, len(packed), 50, len(name), 0)
    central = struct.pack(
        "<4s6H3L5H2L", b"PK\x01\x02", 45, 45, 0, 93, 0, 33, 0, len(packed), 50, len(name), 0, 0, 0, 0, 0, 0
    )
    start = len(local) + len(name) + len(packed)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(central) + len(name), start, 0)
    liar.write_bytes(local + name.encode() + packed + central + name.encode() + end)
    with log_zip.LogZip(liar) as log, pytest.raises(DataError, match=f"{name} is damaged: its checksum differs"):
        log.read(name)


def test_without_the_library_a_zstandard_log_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    refused(INSPECT[0], r"compressed with Zstandard.*Install leverplus\[inspect\]")


def test_what_no_log_holds_is_one_line(tmp_path: Path) -> None:
    header, rows = inspect_log()
    path = tmp_path / "log.json"
    for changed, match in (
        ({**header, "version": 1}, "has the format 1 of inspect, not 2"),
        ({key: value for key, value in header.items() if key != "eval"}, "has no header"),
    ):
        write_inspect(path, changed, rows)
        refused(path, match)
    for row, match in (
        ([1], "without an id or an input"), ({"id": 1}, "without an id or an input"),
        (rows[0] | {"epoch": "one"}, "has no epoch"), (rows[0] | {"epoch": 0}, "has no epoch"),
    ):  # fmt: skip
        write_inspect(path, header, [row])
        refused(path, match)
    write_inspect(path, header, [])
    refused(path, "holds no sample")
    write_inspect(path, header, [rows[0], rows[0]])
    refused(path, "sample sum-0 comes twice")
    path.write_text(write_inspect(path, header, rows).read_text()[:30_000])
    refused(path, "ends in the middle")
    write_inspect(path, header, [rows[0] | {"metadata": {"deep": json.loads("[" * 70 + "]" * 70)}}])
    refused(path, "nested more than 64 deep")
    # An invalidated sample, values that are no number, and an id that no column holds.
    strange = [rows[0] | {"invalidation": {"author": "me"}}, rows[1] | {"scores": {"match": {"value": [1, 2]}}},
               rows[2] | {"id": "x" * 5_000, "scores": {"match": {"value": "1.0"}}}]  # fmt: skip
    (method,) = read(write_inspect(path, header, strange), metric="match").methods
    assert method.left_out == 2 and [len(p.question_id) for p in method.predictions] == [189]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(BASE.read_text()[:2_000])
    with pytest.raises(DataError, match=r"samples.jsonl:\d is not JSON"):
        read(path)
    lines(BASE, lambda row: {"doc_id": 5} if row["doc_id"] == 3 else row, path)
    with pytest.raises(DataError, match=r"samples.jsonl:4 is no sample of lm-eval"):
        read(path)
    shutil.copy(BASE, tmp_path)
    (tmp_path / f"results_{BASE.name.split('_')[2].removesuffix('.jsonl')}.json").write_text('{"a": ')
    with pytest.raises(DataError, match=r"results_.*json cannot be read"):
        read(tmp_path / BASE.name)


def test_too_many_rows_are_refused_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(SamplesImporter):
        def recognizes(self, source: Path) -> bool:
            return True

        def read(self, source: Path, progress: Any) -> SampleLog:
            rows = (LoggedSample(str(i), {"acc": 1.0}) for i in iter(int, 1) or ())
            return SampleLog(
                "acme", "", "t", "m", None, (LoggedSample(f"{i}{r.id}", r.scores) for i, r in enumerate(rows))
            )

    monkeypatch.setattr("leverplus_core.pipeline.samples.MOST_SAMPLES", 1_000)
    with pytest.raises(DataError, match=r"has over 1,000 rows"):
        read_samples([(Endless(), Path("endless"))], progress=Silent())


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, cli: Cli) -> None:
    url = ("--registry", f"sqlite:///{tmp_path / 'r.db'}")
    code, _, err = cli("import", "samples", str(BASE), *url)
    assert code == 2 and "Choose one with --metric" in err and not (tmp_path / "r.db").exists()
    code, out, err = cli("import", "samples", str(BASE), "--metric", "exact_match,number", *url, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["name"], found["dataset"], found["metric"]) == ("sums", "sums", "exact_match,number")
    assert [(row["method"], row["n"], row["shots"]) for row in found["methods"]] == [("sums-base", 12, 2)]
    code, out, err = cli("import", "lm-eval", str(NEW), "--metric", "exact_match,number", "--method", "new", *url)
    assert code == 0 and "80.0" in out and "lm-eval 0.4.13" in out, err
    code, out, _ = cli("compare", "sums:new", "sums:sums-base", *url)
    assert code == 0 and "+20.0" in out and "up to 2" in out
    code, out, err = cli("report", "sums", "--lang", "en", *url)
    assert code == 0 and "compared with the first that was imported" in out and "fixed in the recipe" not in out, err
    code, _, err = cli("import", "inspect", str(BASE), *url)
    assert code == 2 and "is not JSON" in err
    for name in ("samples", "inspect", "lm-eval", "lmms-eval"):
        assert name in cli("import", "--help")[1]
    assert "--metric" in cli("import", "samples", "--help")[1]
