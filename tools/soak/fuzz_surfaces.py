"""The inputs of the fuzz: `python -m tools.soak.fuzz_surfaces SURFACE BATCH START END FOLDER` tries some of one kind.

Every input is damaged by a generator of its own, seeded by its surface, batch and number. The process says on standard
output what it is at ("at 17"), what went wrong ("fault 17 ..."), and at the end its memory and its slowest input.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from leverplus_core.errors import LeverplusError
from tools.soak.mutate import HOSTILE, as_json, as_lines, damaged

if TYPE_CHECKING:
    from leverplus_core import Catalog

MEMORY = 2 << 30
"""Bytes that an input may take beside what the program itself takes."""
LONGEST = 2000
"""Characters of an error's one line."""

Trial = Callable[[Random], object]

ROWS = [
    {"id": i, "question": f"What is shape {i}?", "image": f"{i}.png", "answers": ["red"] * 10, "split": split}
    for i, split in enumerate(("train", "train", "train", "validation"))
] + [
    {"id": "x7", "question": "Wofür?", "caption": "a photo of a cat", "answer": "rain", "image_id": 12,
    "split": "validation"}
]  # fmt: skip
QUESTIONS = {
    "data_subtype": "val2014",
    "questions": [{"question_id": i, "image_id": 40 + i, "question": f"What {i}?"} for i in range(4)],
}
ANNOTATIONS = {
    "info": {"description": "OK-VQA"},
    "annotations": [
        {"question_id": i, "image_id": 40 + i, "answers": [{"answer": "red", "answer_id": n} for n in range(10)]}
        for i in range(4)
    ],
}
CAPTIONS = {str(40 + i): f"a photo of {i}" for i in range(4)}
CANDIDATE = {
    "question_id": "7", "demonstrations": ["1", "2"], "source": "beam", "raw_text": "red. Q", "prediction": "red",
    "accuracy": 0.6, "correct": True, "logprob": -0.5, "info_score": 0.1, "text_similarity": 1.0,
}  # fmt: skip
CANDIDATES = [
    {**CANDIDATE, "question_id": str(q), "demonstrations": [str(d), str(d + 1)], "accuracy": a, "correct": a > 0.5}
    for q in (7, 8)
    for d, a in ((0, 1.0), (2, 0.3), (4, 0.0))
]
POINTERS: list[dict[str, Any]] = [
    {
        "pointer": [2, 0], "pointer_global": [5, 0], "beam_score": None, "logprob_score": -2.5, "gen_method": "beam",
        "vqa_raw_generation": "red. Question", "vqa_pred_answer": "red", "vqa_correct": 1, "vqa_acc_score": 0.6,
        "vqa_gt_prob": 0.25, "vqa_rel_score": 1.0, "vqa_eval_mode": "vqaEval",
    },
    {"pointer": [0, 1], "gen_method": "random", "vqa_pred_answer": "dog", "vqa_correct": 1, "vqa_acc_score": 0.3},
]  # fmt: skip
RL_DATA = {
    "_meta": {"version": "k64", "params": {"temps": [1.0, 1.3]}},
    "7": {
        "query": {"query_id": 7, "question_id": 70, "image_id": 1, "question": "What?", "gt_answers_raw": ["red"]},
        "candidate_pool_ids": [0, 3, 5],
        "pointer_candidates": POINTERS,
    },
    "3": {"candidate_pool_ids": [5, 7, 0], "pointer_candidates": [{**POINTERS[1], "vqa_gt_prob": 0.0}]},
}
BEAMS = {
    "7": {
        "beams": [
            {"shots": [{"id": 0, "score": 0.1}, {"id": 5, "score": 0.2}], "final_score": 0.3, "full_sequence": [5, 0,
            7]},
            {"shots": [{"id": 3, "score": 0.1}, {"id": 0, "score": 0.4}], "final_score": 0.5, "full_sequence": [0, 3,
            7]},
        ],
        "id_list": [[5, 0, 7], [0, 3, 7]],
        "score_list": [0.3, 0.5],
    },
    "2": {"id_list": [[0, 5, 2]], "score_list": [-1e-7]},
}  # fmt: skip
TABLE = """# Results

| Sample size | Shots | Random | **Lever-Plus** (%) | Best |
|---|---|---|---|---|
| 100 | 1 | 50.15 | 52.3 | Lever-Plus |
| 100 | 2 | 51.20 | 53.9 | Lever-Plus |
| 1,000 | 1 | 49.9 | 50.01 | Lever-Plus |
"""
SQL = (
    "select run, method, shots, n, accuracy from leaderboard where n > 10 order by accuracy desc limit 5",
    "with best as (select method, max(accuracy) a from cells group by method) select * from best",
    "select json_extract(recipe, '$.seed'), count(*) from runs group by 1 having count(*) >= 1",
)
YAML = (b": ", b"- ", b"? ", b"&a ", b"*a", b"!!set ", b"!!python/object:os.system ", b"!x ", b"{", b"}", b"[", b"]",
    b"\n", b"  ",
        b"\t", b"---\n", b"...\n", b"%YAML 1.1\n", b"<<: *a", b"|\n", b">\n", b"'", b'"', b"#", b"\x00", b"\xff",
        b"\xef\xbb\xbf",
        b"\x85", b".inf", b".nan", b"1e999", b"0x1f", b"0o17", b"1_000", b"2024-01-01", b"null", b"~", b"true",
        b"9" * 5000,
        b"[" * 300, b"{a: " * 200, b"- " * 200, b"extends: demo\n", b"extends: [1]\n", b"name: []\n", b'"\\ud800"',
        b"a: &a [*a, *a]\n")  # fmt: skip
