"""Tiny random checkpoints of vision-language architectures, made without a network and without torchvision.

Each has the processor class of its family, a byte-level tokenizer, and a chat template like that of its released
models. Of families whose processor wants a video processor, which needs torchvision, the processor is put together
without one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'image' %}IMG{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As LLaVA-1.5: words for roles, a space before the answer, and no system turn.
ROLES = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    "{% if m.role == 'user' %}USER: {% else %}ASSISTANT: {% endif %}{% for c in m.content %}"
    "{% if c.type == 'image' %}IMG\n{% else %}{{ c.text }}{% endif %}{% endfor %}"
    "{% if m.role == 'assistant' %}</s>{% else %} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
# As Gemma 3: roles alternate, and texts are trimmed.
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}<start_of_turn>"
    "{{ 'model' if m.role == 'assistant' else m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'image' %}IMG{% else %}{{ c.text | trim }}{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
TEXT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.3, "max_position_embeddings": 4096,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip


def tokenizer(end: str, *controls: str, **named: str) -> Any:
    """Bytes, some merges (two line breaks among them), and control tokens; `named` are attributes, as image_token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ċ", "Ċ"), ("r", "e"), ("Ġ", "r"), ("a", "n"), ("Ġ", "a")]
    vocab = {token: i for i, token in enumerate([*alphabet, *("".join(pair) for pair in merges)])}
    made = Tokenizer(models.BPE(vocab, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    made.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    found = tf.PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token=end,
        extra_special_tokens=named or None,
        model_input_names=["input_ids", "attention_mask"],
    )
    found.add_tokens([tf.AddedToken(c, special=True, normalized=False) for c in controls], special_tokens=True)
    return found


def _text(tokens: Any, **more: Any) -> dict[str, Any]:
    ids = {
        "pad_token_id": tokens.pad_token_id,
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
    }
    return {**TEXT, "vocab_size": len(tokens) + 3, **ids, **more}


def _square(side: int = 28) -> dict[str, Any]:
    return {"size": {"height": side, "width": side}}


def llava(tokens: Any = None) -> tuple[Any, Any]:
    """CLIP and Llama; the first token of the image encoder is left out."""
    tokens = tokenizer("</s>", "<image>")
    image = tf.CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = tf.LlavaProcessor(
        image, tokens, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=ROLES.replace("IMG", "<image>"),
    )  # fmt: skip
    config = tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(**VISION, projection_dim=32), text_config=tf.LlamaConfig(**_text(tokens)),
        image_token_id=processor.image_token_id, vision_feature_layer=-2,
    )  # fmt: skip
    return tf.LlavaForConditionalGeneration(config), processor


def llava_next() -> tuple[Any, Any]:
    """As LLaVA, with tiles by the shape of an image (anyres), and Mistral."""
    tokens = tokenizer("</s>", "<image>")
    grid = [[28, 56], [56, 28], [56, 56]]
    image = tf.LlavaNextImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=grid
    )
    processor = tf.LlavaNextProcessor(
        image, tokens, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=ROLES.replace("IMG", "<image>"),
    )  # fmt: skip
    config = tf.LlavaNextConfig(
        vision_config=tf.CLIPVisionConfig(**VISION, projection_dim=32),
        text_config=tf.MistralConfig(**_text(tokens), sliding_window=None),
        image_token_id=processor.image_token_id, image_grid_pinpoints=grid, vision_feature_layer=-2,
    )  # fmt: skip
    return tf.LlavaNextForConditionalGeneration(config), processor


def idefics3() -> tuple[Any, Any]:
    """Tokens around an image, and tiles that can be switched off."""
    tokens = tokenizer(
        "<end_of_utterance>", "<image>", "<fake_token_around_image>", "<global-img>", "<|im_start|>", "<|im_end|>"
    )
    image = tf.Idefics3ImageProcessorPil(size={"longest_edge": 56}, max_image_size={"longest_edge": 28})
    template = CHATML.replace("IMG", "<image>").replace("<|im_end|>", "<end_of_utterance>")
    processor = tf.Idefics3Processor(image, tokens, image_seq_len=1, chat_template=template)
    config = tf.Idefics3Config(
        vision_config={**VISION}, text_config=tf.LlamaConfig(**_text(tokens)).to_dict(), scale_factor=2,
        image_token_id=processor.image_token_id, pad_token_id=tokens.pad_token_id,
    )  # fmt: skip
    return tf.Idefics3ForConditionalGeneration(config), processor


