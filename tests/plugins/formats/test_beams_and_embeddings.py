"""Beams and embeddings in and out, alone and in one folder with rl-data."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leverplus_core.errors import DataError
from leverplus_core.io import read_json, read_jsonl, write_jsonl
from leverplus_core.pipeline.exporting import export_data
from leverplus_core.pipeline.imported import ImportedFolder
from leverplus_core.pipeline.importing import import_data
from leverplus_core.pipeline.pools import read_pools
from leverplus_core.pipeline.stages.beam_search import read_sequences
from leverplus_core.records import Image, Question, ScoredSequence
from leverplus_formats.beams import BeamsExporter, BeamsImporter
from leverplus_formats.embeddings import EmbeddingsImporter
from leverplus_formats.rl_data import RlDataExporter, RlDataImporter

Put = Callable[[str, object], Path]
Cli = Callable[..., tuple[int, str, str]]


def import_beams(file: Path, folder: Path, **options: bool) -> dict[str, Any]:
    return import_data(BeamsImporter(), "beams", file, folder, **options)


def import_rl_data(file: Path, folder: Path, questions: list[Question] | None = None) -> dict[str, Any]:
    return import_data(RlDataImporter(), "rl-data", file, folder, questions)


def import_embeddings(file: Path, folder: Path, questions: list[Question] | None = None) -> dict[str, Any]:
    return import_data(EmbeddingsImporter(), "embeddings", file, folder, questions)


def lists(beams: dict[str, Any]) -> dict[str, Any]:
    """What an export has: sequences and scores, best first, without the steps."""
    found = {}
    for key, entry in beams.items():
        pairs = sorted(zip(entry["score_list"], entry["id_list"], strict=True), reverse=True)
        found[key] = {"id_list": [ids for _, ids in pairs], "score_list": [score for score, _ in pairs]}
    return found


def features(folder: Path) -> dict[str, Any]:
    with np.load(ImportedFolder.load(folder).path("features")) as arrays:
        return {"ids": arrays["ids"].tolist(), "image": arrays["bank_image"], "text": arrays["bank_text"]}


@pytest.fixture
def tensor(tmp_path: Path) -> Path:
    """Embeddings of rows 0 to 7, of lengths other than 1."""
    path = tmp_path / "query_embeddings.pt"
    torch.save(torch.randn(8, 6, generator=torch.Generator().manual_seed(0)) * 3, path)
    return path


def test_beams_are_sequences_in_the_order_of_the_prompt(beams: dict[str, Any], put: Put, tmp_path: Path) -> None:
    summary = import_beams(put("b.json", beams), tmp_path / "in")
    assert read_sequences(tmp_path / "in") == {
        "7": [ScoredSequence("7", ("0", "3"), 0.5), ScoredSequence("7", ("5", "0"), 0.3)],  # best first
        "2": [ScoredSequence("2", ("0", "5"), -1e-7)],
    }
    assert read_pools(tmp_path / "in")["train"] == {"7": ["5", "0", "3"], "2": ["0", "5"]}
    assert summary["imports"]["beams"]["questions"] == 2
    assert (summary["sequences"]["sequences"], summary["sequences"]["pools_from_sequences"]) == (3, 2)
    assert export_data(BeamsExporter(), tmp_path / "in", tmp_path / "out.json") == {"questions": 2, "sequences": 3}
    assert read_json(tmp_path / "out.json") == lists(beams)


def test_beams_alone_are_read_from_their_steps(beams: dict[str, Any], put: Put, tmp_path: Path) -> None:
    del beams["7"]["id_list"], beams["7"]["score_list"]
    del beams["7"]["beams"][0]["full_sequence"]  # the last to be chosen stands first in the prompt
    import_beams(put("b.json", beams), tmp_path / "in")
    assert read_sequences(tmp_path / "in")["7"] == [
        ScoredSequence("7", ("0", "3"), 0.5),
        ScoredSequence("7", ("5", "0"), 0.3),
    ]


def test_sequences_of_our_own_making_become_beams(tmp_path: Path) -> None:
    rows = [{"question_id": "7", "demonstrations": ["5", "0"], "score": 0.25}]
    write_jsonl(tmp_path / "beams.jsonl", rows)
    export_data(BeamsExporter(), tmp_path / "beams.jsonl", tmp_path / "out.json")
    assert read_json(tmp_path / "out.json") == {"7": {"id_list": [[5, 0, 7]], "score_list": [0.25]}}
    import_beams(tmp_path / "out.json", tmp_path / "in")
    assert read_jsonl(tmp_path / "in/beams.jsonl") == rows


Edit = Callable[[dict[str, Any]], object]
BAD_BEAMS: dict[str, tuple[Edit, str]] = {
    "another row": (lambda b: b["2"]["id_list"].__setitem__(0, [0, 5, 3]), r"\[0, 5, 3\] does not end with .* row 2"),
    "lengths": (lambda b: b["2"]["score_list"].append(1.0), "id_list and score_list are not of one length"),
    "repeat": (lambda b: b["2"]["id_list"].__setitem__(0, [5, 5, 2]), r"\[5, 5\] shows a demonstration twice"),
    "score": (lambda b: b["2"]["score_list"].__setitem__(0, "high"), "score 'high' is not a finite number"),
    "no score": (lambda b: b["7"]["beams"][0].pop("final_score"), "has no final_score"),
    "two scores": (lambda b: b["7"]["score_list"].__setitem__(0, 0.9), "beams says .* 0.3, .* say .* 0.9"),
    "two orders": (lambda b: b["7"]["id_list"].__setitem__(0, [0, 5, 7]), r"beams says \[5, 0\] .* say \[0, 5\]"),
    "shots": (lambda b: b["7"]["beams"][0]["shots"].pop(), r"full_sequence shows \[5, 0\], its shots \[0\]"),
    "mixed": (lambda b: b["2"]["id_list"].__setitem__(0, [0, 2]), "one of 2. .* --mixed-shots"),
    "rl-data": (lambda b: b.__setitem__("2", {"pointer_candidates": []}), "Use `leverplus import rl-data`"),
    "all leaks": (
        lambda b: (b.pop("7"), b["2"]["id_list"].__setitem__(0, [2, 0, 2])),
        "no candidate.* own demonstr",
    ),
    "nothing": (lambda b: b.clear(), "no candidate, sequence"),
}


@pytest.mark.parametrize("name", BAD_BEAMS)
def test_bad_beams_are_one_line_and_nothing_is_left(
    name: str, beams: dict[str, Any], put: Put, cli: Cli, tmp_path: Path
) -> None:
    edit, message = BAD_BEAMS[name]
    edit(beams)
    put("b.json", beams)
    with pytest.raises(DataError, match=message):
        import_beams(tmp_path / "b.json", tmp_path / "in")
    code, out, err = cli("import", "beams", "b.json", "-o", "in")
    assert code == 2 and not out and err.count("\n") == 1 and err.startswith("leverplus: b.json: ")
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]


def test_beams_keep_to_the_pools_of_rl_data(
    rl_data: dict[str, Any], beams: dict[str, Any], put: Put, tmp_path: Path
) -> None:
    beams["7"]["id_list"].append([6, 0, 7])
    beams["7"]["score_list"].append(0.9)
    del beams["7"]["beams"]
    rl_data["2"] = {"pointer_candidates": []}  # asked, but without a pool
    import_rl_data(put("x.json", rl_data), tmp_path / "in")
    summary = import_beams(put("b.json", beams), tmp_path / "in")
    assert [k.demonstrations for k in read_sequences(tmp_path / "in")["7"]] == [("0", "3"), ("5", "0")]
    outside = summary["sequences"]["not_kept"]["a demonstration outside the question's pool"]
    assert outside == {"count": 1, "examples": ["question 7: 6, 0"]}
    assert read_pools(tmp_path / "in")["train"] == {"7": ["0", "3", "5"], "3": ["5", "7", "0"], "2": ["0", "5"]}
    # Other beams, other pools: those that the earlier beams added are removed.
    del beams["2"]
    import_beams(put("b2.json", beams), tmp_path / "in", replace=True)
    assert list(read_pools(tmp_path / "in")["train"]) == ["7", "3"]


def test_imports_add_up_to_the_same_files_in_any_order(
    rl_data: dict[str, Any], beams: dict[str, Any], put: Put, tensor: Path, tmp_path: Path
) -> None:
    rl, beam = put("x.json", rl_data), put("b.json", beams)
    imports: list[Callable[[Path], object]] = [
        lambda folder: import_rl_data(rl, folder),
        lambda folder: import_beams(beam, folder),
        lambda folder: import_embeddings(tensor, folder),
    ]
    contents = []
    for i, order in enumerate(itertools.permutations(imports)):
        for one in order:
            one(tmp_path / f"in{i}")
        folder = ImportedFolder.load(tmp_path / f"in{i}")
        assert all(folder.has(name) for name in ("candidates", "pools", "sequences", "features"))
        contents.append({k: v for k, v in folder.manifest.files.items() if k != "summary.json"})
        contents[-1]["fingerprint"] = folder.fingerprint
        for exporter, name in ((RlDataExporter(), "x2.json"), (BeamsExporter(), "b2.json")):
            export_data(exporter, folder.root, tmp_path / name)
        contents[-1]["exports"] = read_json(tmp_path / "x2.json"), read_json(tmp_path / "b2.json")
    assert all(content == contents[0] for content in contents)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_tensor_comes_back_with_the_same_values(dtype: torch.dtype, cli: Cli, tmp_path: Path) -> None:
    given = (torch.randn(12, 4, generator=torch.Generator().manual_seed(1)) * 7).to(dtype)
    given[2] = 0
    torch.save(given, tmp_path / "e.pt")
    code, out, _ = cli("import", "embeddings", "e.pt", "-o", "in")
    kept = "float32" if dtype == torch.bfloat16 else str(dtype).removeprefix("torch.")
    assert code == 0 and f"12 rows of 4 ({kept})" in out and "1 of them zeros" in out
    assert cli("export", "embeddings", "in", "-o", "e2.pt")[0] == 0
    back = torch.load(tmp_path / "e2.pt", weights_only=True)
    assert torch.equal(back.to(dtype), given) and str(back.dtype) == f"torch.{kept}"
    found, rows = features(tmp_path / "in"), given.double()
    assert found["ids"] == [str(i) for i in range(12)] and found["text"].shape == (12, 0)
    expected = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-30)
    assert found["image"].dtype == np.float32 and np.abs(found["image"] - expected.numpy()).max() < 1e-6


class _Opens:
    """A pickle that would run code when it is read."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, ("pwned", "w")


