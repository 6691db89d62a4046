"""Which policy is trained: a tiny Qwen2 built from its shape, or a Hugging Face folder."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from conf.schema.base import ModelText, Section, Word

SMALLEST_VOCABULARY = 264
"""Tokens that the tiny policy's tokenizer always has: all bytes and the added tokens (trainer/warmup/tokenizer.py)."""


class TinyModel(Section):
    """A small Qwen2 with random weights; its tokenizer is trained on the task corpus by the warm-up stage."""

    type: Literal["tiny"] = "tiny"
    hidden_size: PositiveInt = 128
    intermediate_size: PositiveInt = 512
    layers: PositiveInt = 4
    heads: PositiveInt = 2
    kv_heads: PositiveInt = 2
    vocabulary: PositiveInt = 1024
    """Upper bound on the tokenizer's size, in tokens."""
    max_positions: PositiveInt = 2048

    @model_validator(mode="after")
    def _heads_divide(self) -> "TinyModel":
        if self.hidden_size % self.heads or self.heads % self.kv_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of heads {self.heads}, "
                f"and heads a multiple of kv_heads {self.kv_heads}"
            )
        return self


class PretrainedModel(Section):
    """A Hugging Face folder (config, safetensors, tokenizer), or a model's name, which is downloaded."""

    type: Literal["pretrained"] = "pretrained"
    path: ModelText
    revision: Word | None = None
    random_weights: bool = False
    """Initialise from the folder's config alone (speed measurements); weights are then not read."""


ModelConfig = Annotated[TinyModel | PretrainedModel, Field(discriminator="type")]