WORDS = (
    "decoding.num_beams", "decoding.length_penalty", "scoring.candidates.samples", "scoring.candidates.num_beams",
    "seed",
    "scoring.questions", "training.sft", "training.sft.learning_rate", "training.online.rounds", "evaluation.sizes",
    "evaluation.shots", "evaluation.baselines", "sampler", "sampler.k", "reward", "reward.gap", "prompt.stop", "stages",
    "prompt.question", "dataset.train", "dataset", "model.device", "name", "note", "threads", "task", "imported.folder",
    "evaluation.primary.n", "training.validation_fraction", "scoring.beam_search.screen", "encoder.hidden_states",
    "x.y.z",
)  # fmt: skip


@cache
def _catalog() -> Catalog:
    from leverplus_core import Catalog

    return Catalog.load()


def recipe(folder: Path) -> Trial:
    """Recipes, read, validated and composed."""
    from leverplus_core import Recipe, RunContext
    from leverplus_core.recipes.loader import bundled

    catalog = _catalog()
    texts = [path.read_bytes() for path in bundled().values()]
    values = [Recipe.load(name).values() for name in ("demo", "demo-rl", "demo-mined", "okvqa-qwen2.5-vl-3b")]

    def trial(rng: Random) -> None:
        path = folder / "mine.yaml"
        if rng.randrange(2):
            path.write_bytes(damaged(rng, rng.choice(texts), YAML))
        else:
            path.write_bytes(as_json(rng, rng.choice(values)))
        composed = RunContext(Recipe.load(path), catalog, folder / "work")
        composed.recipe.fingerprint()
        json.dumps(composed.described(), allow_nan=False).encode()

    return trial