def _write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(_Opens()))


BAD_TENSORS: dict[str, tuple[Callable[[Path], object], str]] = {
    "dictionary": (lambda p: torch.save({"a": torch.ones(2, 2)}, p), "holds a dict, not a tensor"),
    "list": (lambda p: torch.save([1.0], p), "holds a list, not a tensor"),
    "integers": (lambda p: torch.save(torch.ones(2, 2, dtype=torch.long), p), r"a tensor of int64 \(2, 2\)"),
    "one row": (lambda p: torch.save(torch.ones(4), p), r"a tensor of float32 \(4,\)"),
    "no row": (lambda p: torch.save(torch.ones(0, 4), p), r"a tensor of float32 \(0, 4\)"),
    "sparse": (lambda p: torch.save(torch.eye(3).to_sparse(), p), "a tensor of float32"),
    "NaN": (lambda p: torch.save(torch.tensor([[0.0], [float("nan")]]), p), "1 rows are not finite, the first is 1"),
    "code": (_write_pickle, "is not a tensor that can be read safely"),
    "module": (lambda p: torch.save(torch.nn.Linear(2, 2), p), "is not a tensor that can be read safely"),
    "text": (lambda p: p.write_text("hello"), "is not a tensor that can be read safely"),
    "empty": (lambda p: p.touch(), "is not a tensor that can be read safely"),
    "absent": (lambda p: None, "there is no file"),
}


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_what_is_no_tensor_is_one_line_and_nothing_is_left(name: str, cli: Cli, tmp_path: Path) -> None:
    write, message = BAD_TENSORS[name]
    write(tmp_path / "e.pt")
    with pytest.raises(DataError, match=message):
        import_embeddings(tmp_path / "e.pt", tmp_path / "in")
    code, out, err = cli("import", "embeddings", "e.pt", "-o", "in")
    assert code == 2 and not out and err.count("\n") == 1 and len(err) < 400
    assert {path.name for path in tmp_path.iterdir()} <= {"e.pt"}  # no `pwned`