def gemma3() -> tuple[Any, Any]:
    """Sliding layers, tokens of an image that see each other, and line breaks around an image."""
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokens = tokenizer("<end_of_turn>", "<start_of_turn>", "<end_of_turn>", *named.values(), **named)
    processor = tf.Gemma3Processor(
        tf.Gemma3ImageProcessorPil(**_square()), tokens, image_seq_length=4,
        chat_template=GEMMA.replace("IMG", "<start_of_image>"),
    )  # fmt: skip
    text = tf.Gemma3TextConfig(
        **_text(tokens, num_hidden_layers=4), head_dim=8, query_pre_attn_scalar=8, sliding_window=64,
        layer_types=["sliding_attention", "full_attention"] * 2,
    )  # fmt: skip
    config = tf.Gemma3Config(
        text_config=text.to_dict(), vision_config=tf.SiglipVisionConfig(**VISION).to_dict(), mm_tokens_per_image=4,
        image_token_id=tokens.image_token_id, boi_token_id=tokens.boi_token_id, eoi_token_id=tokens.eoi_token_id,
    )  # fmt: skip
    return tf.Gemma3ForConditionalGeneration(config), processor


def without_video(cls: Any, image: Any, tokens: Any, **more: Any) -> Any:
    """A processor of `cls` for images and text, whose video processor is None."""

    class ImagesOnly(cls):  # type: ignore[misc]
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument_name == "video_processor":
                return None
            return super().check_argument_for_proper_class(argument_name, argument)

    ImagesOnly.__name__ = cls.__name__
    return ImagesOnly(image, tokens, None, **more)


def _qwen(cls: Any, config: Any, vision: Mapping[str, Any], side: int, text: Mapping[str, Any], model: Any) -> Any:
    tokens = tokenizer(
        "<|im_end|>", "<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
    )
    size = {"shortest_edge": 4 * side * side, "longest_edge": 16 * side * side}
    image = tf.Qwen2VLImageProcessorPil(size=size, patch_size=side // 2, merge_size=2)
    template = CHATML.replace("IMG", "<|vision_start|><|image_pad|><|vision_end|>")
    processor = without_video(cls, image, tokens, chat_template=template)
    found = {
        name: tokens.convert_tokens_to_ids(token)
        for name, token in {
            "image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>",
            "vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>",
        }.items()
    }  # fmt: skip
    made = config(text_config=_text(tokens, **text), vision_config=dict(vision), **found)
    return model(made), processor


def qwen2_vl() -> tuple[Any, Any]:
    """Positions on three axes; images of their own shapes."""
    vision = {"embed_dim": 32, "hidden_size": 32, "depth": 2, "num_heads": 4, "patch_size": 14, "mlp_ratio": 2}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    return _qwen(  # type: ignore[no-any-return]
        tf.Qwen2VLProcessor, tf.Qwen2VLConfig, vision, 28, {"rope_parameters": rope}, tf.Qwen2VLForConditionalGeneration
    )


def qwen3_vl() -> tuple[Any, Any]:
    """Features of the image encoder's layers enter the first layers of the language model (DeepStack)."""
    vision = {
        "hidden_size": 32, "intermediate_size": 48, "depth": 3, "num_heads": 4, "patch_size": 16, "out_hidden_size": 32,
        "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 16, "spatial_merge_size": 2,
    }  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0, "mrope_interleaved": True}
    text = {"rope_parameters": rope, "head_dim": 8}
    return _qwen(  # type: ignore[no-any-return]
        tf.Qwen3VLProcessor, tf.Qwen3VLConfig, vision, 32, text, tf.Qwen3VLForConditionalGeneration
    )