def overrides(folder: Path) -> Trial:
    """Overrides (`--set`) and parts (`--sampler`) of the command line."""
    from leverplus_core import Recipe, RunContext

    catalog = _catalog()
    lists = ("[{}]", "[{}, 1]", "{{{}: 2}}", "{{name: {}}}", "{}", "{}", "{}")

    def text(rng: Random) -> str:
        values = rng.choice((HOSTILE, HOSTILE[:13], [token.decode("latin1") for token in YAML]))
        value = rng.choice(values)
        return rng.choice(lists).format(value)

    def trial(rng: Random) -> None:
        given = [f"{rng.choice(WORDS)}={text(rng)}" for _ in range(rng.randint(1, 2))]
        if rng.randrange(4) == 0:
            given = [damaged(rng, given[0].encode()).decode("utf-8", "surrogateescape")]  # as arguments come
        kinds = ("sampler", "reward", "balancer", "dataset", "model", "encoder", "selector")
        parts = (
            {rng.choice(kinds): f"{rng.choice(('mixed', 'random', ''))}:k={text(rng)}"} if rng.randrange(3) == 0 else {}
        )
        composed = RunContext(Recipe.load("demo", given, parts), catalog, folder / "work")
        composed.recipe.fingerprint()
        json.dumps(composed.described(), allow_nan=False).encode()

    return trial


def _pictures(folder: Path) -> None:
    from PIL import Image

    for i in range(4):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / f"{i}.png")


def _read_dataset(name: str, settings: Mapping[str, object]) -> None:
    from leverplus_core.io import canonical_json

    dataset = _catalog().build("dataset", name, settings)
    for split in ("train", "validation"):
        canonical_json([[q.id, q.text, q.image.id, *q.answers] for q in dataset.questions(split)]).encode()
    canonical_json(dataset.identity()), dataset.note(), dataset.demonstrations()


def jsonl(folder: Path) -> Trial:
    """Datasets of one's own, JSON lines."""
    _pictures(folder)

    def trial(rng: Random) -> None:
        (folder / "all.jsonl").write_bytes(as_lines(rng, ROWS))
        _read_dataset("table", {"path": str(folder / "all.jsonl")})

    return trial


def vqa_json(folder: Path) -> Trial:
    """Question, annotation and caption files of the official layout."""
    whole = {"questions": QUESTIONS, "annotations": ANNOTATIONS, "captions": CAPTIONS}

    def trial(rng: Random) -> None:
        worse = rng.choice(list(whole))
        for name, document in whole.items():
            data = as_json(rng, document) if name == worse else json.dumps(document).encode()
            (folder / f"{name}.json").write_bytes(data)
        files = {f"validation_{name}": str(folder / f"{name}.json") for name in ("questions", "annotations")}
        split = {"train": 2, "validation": 2}
        _read_dataset("vqa_json", {**files, "captions": str(folder / "captions.json"), "split_by_image": split})

    return trial


def candidates(folder: Path) -> Trial:
    """Files of measured candidates: read, merged, counted."""
    from leverplus_core.candidates.store import iter_groups, read_groups, write_groups

    def trial(rng: Random) -> None:
        path, other = folder / "one.jsonl", folder / "other.jsonl"
        path.write_bytes(as_lines(rng, CANDIDATES))
        other.write_text("\n".join(json.dumps(row) for row in CANDIDATES))
        write_groups(folder / "written.jsonl", read_groups(path))
        for _ in iter_groups([path, other]):
            pass

    return trial


def _import(kind: str, name: str, folder: Path, data: bytes) -> None:
    from leverplus_core.pipeline.importing import import_data

    source = folder / name
    source.write_bytes(data)
    importer = _catalog().build("importer", kind, {})
    importer.recognizes(source)
    import_data(importer, kind, source, folder / "imported", replace=True, mixed_shots=True)


def rl_data(folder: Path) -> Trial:
    """rl-data files of Lever-Plus, imported."""
    return lambda rng: _import("rl-data", "rl_data.json", folder, as_json(rng, RL_DATA))


def beams(folder: Path) -> Trial:
    """Beam files of Lever-Plus, imported."""
    return lambda rng: _import("beams", "beams.json", folder, as_json(rng, BEAMS))