def test_a_cut_tensor_is_refused(tensor: Path, tmp_path: Path) -> None:
    tensor.write_bytes(tensor.read_bytes()[:-100])
    with pytest.raises(DataError, match="that can be read safely"):
        import_embeddings(tensor, tmp_path / "in")


def test_embeddings_must_cover_what_the_folder_names(
    rl_data: dict[str, Any], put: Put, tensor: Path, tmp_path: Path
) -> None:
    rl_data["3"]["candidate_pool_ids"].append(8)
    import_rl_data(put("x.json", rl_data), tmp_path / "in")
    before = ImportedFolder.load(tmp_path / "in").fingerprint
    with pytest.raises(DataError, match=r"query_embeddings.pt: the embeddings have 8 rows, none for 8, which"):
        import_embeddings(tensor, tmp_path / "in")
    assert ImportedFolder.load(tmp_path / "in").fingerprint == before
    import_embeddings(tensor, tmp_path / "other")
    with pytest.raises(DataError, match=r"x.json: the embeddings have 8 rows, none for 8"):
        import_rl_data(tmp_path / "x.json", tmp_path / "other")
    assert not ImportedFolder.load(tmp_path / "other").has("candidates")


def test_embeddings_must_fit_the_recipe_s_dataset(
    rl_data: dict[str, Any], put: Put, tensor: Path, tmp_path: Path
) -> None:
    def rows(count: int) -> list[Question]:
        return [Question(str(10 * i), f"q{i}", Image(str(i)), ("a",)) for i in range(count)]

    with pytest.raises(DataError, match=r"have 8 rows, the recipe's dataset 9 train questions"):
        import_embeddings(tensor, tmp_path / "in", rows(9))
    import_embeddings(tensor, tmp_path / "in", rows(8))
    assert features(tmp_path / "in")["ids"] == [str(10 * i) for i in range(8)]
    with pytest.raises(DataError, match=r"Give the same --recipe, or none, to every import"):
        import_rl_data(put("x.json", rl_data), tmp_path / "in")


def test_exports_of_what_is_not_there(rl_data: dict[str, Any], put: Put, cli: Cli) -> None:
    put("x.json", rl_data)
    assert cli("import", "rl-data", "x.json", "-o", "in", "--json")[0] == 0
    assert "there is no file in/beams.jsonl" in cli("export", "beams", "in", "-o", "o.json")[2]
    assert "there is no file in/embeddings.npz" in cli("export", "embeddings", "in", "-o", "o.pt")[2]
    assert "x.json is not an imported folder" in cli("export", "embeddings", "x.json", "-o", "o.pt")[2]
    assert "no file nowhere.jsonl" in cli("export", "rl-data", "nowhere.jsonl", "-o", "o.json")[2]
    assert not Path("o.json").exists() and not Path("o.pt").exists()
    put("bad.jsonl", json.dumps({"question_id": "1"}).encode())
    code, _, err = cli("export", "beams", "bad.jsonl", "-o", "o.json")
    assert code == 2 and "bad.jsonl:1 is not a sequence" in err
