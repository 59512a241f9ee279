"""A run is kept in MLflow, W&B and trackio as well: their own stores are read back. A tracker never ends a run."""

from __future__ import annotations

import json
import shutil
import struct
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from leverplus_core import LeverplusError, Registry, hookimpl
from leverplus_core.errors import LeverplusWarning
from leverplus_core.plugins.trackers import find_trackers

# MLflow uses what SQLAlchemy has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")

Finished = Any
Tiny = Callable[..., Any]


@pytest.fixture
def wandb() -> Iterator[Any]:
    """W&B, which reads its variables once in a process."""
    found = pytest.importorskip("wandb")
    yield found
    found.teardown()


@pytest.fixture(scope="module")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """A database of MLflow without runs: it takes seconds to make."""
    try:
        from mlflow import MlflowClient
    except ModuleNotFoundError:
        return None
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture(autouse=True)
def private(new_store: Path | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores of this test alone, and nobody is told of it."""
    if new_store is not None:
        shutil.copy(new_store, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    for variable in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "WANDB_PROJECT", "WANDB_ENTITY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    monkeypatch.chdir(tmp_path)  # where MLflow keeps the artifacts of a database


def _curves(world: Any, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """The curves of the registry by `STAGE/METRIC`: (epoch, value)."""
    found: dict[str, list[tuple[int, float]]] = {}
    for stage, step, metric, value in sorted(world.results(run_id)["curves"]):
        found.setdefault(f"{stage}/{metric}", []).append((step, value))
    return found


def test_mlflow_has_settings_curves_results_the_table_and_the_report(tiny: Tiny, finished: Finished) -> None:
    mlflow = pytest.importorskip("mlflow")
    world, result = finished
    world.run(tiny(), track=["mlflow"])

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("leverplus")
    [tracked] = client.search_runs([experiment.experiment_id])
    assert (tracked.info.run_name, tracked.info.status) == ("demo", "FINISHED")
    assert tracked.data.tags["leverplus.run"] == result.run_id
    params = tracked.data.params
    assert (params["sampler.name"], params["sampler.k"], params["training.rce.epochs"]) == ("mixed", "5", "2")
    assert params["evaluation.baselines.3.num_beams"] == "2"

    curves = _curves(world, result.run_id)
    assert len(curves["rce/loss"]) == 2
    for name, points in curves.items():
        history = client.get_metric_history(tracked.info.run_id, name)
        assert [(m.step, m.value) for m in sorted(history, key=lambda m: m.step)] == points, name

    with Registry(world.url) as store:
        cells = {(c["method"], c["shots"], c["n"]): c for c in store.cells([result.run_id])}
    largest = cells["rce", 2, 10]
    assert tracked.data.metrics["accuracy/rce/2-shot"] == largest["accuracy"]
    assert tracked.data.metrics["accuracy/rce/2-shot low"] == largest["ci_low"]
    assert {"seconds/rce", "prompts/evaluate"} <= set(tracked.data.metrics)

    table = mlflow.artifacts.load_dict(f"{tracked.info.artifact_uri}/leaderboard.json")
    assert table["columns"] == ["method", "shots", "n", "accuracy", "low", "high"]
    assert {tuple(row[:3]) for row in table["data"]} == set(cells), "every cell, whatever its sample"
    assert all(cells[tuple(row[:3])]["accuracy"] == row[3] for row in table["data"])
    names = {file.path for file in client.list_artifacts(tracked.info.run_id)}
    assert names == {"leaderboard.json", "report.html"}
    assert "<html" in mlflow.artifacts.load_text(f"{tracked.info.artifact_uri}/report.html")


def test_a_resumed_run_goes_on_in_the_same_mlflow_run_and_no_point_is_there_twice(
    tiny: Tiny, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    world, _ = finished
    url, client = f"sqlite:///{world.folder}/resumed.db", mlflow.MlflowClient()

    def tracked() -> Any:
        [only] = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
        return only

    def points(name: str) -> int:
        return len(client.get_metric_history(tracked().info.run_id, name))

    world.run(tiny(), url, until="sft", track=["mlflow"])
    assert tracked().data.tags["leverplus.status"] == "partial"
    assert not any(name.startswith("rce/") for name in tracked().data.metrics)
    for _ in range(2):
        world.run(tiny("threads=2"), url, until="rce", track=["mlflow"])  # another number of threads: the same run
    assert [points(name) for name in ("sft/loss", "rce/loss", "seconds/sft")] == [1, 2, 1]

    client.delete_run(first := tracked().info.run_id)
    world.run(tiny(), url, until="rce", track=["mlflow"])
    assert tracked().info.run_id != first, "a run that was deleted there is begun again, with all its points"
    assert [points(name) for name in ("sft/loss", "rce/loss", "seconds/sft")] == [1, 2, 1]


def test_a_method_gets_a_name_that_mlflow_takes() -> None:
    pytest.importorskip("mlflow")
    from leverplus_trackers.mlflow import _key

    assert _key("accuracy/grpo+reversed/2-shot low") == "accuracy/grpo_reversed/2-shot low"
    assert _key("accuracy/\N{GREEK SMALL LETTER PI}/2-shot") == "accuracy/_/2-shot"


def test_a_server_that_is_gone_is_one_line_before_anything_is_written(
    tiny: Tiny, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    with pytest.raises(LeverplusError, match=r"^MLflow at http://127\.0\.0\.1:9 cannot be used: .*refused") as found:
        world.run(tiny(), track=["mlflow"])
    assert "secret" not in str(found.value)
    assert Registry(world.url).runs() == []


def test_w_and_b_offline_has_settings_curves_results_the_table_and_the_report(
    tiny: Tiny, finished: Finished, wandb: Any, tmp_path: Path
) -> None:
    world, result = finished
    ends = sys.exit, sys.excepthook
    world.run(tiny(), track=["wandb"])
    assert (sys.exit, sys.excepthook) == ends, "W&B leaves its own in their place"

    [file] = tmp_path.glob(f"wandb/offline-run-*-{result.run_id}/run-{result.run_id}.wandb")
    records = _ended(file)
    [started] = [r.run for r in records if r.WhichOneof("record_type") == "run"]
    assert (started.run_id, started.display_name, started.project) == (result.run_id, "demo", "leverplus")
    settings = {item.key: json.loads(item.value_json) for item in started.config.update}
    assert (settings["sampler.name"], settings["sampler.k"], settings["training.rce.epochs"]) == ("mixed", 5, 2)

    points: dict[str, list[tuple[int, float]]] = {}
    for row in _rows(records):
        for name, value in row.items():
            stage, _, metric = name.partition("/")
            if metric not in ("", "epoch"):
                points.setdefault(name, []).append((row[f"{stage}/epoch"], value))
    assert points == _curves(world, result.run_id)
    assert {m.metric.glob_name: m.metric.step_metric for m in records if m.metric.glob_name}["rce/*"] == "rce/epoch"

    summary = _summary(records)
    with Registry(world.url) as store:
        [cell] = [c for c in store.cells([result.run_id]) if (c["method"], c["shots"], c["n"]) == ("rce", 2, 10)]
    assert summary["accuracy/rce/2-shot"] == cell["accuracy"]
    assert summary["status"] == "done"
    [table] = file.parent.glob("files/media/table/leaderboard_*.table.json")
    assert json.loads(table.read_text())["columns"] == ["method", "shots", "n", "accuracy", "low", "high"]
    logged = [r.request.log_artifact.artifact for r in records if r.request.HasField("log_artifact")]
    artifacts = logged + [r.artifact for r in records if r.HasField("artifact")]
    assert [a.name for a in artifacts if a.type == "report"] == [f"report-{result.run_id}"]


def test_a_resumed_run_tells_w_and_b_only_what_is_new(
    tiny: Tiny, finished: Finished, wandb: Any, tmp_path: Path
) -> None:
    world, result = finished
    url = f"sqlite:///{world.folder}/resumed.db"
    world.run(tiny(), url, until="sft", track=["wandb"])
    world.run(tiny(), url, until="choose_baseline", track=["wandb"])
    files = list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert [file.name for file in files] == [f"run-{result.run_id}.wandb"] * 2, "one run, in two parts"
    told = [row for file in files for row in _rows(_ended(file))]
    for name, points in _curves(world, result.run_id).items():
        assert sum(name in row for row in told) == len(points), name


def test_w_and_b_without_a_key_is_one_line(tiny: Tiny, world: Any, wandb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(world.folder / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(LeverplusError, match=r"wandb login.*WANDB_MODE=offline"):
        world.run(tiny(), track=["wandb"])
    assert Registry(world.url).runs() == []


def test_trackio_has_settings_curves_results_the_table_and_the_report(
    tiny: Tiny, finished: Finished, tmp_path: Path
) -> None:
    pytest.importorskip("trackio", reason="it asks for another Pillow than the tests run with")
    from trackio.sqlite_storage import SQLiteStorage

    world, result = finished
    url = f"sqlite:///{world.folder}/resumed.db"
    world.run(tiny(), url, until="sft", track=["trackio"])
    world.run(tiny(), url, track=["trackio"])

    [name] = SQLiteStorage.get_runs("leverplus")
    assert name == f"demo {result.run_id}", "one run, in two parts"
    settings = SQLiteStorage.get_run_config("leverplus", name)
    assert (settings["sampler.name"], settings["sampler.k"]) == ("mixed", 5)
    rows = SQLiteStorage.get_logs("leverplus", name)
    for key, points in _curves(world, result.run_id).items():
        assert [(row["step"], row[key]) for row in rows if key in row] == points, key
    with Registry(world.url) as store:
        [cell] = [c for c in store.cells([result.run_id]) if (c["method"], c["shots"], c["n"]) == ("rce", 2, 10)]
    assert [row["accuracy/rce/2-shot"] for row in rows if "accuracy/rce/2-shot" in row] == [cell["accuracy"]]
    [table] = [row["leaderboard"] for row in rows if "leaderboard" in row]
    assert set(table["_value"][0]) == {"method", "shots", "n", "accuracy", "low", "high"}


FAILING = """
    from leverplus_core import hookimpl

    told = []

    class main:
        where = "nowhere"

        def __init__(self, run, registry):
            told.append((run.name, registry.url, len(registry.runs())))

        @hookimpl
        def leverplus_run_start(self):
            told.append("run_start")

        @hookimpl
        def leverplus_stage_end(self):
            raise OSError("no network")

        @hookimpl
        def leverplus_run_end(self, status):
            told.append(status)
"""


def test_a_tracker_of_a_plugin_that_fails_midway_is_one_warning_and_the_run_is_the_same(
    tiny: Tiny, finished: Finished, install: Any
) -> None:
    import importlib

    world, result = finished
    module = install("acme-track", FAILING, group="leverplus.trackers", point="acme")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", LeverplusWarning)
        world.run(tiny(), f"sqlite:///{world.folder}/other.db", track=["acme", "acme"])
    assert [str(w.message) for w in seen if w.category is LeverplusWarning] == [
        f"listener {module}.main failed at stage_end: OSError: no network. The run continues."
    ]
    told = importlib.import_module(module).told
    assert told == [("demo", f"sqlite:///{world.folder}/other.db", 0), "run_start", "done"], "made once, before the run"
    assert world.results(result.run_id, f"sqlite:///{world.folder}/other.db") == world.results(result.run_id)


def test_what_ours_cannot_send_is_one_warning_and_nothing_is_tried_again(
    tiny: Tiny, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    world, result = finished
    calls = 0

    class Gone(mlflow.MlflowClient):  # type: ignore[misc,name-defined]
        def log_batch(self, run_id: str, *args: Any, **more: Any) -> None:
            nonlocal calls
            if more.get("metrics"):
                calls += 1
                raise ConnectionError("server gone")
            super().log_batch(run_id, *args, **more)

    monkeypatch.setattr(mlflow, "MlflowClient", Gone)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", LeverplusWarning)
        done = world.run(tiny(), f"sqlite:///{world.folder}/other.db", until="rce", track=["mlflow"])
    [only] = [str(w.message) for w in seen if w.category is LeverplusWarning]
    assert "MLflow: ConnectionError: server gone; nothing more is sent to it. The run continues." in only
    assert (calls, done.run_id) == (1, result.run_id)


def test_an_unknown_tracker_and_one_whose_package_is_missing_are_one_line(install: Any, tiny: Tiny, world: Any) -> None:
    with pytest.raises(LeverplusError, match=r"no tracker is named 'mlfow'. Did you mean 'mlflow'\?"):
        find_trackers(["mlfow"])
    code = "from leverplus_core import needs_extra\nwith needs_extra('acme'):\n    import no_such_package\n"
    install("acme-track", code, group="leverplus.trackers", point="acme")
    with pytest.raises(LeverplusError, match=r"no_such_package is not installed. Run: pip install 'leverplus.acme.'"):
        world.run(tiny(), track=["acme"])
    assert not list(world.work.glob("*")), "before anything is written"


class _Opened:
    where = "here"

    def __init__(self, run: Any, registry: Any) -> None:
        _Opened.ended: list[str] = []  # type: ignore[misc]

    @hookimpl
    def leverplus_run_end(self, status: str) -> None:  # of the arguments of the event only what it wants, as ours do
        _Opened.ended.append(status)  # type: ignore[attr-defined]


class _Deaf:
    where = "here"

    def __init__(self, run: Any, registry: Any) -> None: ...


def test_trackers_that_were_opened_are_closed_where_a_later_one_cannot_be() -> None:
    from leverplus_core.plugins.trackers import open_trackers

    def broken(run: Any, registry: Any) -> Any:
        raise ValueError("no key")

    for later, line in (
        (broken, r"^tracker 'b' of acme raised ValueError: no key"),
        (_Deaf, r"_Deaf is no listener: it has no function marked @hookimpl"),
    ):
        with pytest.raises(LeverplusError, match=line):
            open_trackers([("tracker 'a' of acme", _Opened), ("tracker 'b' of acme", later)], None, None)  # type: ignore[arg-type]
        assert _Opened.ended == ["failed"]  # type: ignore[attr-defined]


def _ended(file: Path) -> list[Any]:
    """All records of a W&B transaction log, once its own process has written the last one: `finish` may be earlier."""
    found, end = list(_records(file)), time.monotonic() + 30
    while not any(record.WhichOneof("record_type") == "exit" for record in found):
        assert time.monotonic() < end, f"{file} has {len(found)} records and no end"
        time.sleep(0.05)
        found = list(_records(file))
    return found


def _records(file: Path) -> Iterator[Any]:
    """The records of a W&B transaction log: a header of 7 bytes, then LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = file.read_bytes(), 7, b""
    while at < len(data):
        left = 32_768 - at % 32_768
        if left < 7:  # a block ends with zeros where no header fits
            at += left
            continue
        if at + 7 > len(data):
            return
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        if at + 7 + size > len(data):  # it is being written
            return
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def _rows(records: list[Any]) -> Iterator[dict[str, Any]]:
    """What was logged at each step, without what W&B adds."""
    for record in records:
        if record.WhichOneof("record_type") == "history":
            row = {(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item}
            yield {
                key: value
                for key, value in row.items()
                if not key.startswith("_") and not key.startswith("leaderboard")
            }


def _summary(records: list[Any]) -> Mapping[str, Any]:
    found = {}
    for record in records:
        for item in record.summary.update:
            found[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    return found