def table(folder: Path) -> Trial:
    """Published tables in Markdown."""
    importer = _catalog().build("importer", "table", {})
    tokens = (b"|", b"---", b"\n", b"NaN", b"1e9", b"9" * 5000, b"\xff", "\u202e".encode(), b"%", b"**", b"-3",
    b"| 0 ", b"`",
              "\u0663".encode(), "²".encode(), b"\x00", b"\r", b"| best ", b"[x](javascript:y)",
              b"| " * 300)  # fmt: skip

    def trial(rng: Random) -> None:
        path = folder / "table.md"
        path.write_bytes(damaged(rng, TABLE.encode(), tokens))
        importer.recognizes(path)
        for cell in importer.read(path).cells:
            assert 0 <= cell.accuracy <= 1 and cell.n > 0 and cell.shots >= 0

    return trial


def embeddings(folder: Path) -> Trial:
    """Tensor files, and the arrays and selectors that leverplus itself keeps."""
    import numpy as np
    import torch

    from leverplus_core.selector.checkpoint import FORMAT, read_meta
    from leverplus_core.selector.feature_set import FEATURES, FeatureSet

    buffer = io.BytesIO()
    torch.save(torch.eye(6), buffer)
    rows = np.eye(4, dtype=np.float32)
    arrays = io.BytesIO()
    np.savez(arrays, ids=np.array(list("abcd")), bank_image=rows, bank_text=rows, bank_answer=rows)

    described = {
        "format": FORMAT, "architecture": {"a": 1}, "widths": {"image": 4, "text": 4, "state": 0}, "sha256": "0" * 64,
        "meta": {"a": 1},
    }  # fmt: skip

    def trial(rng: Random) -> None:
        match rng.randrange(4):
            case 0:
                (folder / FEATURES).write_bytes(damaged(rng, arrays.getvalue()))
                FeatureSet.read(folder / FEATURES)
            case 1:
                (folder / "selector.json").write_bytes(as_json(rng, described))
                read_meta(folder)
            case _:
                _import("embeddings", "rows.pt", folder, damaged(rng, buffer.getvalue()))

    return trial


def sql(folder: Path) -> Trial:
    """Queries of the registry."""
    from leverplus_core import Registry

    registry = Registry(f"sqlite:///{folder / 'r.db'}")
    tokens = tuple(word.encode() for word in (
        "select", "from runs", "*", "(", ")", "'", '"', ";", "--", "/*", "union all",
        "with recursive r(x) as (select 1 ",
        "drop table runs", "insert into runs values (1)", "pragma writable_schema=1", "attach 'x.db' as x", ":a",
        "?", "%s",
        "randomblob(999999999999)", "zeroblob(2000000000)", "9e999", "\x00", "\ud7ff", "load_extension('x')",
        "cells", ",",
        "group by", "||", "limit -1", "json('{')", "printf('%*d', 2000000000, 1)", "case when", "cast(x as blob)",
    ))  # fmt: skip

    def trial(rng: Random) -> None:
        text = damaged(rng, rng.choice(SQL).encode(), tokens).decode("utf-8", "surrogateescape")
        registry.sql(text)

    return trial


def metadata(folder: Path) -> Trial:
    """Metadata of installed distributions: entry points and names."""
    from leverplus_core import Catalog
    from leverplus_core.plugins.commands import command_entries

    place = folder / "site"
    sys.path.append(str(place))
    points = b"[leverplus]\nacme = json\n\n[leverplus.commands]\nacme go = json:loads\n\n[console_scripts]\na = b:c\n"
    about = b"Metadata-Version: 2.1\nName: acme\nVersion: 1.0\nSummary: parts\n\nText.\n"
    tokens = (b"[", b"]", b"=", b":", b"\n", b"\n\n", b" ", b"\xff", b"\x00", b"\xc3", b"[leverplus]\n", b"a.b.c:d",
    b"[x]",
              b"Name: ", b"Version: ", b"\t", b"#", b"json:loads", b"os:abort", b"\xef\xbb\xbf",
              b"x" * 3000)  # fmt: skip

    def trial(rng: Random) -> None:
        info = place / rng.choice(("acme-1.0.dist-info", "~cme-1.0.dist-info", "acme.egg-info", "-1.0.dist-info"))
        for old in place.glob("*/*"):
            old.unlink()
        info.mkdir(parents=True, exist_ok=True)
        for name, data in (("entry_points.txt", points), ("METADATA", about), ("PKG-INFO", about)):
            if rng.randrange(5):
                (info / name).write_bytes(damaged(rng, data, tokens) if rng.randrange(2) else data)
        Catalog.load().checked_entries()
        command_entries(["run"])

    return trial


