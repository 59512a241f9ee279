"""The demo checkpoint as the two GGUF files that llama.cpp reads, so that a real server can be tried.

    python -m tools.demo_vlm.to_gguf FOLDER

writes FOLDER/demo.gguf (the language model) and FOLDER/mmproj.gguf (the image encoder), in float32. Tensors are
renamed, and two are cut as llama.cpp wants them: queries, keys and values, and the two frames of a patch. The
word-level tokenizer becomes llama.cpp's WordPiece with whole words only, which splits text in the same way.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from leverplus_core import find_checkpoint

Tensors = Iterator[tuple[str, NDArray[np.float32]]]

CHAT_TEMPLATE = """\
{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}\
{% for content in message['content'] %}{{ content['text'] }}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""Qwen's chat format; llama.cpp puts its own mark as a text where an image is, and writes the marks around it."""
EPSILON = 1e-6
"""Of the normalizations in the image encoder, which the configuration does not name."""
IMAGE_SIDE = 56


def to_gguf(folder: Path) -> tuple[Path, Path]:
    """Write the packaged demo checkpoint to `folder`; the files of the language model and of the image encoder."""
    source = Path(find_checkpoint("demo"))
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    weights = load_file(source / "model.safetensors")
    folder.mkdir(parents=True, exist_ok=True)
    language, vision = folder / "demo.gguf", folder / "mmproj.gguf"

    writer = gguf.GGUFWriter(language, "qwen2vl")
    _describe_language(writer, config["text_config"])
    _describe_tokenizer(writer, json.loads((source / "tokenizer.json").read_text(encoding="utf-8")))
    _write(writer, _language_tensors(weights, config["text_config"]["num_hidden_layers"]))

    writer = gguf.GGUFWriter(vision, "clip")
    preprocessor = json.loads((source / "preprocessor_config.json").read_text(encoding="utf-8"))
    _describe_vision(writer, config["vision_config"], preprocessor)
    _write(writer, _vision_tensors(weights, config["vision_config"]["depth"]))
    return language, vision


def _describe_language(writer: gguf.GGUFWriter, text: dict[str, Any]) -> None:
    writer.add_name("leverplus demo")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(text["max_position_embeddings"])
    writer.add_embedding_length(text["hidden_size"])
    writer.add_block_count(text["num_hidden_layers"])
    writer.add_feed_forward_length(text["intermediate_size"])
    writer.add_head_count(text["num_attention_heads"])
    writer.add_head_count_kv(text["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(text["rms_norm_eps"])
    writer.add_rope_freq_base(text["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_sections([*text["rope_parameters"]["mrope_section"], 0])


def _describe_tokenizer(writer: gguf.GGUFWriter, tokenizer: dict[str, Any]) -> None:
    ids: dict[str, int] = tokenizer["model"]["vocab"]
    control = {token["content"] for token in tokenizer["added_tokens"]}
    words = sorted(ids, key=lambda word: ids[word])
    writer.add_tokenizer_model("bert")
    # The mark says that a word begins here; since no token lacks it, a word that is not there as a whole is unknown.
    writer.add_token_list([word if word in control else f"\u2581{word}" for word in words])
    kinds = gguf.TokenType
    writer.add_token_types([kinds.CONTROL if word in control else kinds.NORMAL for word in words])
    writer.add_bos_token_id(ids["<|im_start|>"])
    writer.add_eos_token_id(ids["<|im_end|>"])
    writer.add_sep_token_id(ids["<|im_end|>"])
    writer.add_pad_token_id(ids["<|endoftext|>"])
    writer.add_unk_token_id(ids["<unk>"])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_sep_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _describe_vision(writer: gguf.GGUFWriter, vision: dict[str, Any], preprocessor: dict[str, Any]) -> None:
    writer.add_type("mmproj")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("qwen2.5vl_merger")
    writer.add_vision_projection_dim(vision["out_hidden_size"])
    writer.add_vision_image_size(IMAGE_SIDE)
    writer.add_vision_patch_size(vision["patch_size"])
    writer.add_vision_embedding_length(vision["hidden_size"])
    writer.add_vision_feed_forward_length(vision["intermediate_size"])
    writer.add_vision_block_count(vision["depth"])
    writer.add_vision_head_count(vision["num_heads"])
    writer.add_vision_attention_layernorm_eps(EPSILON)
    writer.add_vision_image_mean(preprocessor["image_mean"])
    writer.add_vision_image_std(preprocessor["image_std"])
    writer.add_vision_use_silu(True)
    writer.add_vision_n_wa_pattern(0)  # every layer attends to the whole image


def _language_tensors(weights: dict[str, NDArray[np.float32]], layers: int) -> Tensors:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2VL, layers)
    for name, tensor in weights.items():
        if not name.startswith("visual."):
            yield _renamed(names, name), tensor


def _vision_tensors(weights: dict[str, NDArray[np.float32]], layers: int) -> Tensors:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MMPROJ, layers)
    for name, tensor in weights.items():
        if name == "visual.patch_embed.proj.weight":  # (width, color, frame, row, column)
            for frame, suffix in enumerate(("", ".1")):
                yield f"{_renamed(names, name)}{suffix}", np.ascontiguousarray(tensor[:, :, frame])
        elif ".attn.qkv." in name:
            for part, rows in zip("qkv", np.split(tensor, 3), strict=True):
                yield _renamed(names, name.replace("qkv", part)), rows
        elif name.startswith("visual."):
            yield _renamed(names, name), tensor


def _renamed(names: gguf.TensorNameMap, name: str) -> str:
    found = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise ValueError(f"llama.cpp has no name for the tensor {name}")
    return str(found)


def _write(writer: gguf.GGUFWriter, tensors: Tensors) -> None:
    for name, tensor in tensors:
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    for path in to_gguf(Path(sys.argv[1])):
        print(path)
