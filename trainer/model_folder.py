"""Writes a model's folder: config and weights by transformers, everything else as the folder it came from has it.

Guarantees: generation_config.json and the tokenizer's files are the source's, byte for byte. transformers reads
generation configs that it then refuses to write (a temperature beside do_sample=false, as published models have them),
and nothing here ever changes one. Does not make the folder atomic: each caller writes into a hidden one.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollout.prompt.tokenizer import tokenizer_files

if TYPE_CHECKING:
    import torch

GENERATION = "generation_config.json"


def write_model(
    model: Any, folder: Path, source: Path | None, weights: "dict[str, torch.Tensor] | None" = None
) -> None:
    """config.json and safetensors of a transformers model, and the generation config of `source`, where it has one.

    Tensors have the names by which the learner and its engines know them, whatever those of the first folder were.
    `source` None: the model was made here, and transformers writes the generation config that follows from its own.
    `weights` None: the model's own. Raises whatever transformers raises: it names no errors of its own.
    """
    if source is None:
        model.save_pretrained(folder, state_dict=weights, safe_serialization=True, save_original_format=False)
        return
    from transformers import GenerationConfig

    held = model.generation_config
    model.generation_config = GenerationConfig()  # one that can always be written, and is replaced below
    try:
        model.save_pretrained(folder, state_dict=weights, safe_serialization=True, save_original_format=False)
    finally:
        model.generation_config = held
    (folder / GENERATION).unlink(missing_ok=True)
    if (source / GENERATION).is_file():
        shutil.copyfile(source / GENERATION, folder / GENERATION)


def copy_tokenizer(folder: Path, source: Path) -> None:
    """The tokenizer's files of `source`, which never change."""
    for name in tokenizer_files(source):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy2(source / name, folder / name)
