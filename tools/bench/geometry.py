"""The models that are compared, at three sizes, and the photos they see.

`demo` is the packaged checkpoint. `mid` and `3b` have random weights: what a matrix product costs does not depend on
its numbers. `3b` is Qwen2.5-VL-3B's true geometry; `mid` keeps its ratio of vision to language arithmetic (0.95 an
image of 391 visual tokens) at a twenty-fifth of the size, so that it predicts.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)
from transformers.initialization import no_init_weights

from leverplus_core import Dtype, fingerprint
from leverplus_models.qwen2_5_vl import Qwen25Vl
from tools.demo_vlm.geometry import SPECIAL

MID = {
    "text_config": {
        "hidden_size": 1024, "num_hidden_layers": 5, "num_attention_heads": 8, "num_key_value_heads": 2,
        "intermediate_size": 5504, "vocab_size": 4096,
    },
    "vision_config": {
        "hidden_size": 448, "depth": 8, "num_heads": 7, "intermediate_size": 1200, "fullatt_block_indexes": [7],
    },
}  # fmt: skip
THREE_B = {
    "text_config": {
        "hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2,
        "intermediate_size": 11008, "vocab_size": 151_936,
    },
    "vision_config": {
        "hidden_size": 1280, "depth": 32, "num_heads": 16, "intermediate_size": 3420,
        "fullatt_block_indexes": [7, 15, 23, 31],
    },
}  # fmt: skip


@dataclass(frozen=True)
class Loaded:
    """A model in memory: the arms of a process share its weights, each with settings of its own."""

    model: Any
    tokenizer: Any
    processor: Any
    settings: dict[str, Any]
    content: str

    def backend(self, engine: dict[str, Any]) -> Qwen25Vl:
        """A backend with empty caches."""
        part = Qwen25Vl.model_validate({**self.settings, "engine": engine})
        # What `Qwen25Vl` would load from the checkpoint; its caches of images and texts stay its own.
        vars(part).update(_model=self.model, _tokenizer=self.tokenizer, _image_processor=self.processor)
        vars(part).update(_content=self.content)
        return part

    def to(self, dtype: Dtype) -> Loaded:
        """The same weights in another dtype, as a copy."""
        model = copy.deepcopy(self.model).to(getattr(torch, dtype))
        return replace(self, model=model, settings={**self.settings, "dtype": dtype})


def load_demo(dtype: Dtype, pixels: int | None = None, device: str = "cpu") -> Loaded:
    """The packaged checkpoint; `pixels` enlarges every image to so many."""
    size = {"min_pixels": pixels, "max_pixels": pixels} if pixels else {}
    settings = {"path": "demo", "dtype": dtype, "device": device, **size}
    part = Qwen25Vl.model_validate(settings)
    return Loaded(part._model, part.tokenizer, part._image_processor, settings, part.checkpoint_content)


def load_random(sizes: dict[str, Any], texts: Sequence[str], dtype: Dtype, folder: Path, device: str = "cpu") -> Loaded:
    """A model of the given sizes with random weights, and a tokenizer trained on `texts`, kept below `folder`."""
    place = folder / f"bench-{fingerprint([sizes, list(texts)])}"
    if not (place / "config.json").is_file():  # written last
        tokenizer = _tokenizer(texts)
        tokenizer.save_pretrained(place)
        Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 640 * 480}).save_pretrained(place)
        _config(sizes, tokenizer).save_pretrained(place)
    settings = {"path": str(place), "dtype": dtype, "device": device}
    part = Qwen25Vl.model_validate(settings)
    model = random_model(Qwen2_5_VLConfig.from_pretrained(place), getattr(torch, dtype), device)
    return Loaded(model, part.tokenizer, part._image_processor, settings, part.checkpoint_content)


def random_model(config: Qwen2_5_VLConfig, dtype: torch.dtype, device: str = "cpu") -> Any:
    """Weights of standard deviation 0.02 and norms of one, in seconds and without extra memory.

    On a CPU one block of normal numbers is repeated. Its length is prime, so that no two rows of a matrix are equal.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with no_init_weights(), torch.device(device):
            model: Any = Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    finally:
        torch.set_default_dtype(before)
    block = (torch.randn(1_000_003, generator=torch.Generator().manual_seed(0)) * 0.02).to(dtype)
    with torch.no_grad():
        at = 0
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            if device != "cpu":
                weight.normal_(0.0, 0.02)
                continue
            flat = weight.view(-1)
            for start in range(0, len(flat), len(block)):
                part = flat[start : start + len(block)]
                part.copy_(block.roll(-at)[: len(part)])
                at = (at + len(part) + 7919) % len(block)
    return model.tie_weights() or model.eval()


def _tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE of at most 4,096 tokens, with Qwen's control tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token="<|im_end|>", unk_token="<unk>",
        extra_special_tokens=list(SPECIAL[1:7]), padding_side="left",
    )  # fmt: skip


def _config(sizes: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    token: dict[str, Any] = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    text, vision = sizes["text_config"], sizes["vision_config"]
    # Rotary axes share a head's half as 1 : 1.5 : 1.5, as in Qwen2.5-VL.
    half = text["hidden_size"] // text["num_attention_heads"] // 2
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [half // 4, half * 3 // 8, half * 3 // 8]}
    return Qwen2_5_VLConfig(
        text_config={
            "rope_parameters": rope, "max_position_embeddings": 32_768, "bos_token_id": None,
            "eos_token_id": token["<|im_end|>"], "pad_token_id": token["<|endoftext|>"], "tie_word_embeddings": True,
            **text,
        },
        vision_config={
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
            "out_hidden_size": text["hidden_size"], **vision,
        },
        image_token_id=token["<|image_pad|>"],
        video_token_id=token["<|video_pad|>"],
        vision_start_token_id=token["<|vision_start|>"],
        vision_end_token_id=token["<|vision_end|>"],
        tie_word_embeddings=True,
    )  # fmt: skip