def state(folder: Path) -> Trial:
    """Files that leverplus wrote itself and reads again: imported folders, pools, provenance."""
    from leverplus_core.pipeline.imported import ImportedFolder, ensure_imported
    from leverplus_core.pipeline.pools import all_pools
    from leverplus_core.pipeline.workspace import StageFolder

    catalog = _catalog()
    good = folder / "good.jsonl"
    good.write_text("\n".join(json.dumps(row) for row in CANDIDATES))
    imported = ensure_imported(good, folder / "work", catalog).root
    files = {path: path.read_bytes() for path in sorted(imported.rglob("*")) if path.is_file()}
    pools: dict[str, Any] = {"train": {"7": ["1", "2"], "8": ["2"]}, "validation": {"9": ["1"]}}

    def trial(rng: Random) -> None:
        match rng.randrange(3):
            case 0:
                worse = rng.choice(list(files))
                try:
                    worse.write_bytes(damaged(rng, files[worse]))
                    found = ImportedFolder.load(imported)
                    found.question_ids("candidates")
                finally:
                    worse.write_bytes(files[worse])
            case 1:
                (folder / "pools.json").write_bytes(as_json(rng, pools))
                all_pools(folder)
            case 2:
                (folder / "provenance.json").write_bytes(as_json(rng, {"metadata": {"a": 1}, "created": "x"}))
                StageFolder(folder).provenance()

    return trial


SURFACES: Mapping[str, Callable[[Path], Trial]] = {
    made.__name__: made
    for made in (
        recipe,
        overrides,
        jsonl,
        vqa_json,
        candidates,
        rl_data,
        beams,
        table,
        embeddings,
        sql,
        metadata,
        state,
    )
}


def complaint(error: BaseException) -> str:
    """What is wrong with an error, in a line; '' for one that is as it must be."""
    if not isinstance(error, LeverplusError):
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "leverplus_" in f.filename]
        at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        return f"{type(error).__name__} at {at}: {' '.join(str(error).split())[:160]!a}"
    text = str(error)
    if len(text.splitlines()) > 1 or len(text) > LONGEST:
        return f"an error of {len(text):,} characters and {len(text.splitlines())} lines: {text[:120]!a}"
    with suppress(UnicodeEncodeError):
        text.encode()
        return ""
    return f"an error that no terminal can show: {text[:120]!a}"


def main(surface: str, batch: str, start: str, end: str, folder: str) -> None:
    """Try the inputs `start` to `end` of a batch."""
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a plugin that prints is no business of ours here
    warnings.simplefilter("ignore")
    trial = SURFACES[surface](Path(folder))
    for i in range(3):  # what is imported with the first inputs is no cost of theirs
        with suppress(BaseException):
            trial(Random(f"{surface} warm {i}"))
    with open("/proc/self/statm") as f:
        taken = int(f.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    slowest, refused = 0.0, 0
    for i in range(int(start), int(end)):
        print("at", i, file=told, flush=True)
        began = time.perf_counter()
        try:
            trial(Random(f"{surface} {batch} {i}"))
        except BaseException as error:  # what must not get out is what is looked for
            refused += 1
            if text := complaint(error):
                print("fault", i, text, file=told, flush=True)
        slowest = max(slowest, time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print("end", json.dumps({"refused": refused, "slowest": slowest, "peak": peak}), file=told, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