def internvl() -> tuple[Any, Any]:
    """Tiles that can be switched off, between tokens of their own, and Qwen2."""
    named = {
        "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }  # fmt: skip
    tokens = tokenizer("<|im_end|>", "<|im_start|>", *named.values(), **named)
    processor = without_video(
        tf.InternVLProcessor, tf.GotOcr2ImageProcessorPil(**_square()), tokens, image_seq_length=1,
        chat_template=CHATML.replace("IMG", "<IMG_CONTEXT>\n"),
    )  # fmt: skip
    config = tf.InternVLConfig(
        vision_config={**VISION, "image_size": [28, 28], "patch_size": [14, 14]},
        text_config=tf.Qwen2Config(**_text(tokens)).to_dict(), image_token_id=tokens.context_image_token_id,
        image_seq_length=1,
    )  # fmt: skip
    return tf.InternVLForConditionalGeneration(config), processor


def llava_onevision() -> tuple[Any, Any]:
    """One image of a prompt is cut into tiles, several are not."""
    tokens = tokenizer("<|im_end|>", "<|im_start|>", "<image>", "<video>")
    grid = [[28, 56], [56, 28], [56, 56]]
    image = tf.LlavaOnevisionImageProcessorPil(**_square(), image_grid_pinpoints=grid)
    processor = without_video(
        tf.LlavaOnevisionProcessor, image, tokens, num_image_tokens=4, vision_feature_select_strategy="full",
        chat_template=CHATML.replace("IMG", "<image>\n"),
    )  # fmt: skip
    config = tf.LlavaOnevisionConfig(
        vision_config=tf.SiglipVisionConfig(**VISION).to_dict(), text_config=tf.Qwen2Config(**_text(tokens)).to_dict(),
        image_token_id=processor.image_token_id, video_token_id=processor.video_token_id, image_grid_pinpoints=grid,
    )  # fmt: skip
    return tf.LlavaOnevisionForConditionalGeneration(config), processor


class RowsOfPatches(tf.ProcessorMixin):
    """As PixtralProcessor, which cannot be imported without torchvision: a token after each row of an image."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None) -> None:
        self.image_token = "[IMG]"
        self.image_token_id = tokenizer.convert_tokens_to_ids("[IMG]")
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def _process_images(self, images: Any, **kwargs: Any) -> Any:
        return super()._process_images(images, **{**kwargs, "patch_size": 28})

    def replace_image_token(self, image_inputs: Any, image_idx: int, **kwargs: Any) -> str:
        height, width = image_inputs["image_sizes"][image_idx]
        rows = ["[IMG]" * (int(width) // 28)] * (int(height) // 28)
        return "[IMG_BREAK]".join(rows) + "[IMG_END]"


def mistral3() -> tuple[Any, Any]:
    """Pixtral, whose images keep their shape, and Mistral; roles alternate."""
    tokens = tokenizer("</s>", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "<start_of_turn>", "<end_of_turn>")
    image = tf.PixtralImageProcessorPil(size={"longest_edge": 84}, patch_size={"height": 28, "width": 28})
    processor = RowsOfPatches(image, tokens, chat_template=GEMMA.replace("IMG", "[IMG]"))
    vision = {**VISION, "image_size": 84, "head_dim": 8}
    config = tf.Mistral3Config(
        vision_config=tf.PixtralVisionConfig(**vision).to_dict(), vision_feature_layer=-1, spatial_merge_size=2,
        text_config=tf.MistralConfig(**_text(tokens), sliding_window=None).to_dict(),
        image_token_id=processor.image_token_id,
    )  # fmt: skip
    return tf.Mistral3ForConditionalGeneration(config), processor


def aya_vision() -> tuple[Any, Any]:
    """Words inside of an image's tokens, and Cohere 2 with its sliding layers."""
    controls = (
        "<image>",
        "<|START_OF_IMG|>",
        "<|END_OF_IMG|>",
        "<|IMG_PATCH|>",
        "<|IMG_LINE_BREAK|>",
        "TILE",
        "TILE_GLOBAL",
    )
    tokens = tokenizer("<|im_end|>", "<|im_start|>", *controls)
    processor = tf.AyaVisionProcessor(
        tf.GotOcr2ImageProcessorPil(**_square()), tokens, patch_size=14, img_size=28, downsample_factor=2,
        chat_template=CHATML.replace("IMG", "<image>"),
    )  # fmt: skip
    layers = ["sliding_attention", "sliding_attention", "full_attention"]
    text = tf.Cohere2Config(**_text(tokens), sliding_window=64, layer_types=layers)
    config = tf.AyaVisionConfig(
        vision_config=tf.SiglipVisionConfig(**VISION).to_dict(), downsample_factor=2,
        text_config=text.to_dict(),
        image_token_id=processor.image_token_id, alignment_intermediate_size=32,
    )  # fmt: skip
    return tf.AyaVisionForConditionalGeneration(config), processor


FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {
    made.__name__: made
    for made in (
        llava,
        llava_next,
        idefics3,
        gemma3,
        qwen2_vl,
        qwen3_vl,
        internvl,
        mistral3,
        aya_vision,
        llava_onevision,
    )
}
COMPOSED = ("qwen2_vl", "qwen3_vl", "internvl", "mistral3", "llava_onevision")
"""Families whose processors AutoProcessor cannot load without torchvision."""


def save(name: str, folder: Path) -> Any:
    """Write the checkpoint of a family into `folder`; returns its processor."""
    torch.manual_seed(0)
    model, processor = FAMILIES[name]()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if not float(weight.abs().sum()):  # initialized to zero, so that images would not matter
                weight.normal_(0, 0.3)
            elif weight.ndim > 1 and "embed" not in key:
                weight.mul_(2.0)
    model.save_pretrained(folder)
    if name in COMPOSED:
        processor.tokenizer.save_pretrained(folder)
        processor.image_processor.save_pretrained(folder)
    else:
        processor.save_pretrained(folder)
    return processor
