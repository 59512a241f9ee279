"""`python -m tools.soak.bank FOLDER DEMONSTRATIONS QUESTIONS`: what a large bank costs, from its file to a selection.

Writes a data set of texts (questions, captions in place of images, answers) and a sentence encoder of one small layer
into FOLDER, then encodes them, draws pools and lets baselines and a policy choose for QUESTIONS evaluation questions.
Prints a JSON object: the seconds of the processor of each step, and the largest memory in MB. No model is asked.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

WORDS = [
    f"{a}{b}" for a in ("ba", "co", "di", "fu", "ge", "ho", "ka", "lu", "mo", "ne") for b in "abcdefghijklmnopqrst"
]
SEARCHED = 200
"""Train questions that a recipe would search: they get pools, too."""
BASELINES = ["random", "text_knn", "image_knn", "text_image_knn", "bank_knn", "bm25", {"name": "fixed", "sets": 1}]
"""`fixed` with one set has nothing to ask a model about."""


def write_split(file: Path, split: str, count: int) -> None:
    """Texts of Zipf's words, as questions have; two questions share each caption."""
    draw = np.random.default_rng(len(split))
    rank = np.arange(1, len(WORDS) + 1)
    words = np.array(WORDS)[draw.choice(len(WORDS), p=1 / rank / (1 / rank).sum(), size=(count, 20))].tolist()
    with file.open("w") as f:
        for i, row in enumerate(words):
            caption = f"{split} {i // 2} {' '.join(words[i // 2 * 2][8:18])}"
            rows = {"id": f"{split}{i}", "question": " ".join(row[:8]), "caption": caption, "answers": row[18:]}
            f.write(json.dumps({**rows, "image_id": f"{split}-{i // 2}"}) + "\n")


def write_checkpoints(encoder: Path, model: Path) -> None:
    """A BERT of one layer and 64 columns with random weights, whose cost is the number of its texts, and a model of
    captions, which no one asks."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokens = {word: i for i, word in enumerate(["<pad>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    small: dict[str, Any] = {
        "vocab_size": len(tokens), "pad_token_id": 0, "hidden_size": 64, "intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 2,
    }  # fmt: skip
    BertModel(BertConfig(**small)).save_pretrained(encoder)
    LlamaForCausalLM(LlamaConfig(**small)).save_pretrained(model)
    for folder in (encoder, model):
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>").save_pretrained(
            folder
        )


def measure(folder: Path, demonstrations: int, questions: int) -> dict[str, float]:
    """The seconds of the processor of each step, and `MB`, the largest memory so far."""
    from leverplus_core import Catalog, Recipe, RunContext, run
    from leverplus_core.pipeline.graph import Pipeline
    from leverplus_core.pipeline.methods import baseline_method, eval_set, policy_method

    seconds: dict[str, float] = {}

    @contextmanager
    def timed(step: str) -> Iterator[None]:
        began = time.process_time()
        yield
        seconds[step] = time.process_time() - began

    files = {"train": (folder / "train.jsonl", demonstrations), "validation": (folder / "validation.jsonl", questions)}
    for split, (file, count) in files.items():
        write_split(file, split, count)
    write_checkpoints(folder / "encoder", folder / "model")
    recipe = Recipe.of(
        {
            "name": "bank",
            "threads": 1,
            "dataset": {"name": "table", **{split: str(file) for split, (file, _) in files.items()}},
            "model": {"name": "caption_lm", "path": str(folder / "model"), "device": "cpu"},
            "encoder": {"name": "sentence", "path": str(folder / "encoder"), "device": "cpu"},
            "sampler": {"name": "mixed"},
            "scoring": {"questions": SEARCHED},
            "evaluation": {
                "sizes": [questions],
                "baselines": BASELINES,
                "shots": [1, 2, 3, 4],
                "baseline_questions": 0,
            },
        }
    )
    catalog, work = Catalog.load(), folder / "work"
    context = RunContext(recipe, catalog, work)
    with timed("read"):
        pipeline = Pipeline(context)
        pipeline.fingerprints  # noqa: B018  reads the data
    for stage in ("encode", "pool"):
        with timed(stage):
            run(recipe, f"sqlite:///{folder}/registry.db", work, until=stage, catalog=catalog, built=context._shared)
    inputs = pipeline.inputs(pipeline.stage("evaluate"))
    with timed("evaluation questions"):
        asked = eval_set(context, inputs, context.question_sets.evaluated, context.question_sets.learned)
    methods = [baseline_method(context, *item) for item in context.baselines.items()]
    features = context.selector_features(inputs)
    methods.append(policy_method(context, "policy", {"": context.selector.policy(features.widths).eval()}, features))
    for method in methods:
        with timed(method.name):
            found = method.select(asked, method.shots, method.scorer)
        assert all(len(rows) == questions for rows in found.values())
    return {**seconds, "MB": _largest_memory()}


def _largest_memory() -> float:
    """In MB, of this program alone: what `getrusage` says includes the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
