"""The 3B recipe, whole, at its true prompt length, on random weights: what fails on a GPU is then not the code.

The checkpoint has the layout of Qwen2.5-VL-3B-Instruct on its hub (flat config, sharded weights of old names, a
byte-level BPE of 151,643 tokens and 22 added ones, image processor and generation settings), shrunk in width and
depth only. Photos are 640 x 480; questions and answers are those of the packaged slice, in the official files.
"""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import leverplus_datasets
from leverplus_core.io import read_jsonl
from leverplus_core.metrics import most_frequent
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.plan import plan
from leverplus_core.pipeline.run import run
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.registry.registry import Registry
from leverplus_core.scoring.prompt import build_prompt

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SLICE = Path(leverplus_datasets.__file__).parent / "okvqa_slice"
TRAIN, VALIDATION = 16, 5
VISUAL_TOKENS = 391  # 23 x 17: 640 x 480 rounded to multiples of 28
BASE_VOCABULARY = 151_643
ADDED = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>",
    "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONFIG: dict[str, Any] = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "hidden_act": "silu",
    "hidden_size": 64,  # 2,048
    "initializer_range": 0.02,
    "intermediate_size": 128,  # 11,008
    "max_position_embeddings": 128000,
    "max_window_layers": 70,
    "model_type": "qwen2_5_vl",
    "num_attention_heads": 4,  # 16
    "num_hidden_layers": 3,  # 36
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.41.2",
    "use_cache": True,
    "use_sliding_window": False,
    "vision_config": {
        "depth": 8,  # 32, with every eighth block over the whole image
        "hidden_act": "silu",
        "hidden_size": 64,  # 1,280
        "intermediate_size": 128,  # 3,420
        "num_heads": 4,  # 16
        "in_chans": 3,
        "out_hidden_size": 64,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [7],
        "tokens_per_second": 2,
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},  # 16, 24, 24
    "vocab_size": 151936,
}
IMAGE_PROCESSOR = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2_5_VLProcessor",
}
GENERATION = {
    "bos_token_id": 151643,
    "pad_token_id": 151643,
    "do_sample": True,
    "eos_token_id": [151645, 151643],
    "repetition_penalty": 1.05,
    "temperature": 0.000001,
}


def _rows(side: str, kind: str, count: int) -> dict[str, Any]:
    """The first questions of the slice, each about another image."""
    document: dict[str, Any] = json.loads(gzip.decompress((SLICE / f"slice_{side}_{kind}.json.gz").read_bytes()))
    first = {row["image_id"]: row for row in reversed(document[kind])}
    return {**document, kind: sorted(first.values(), key=lambda row: row["question_id"])[:count]}


def _texts() -> list[str]:
    texts = []
    for side in ("train", "val"):
        texts += [row["question"] for row in _rows(side, "questions", 2000)["questions"]]
        for row in _rows(side, "annotations", 2000)["annotations"]:
            texts += [answer["answer"] for answer in row["answers"]]
    return texts


def _write_tokenizer(folder: Path) -> None:
    """Merges learned on the slice, so that questions have the length they have for Qwen; the ids between are unused."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    words = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = words
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=4000, show_progress=False, initial_alphabet=alphabet)
    trained.train_from_iterator(_texts(), trainer)
    model = json.loads(trained.to_str())["model"]
    vocabulary: dict[str, int] = dict(model["vocab"])
    vocabulary |= {f"<unused {i}>": i for i in range(len(vocabulary), BASE_VOCABULARY)}
    merges = [tuple(pair) for pair in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ADDED])
    assert tokenizer.token_to_id("<|image_pad|>") == CONFIG["image_token_id"]
    tokenizer.save(str(folder / "tokenizer.json"))
    marks = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>", "bos_token": None, "unk_token": None}
    settings = {**marks, "tokenizer_class": "Qwen2Tokenizer", "model_max_length": 131072, "add_prefix_space": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _write_checkpoint(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration

    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGE_PROCESSOR))
    _write_tokenizer(folder)
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(AutoConfig.from_pretrained(folder)).to(torch.bfloat16)
    weights = {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight":
            continue  # tied: the hub's files do not hold it
        old = name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
        weights[old] = (value * 3 if value.ndim > 1 else value).contiguous()  # wide enough that answers differ
    names = sorted(weights)
    index: dict[str, str] = {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    size = sum(value.numel() * 2 for value in weights.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": size}, "weight_map": index})
    )


def _write_clip(folder: Path) -> None:
    """CLIP ViT-B/32's shapes of input and output, small within."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(["<pad>", "<start>", "<end>", *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<start>", eos_token="<end>", unk_token="<pad>"
    )
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    marks = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(0)
    CLIPModel(
        CLIPConfig(
            text_config={**layers, **marks, "vocab_size": len(fast), "max_position_embeddings": 77},
            vision_config={**layers, "image_size": 224, "patch_size": 32},
            projection_dim=512,
        )
    ).save_pretrained(folder)
    fast.save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224}
    ).save_pretrained(folder)  # fmt: skip


