"""A Qwen2 with random weights: python -m measure.throughput.random_policy MODEL TOKENIZER DTYPE FOLDER

MODEL is the JSON of a model section; its shape comes from the section, its folder or its published name, so nothing is
downloaded. TOKENIZER is a policy folder; a tiny model takes the size of its vocabulary.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace

import torch
from pydantic import TypeAdapter
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from conf.schema.model import ModelConfig
from rollout.shape import shape_of, to_config

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MAX_POSITIONS = 32768


def main(arguments: Sequence[str]) -> int:
    text, source, dtype, folder = arguments
    model: ModelConfig = TypeAdapter(ModelConfig).validate_json(text)
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    shape = shape_of(model)
    if model.type == "tiny":
        shape = replace(shape, vocabulary=len(tokenizer))
    config = Qwen2Config(
        **to_config(shape),
        max_position_embeddings=MAX_POSITIONS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(DTYPES[dtype])
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):  # 3 x 10^9 numbers take half a minute on a CPU
        Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
