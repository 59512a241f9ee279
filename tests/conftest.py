"""How a part is built in tests when its defaults want weights or data that are not at hand: a tiny one is made here.

`tests/plugins/test_contracts.py` runs over every part of the catalog. One that is not in TEST_SETTINGS is built from
its defaults; one that cannot be built either way fails.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from leverplus_core.plugins.contracts import Part
from leverplus_core.plugins.manager import Catalog
from tests.browser import Browser

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from leverplus_core.selector.policy import Policy
    from leverplus_core.training.tensors import TrainingData

# A shell starts what runs in its background deaf to Ctrl-C, which some tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)

LAYERS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


# Tests are many small tensors: threads get in each other's way. Set before torch is imported, here and in the
# processes that tests start, so that a test without tensors does not import torch.
os.environ["OMP_NUM_THREADS"] = "1"

# A shared machine may take a hundred times as long over one example as over the next.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none; torch is imported only where a test asks for one."""
    if marked := [item for item in items if item.get_closest_marker("gpu")]:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="torch finds no Nvidia GPU on this machine"))


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Exit code, standard output and standard error of a command in an empty folder, at 80 columns."""
    from leverplus_core.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["leverplus", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capsys.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    return call


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests, started by the first that wants it; see `tests.browser.Browser.page`."""
    with Browser() as one:
        yield one


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """What is installed, all of it: a LEVERPLUS_DISABLE of the caller's must not shrink the tests."""
    return Catalog.load(disabled="")


@pytest.fixture(scope="session")
def part_settings(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], dict[str, Any]]:
    """Settings that make a part small enough for a test; what they point to is made once."""

    @cache
    def settings(kind: str, name: str) -> dict[str, Any]:
        make = TEST_SETTINGS.get((kind, name))
        return make(tmp_path_factory.mktemp(f"{kind}-{name}")) if make else {}

    return settings


@pytest.fixture(scope="session")
def build_part(catalog: Catalog, part_settings: Callable[[str, str], dict[str, Any]]) -> Callable[[str, str], Part]:
    """A part of the catalog, small enough for a test."""
    return lambda kind, name: catalog.build(
        kind, name, part_settings(kind, name), where="TEST_SETTINGS in tests/conftest.py"
    )


@pytest.fixture(scope="session")
def new_policy() -> Callable[..., Policy]:
    """`new_policy(seed=0, **settings)`: a small pointer network for images and texts of three columns."""
    import torch

    from leverplus_core.selector.base import FeatureWidths
    from leverplus_selectors.pointer import PointerSelector

    def new(seed: int = 0, **settings: Any) -> Policy:
        torch.manual_seed(seed)
        return PointerSelector(width=16, heads=2, **settings).policy(FeatureWidths(image=3, text=3))

    return new


@pytest.fixture(scope="session")
def new_data() -> Callable[..., TrainingData]:
    """`new_data(seed=0)`: candidates of one and two shots for 24 questions with pools of 6.

    The reward is how far up a fixed direction the first demonstration lies; correctness varies in three of four groups.
    """
    import torch

    from leverplus_core.selector.base import FeatureWidths
    from leverplus_core.selector.policy import Batch, Blocks
    from leverplus_core.training.tensors import TrainingData, TrainingGroups

    widths = FeatureWidths(image=3, text=3)

    def new(seed: int = 0) -> TrainingData:
        draw = torch.Generator().manual_seed(seed)
        query, bank = torch.randn(24, 6, generator=draw), torch.randn(24, 6, 9, generator=draw)
        sequences = torch.rand(24, 5, 6, generator=draw).argsort(-1)[..., :2]
        sequences[:, ::2, 1] = -1
        mask = torch.ones(24, 5, dtype=torch.bool)
        mask[::3, -1] = False
        rewards = bank[..., 0].gather(1, sequences[..., 0])

        def inputs(rows: torch.Tensor) -> Batch:
            question, shown = Blocks(query[rows], widths.question), Blocks(bank[rows], widths.candidate)
            return Batch(question, shown, bank[rows][..., :2])

        return TrainingData(TrainingGroups(sequences, mask, rewards, torch.arange(24) % 4 != 0), inputs)

    return new


def _tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte: any text can be read, and an answer has several tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<start>", "<end>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<start>", eos_token="<end>", unk_token="<pad>"
    )


def _clip(folder: Path) -> dict[str, Any]:
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    tokenizer = _tokenizer()
    marks = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = CLIPConfig(
        text_config={**LAYERS, **marks, "vocab_size": len(tokenizer), "max_position_embeddings": 77},
        vision_config={**LAYERS, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return {"path": str(folder), "device": "cpu"}


def _sentence(folder: Path) -> dict[str, Any]:
    import torch
    from transformers import BertConfig, BertModel

    tokenizer = _tokenizer()
    torch.manual_seed(0)
    BertModel(BertConfig(**LAYERS, vocab_size=len(tokenizer), pad_token_id=0)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"path": str(folder), "device": "cpu"}


def _caption_lm(folder: Path) -> dict[str, Any]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer()
    config = LlamaConfig(
        **LAYERS, vocab_size=len(tokenizer), num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"path": str(folder), "device": "cpu"}


def _demo_world(folder: Path) -> dict[str, Any]:
    return {"train": 40, "validation": 20, "cache": str(folder)}


def _table(folder: Path) -> dict[str, Any]:
    files = {}
    for split in ("train", "validation"):
        rows = [
            {
                "id": f"{split}{i}",
                "question": "what is it?",
                "caption": f"{split} picture {i}",
                "answers": ["a", "a", "b"],
            }
            for i in range(5)
        ]
        file = folder / f"{split}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        files[split] = str(file)
    return files


def _hub(folder: Path) -> dict[str, Any]:
    """The rows of `_table` as `datasets` saves them, in splits."""
    import datasets

    datasets.disable_progress_bars()
    splits = {
        split: [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
        for split, file in _table(folder).items()
    }
    rows = {split: datasets.Dataset.from_list(of) for split, of in splits.items()}
    datasets.DatasetDict(rows).save_to_disk(str(folder / "saved"))
    return {"path": str(folder / "saved")}


def _hf_vlm(folder: Path) -> dict[str, Any]:
    """A tiny random Idefics3."""
    from tests.plugins.models.families import save

    save("idefics3", folder)
    return {"path": str(folder), "device": "cpu"}


def _served(folder: Path) -> dict[str, Any]:
    """A real llama.cpp server of the demo checkpoint, which ends with the tests."""
    log = (folder / "log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "tools.demo_vlm.serve", str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert server.stdin is not None and server.stdout is not None
    atexit.register(server.wait)
    atexit.register(server.stdin.close)  # called first
    address = server.stdout.readline().strip()
    assert address.startswith("http"), (folder / "log").read_text()
    server.stdout.close()
    log.close()
    return {"url": address}


TEST_SETTINGS: dict[tuple[str, str], Callable[[Path], dict[str, Any]]] = {
    ("dataset", "demo_world"): _demo_world,
    ("dataset", "hub"): _hub,
    ("dataset", "table"): _table,
    ("dataset", "vqa_json"): lambda folder: {"folder": "okvqa-slice"},
    ("encoder", "clip"): _clip,
    ("encoder", "sentence"): _sentence,
    ("model", "caption_lm"): _caption_lm,
    ("model", "hf_vlm"): _hf_vlm,
    ("model", "served"): _served,
    ("model", "qwen2_5_vl"): lambda folder: {"path": "demo", "device": "cpu"},
}