def _write_data(folder: Path, images: Path) -> None:
    from PIL import Image

    folder.mkdir()
    draw = np.random.default_rng(0)
    for side, subtype, count in (("train", "train2014", TRAIN), ("val", "val2014", VALIDATION)):
        names = {"questions": f"OpenEnded_mscoco_{subtype}_questions", "annotations": f"mscoco_{subtype}_annotations"}
        (images / subtype).mkdir(parents=True)
        for kind, name in names.items():
            document = {**_rows(side, kind, count), "data_subtype": subtype}
            (folder / f"{name}.json").write_text(json.dumps(document))
        for row in _rows(side, "questions", count)["questions"]:
            slope = np.linspace(0, 1, 640)[None, :, None] * draw.uniform(0, 255, 3)
            noise = draw.integers(0, 60, (480, 640, 3))
            photo = Image.fromarray((slope + noise).clip(0, 255).astype(np.uint8))
            photo.save(images / subtype / f"COCO_{subtype}_{row['image_id']:012d}.jpg", quality=85)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The bundled recipe; other paths and smaller counts only."""
    here = tmp_path_factory.mktemp("3b")
    _write_checkpoint(here / "qwen")
    _write_clip(here / "clip")
    _write_data(here / "okvqa", here / "coco")
    return Recipe.load(
        "okvqa-qwen2.5-vl-3b",
        [
            f"model.path={here / 'qwen'}",
            "model.revision=null",
            f"encoder.path={here / 'clip'}",
            "encoder.revision=null",
            f"dataset.folder={here / 'okvqa'}",
            f"dataset.images={here / 'coco'}",
            "sampler.k=6",
            "scoring.questions=6",
            "evaluation.sizes=[2, 4]",
            "balancer={name: keep_all}",
        ],
    )


def test_prompts_have_their_true_length(recipe: Recipe, catalog: Catalog) -> None:
    values = recipe.values()
    values["model"]["engine"] = {"kernels": False}  # where they pack weights, they round lengths up
    context = RunContext(Recipe.of(values), catalog)
    model: Any = context.model
    demonstrations, question = context.dataset.demonstrations(), context.dataset.questions("validation")[0]
    assert model.image_tokens([d.image for d in demonstrations]) == VISUAL_TOKENS
    lengths: list[int] = []
    model._model.register_forward_pre_hook(
        lambda module, arguments, given: lengths.append(given["inputs_embeds"].shape[1]), with_kwargs=True
    )
    tokenizer = model.tokenizer
    assert len(tokenizer) == BASE_VOCABULARY + len(ADDED)
    for shots in (0, 1, 2, 3, 4):
        lengths.clear()
        [found] = model.logprob([build_prompt(demonstrations[:shots], question, recipe.prompt)], ["surf board"])
        assert np.isfinite(found.sum) and found.tokens >= 2
        asked = "".join(f"Question:{d.text} Short answer:{d.answer}" for d in demonstrations[:shots])
        turns = f"system\n{recipe.prompt.system}\nuser\n{asked}Question:{question.text} Short answer:\nassistant\n"
        text = len(tokenizer(turns)["input_ids"])
        marks = 5 + 2 * (shots + 1)  # of the turns, and of the images
        visual = (shots + 1) * VISUAL_TOKENS
        read = sum(lengths)
        assert abs(read - (visual + text + marks + found.tokens)) <= 3 * (shots + 2), (shots, read)
        assert visual < read < visual + 80 + 30 * (shots + 1)
        print(f"{shots} shots: {read} tokens, {visual} of them visual")


def _agree_with_the_model(recipe: Recipe, candidates: Path) -> None:
    """Four of ten annotators say what the model says after one of its candidates, so that there is something to learn.

    The other six give the answer that demonstrations show and that is scored: no prompt changes.
    """
    said = {row["question_id"]: row["prediction"] for row in read_jsonl(candidates) if row["prediction"]}
    [path] = Path(recipe.dataset.settings["folder"]).glob("*train*annotations.json")
    document = json.loads(path.read_text())
    for row in document["annotations"]:
        answers = [answer["answer"] for answer in row["answers"]]
        if prediction := said.get(str(row["question_id"])):
            answers = [most_frequent(answers)] * 6 + [prediction] * 4
        row["answers"] = [{"answer": answer} for answer in answers]
    path.write_text(json.dumps(document))


def test_the_recipe_runs_end_to_end(recipe: Recipe, catalog: Catalog, tmp_path: Path) -> None:
    planned = plan(RunContext(recipe, catalog))
    assert planned.planning.note == "" and planned.planning.image_tokens == VISUAL_TOKENS
    url, work = f"sqlite:///{tmp_path}/r.db", tmp_path / "work"
    began = time.perf_counter()
    first = run(recipe, url, work, until="propose", catalog=catalog)
    _agree_with_the_model(recipe, next((work / "stages").glob("propose-*")) / "candidates.jsonl")
    result = run(recipe, url, work, catalog=catalog)
    asked = first.calls + result.calls
    print(f"{asked} prompts (at most {planned.prompts} planned) in {time.perf_counter() - began:.0f} s")
    on = {stage: state for stage, state in result.stages.items() if state != "off"}
    assert set(on.values()) == {"done"} and {"encode", "beam_search", "sft", "rce", "mrt", "evaluate"} <= set(on)
    # Choices of an epoch are mostly those of the epoch before, and `fixed` is counted for the choice and for the grid.
    repeated = ("sft", "rce", "mrt", "choose_baseline", "evaluate")
    measured = sum(stage.prompts for stage in planned.stages if stage.stage not in repeated)
    assert 0.5 * measured <= asked <= planned.prompts
    registry = Registry(url)
    cells = {(c["method"], c["shots"], c["n"]) for c in registry.cells([result.run_id])}
    methods = ("random", "text_knn", "image_knn", "sft", "rce", "mrt", "oracle")
    grid = {(m, s, n) for m in methods for s in (1, 2, 3, 4) for n in (2, 4)}
    assert cells >= grid | {("zero_shot", 0, n) for n in (2, 4)}
    [[answers]] = registry.sql("SELECT count(DISTINCT raw_text) FROM predictions")[1]
    assert answers > 3  # random weights answer nonsense, but not the same to all
    curves = registry.sql("SELECT stage, count(*) FROM curves GROUP BY stage")[1]
    assert {stage for stage, rows in curves if rows > 1} == {"sft", "rce", "mrt"}
    assert run(recipe, url, work, catalog=catalog).calls == 0
