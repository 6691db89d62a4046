"""Loads a policy's tokenizer from a Hugging Face folder or the local cache, with one clear error."""

from pathlib import Path
from typing import TYPE_CHECKING

from conf.errors import QuorumError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


NAMES = ("tokenizer.json", "tokenizer_config.json", "config.json")
"""A folder without any of these holds no tokenizer."""
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "spm.model",
    "sentencepiece.model",
    "sentencepiece.bpe.model",
    "tiktoken.model",
    "tekken.json",
    "chat_template.jinja",
    "chat_template.json",
)
"""What a tokenizer may consist of, beside more of its chat templates."""
OTHER_TEMPLATES = "additional_chat_templates"
"""Folder of a tokenizer with more than one chat template."""


def tokenizer_files(folder: Path) -> tuple[str, ...]:
    """The files of a folder that its tokenizer consists of, by their paths below it."""
    others = sorted(f"{OTHER_TEMPLATES}/{file.name}" for file in (folder / OTHER_TEMPLATES).glob("*.jinja"))
    return tuple(name for name in (*TOKENIZER_FILES, *others) if (folder / name).is_file())


def load_tokenizer(path: str | Path, revision: str | None = None) -> "PreTrainedTokenizerBase":
    """Raises QuorumError when there is no usable tokenizer, or when it lacks the end token that stops a completion."""
    folder = Path(path)
    if folder.is_dir() and not any((folder / name).is_file() for name in NAMES):
        raise QuorumError(f"no tokenizer can be loaded from {path}: the folder holds neither {' nor '.join(NAMES)}")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = first_line(error, otherwise="no tokenizer")
        raise QuorumError(f"no tokenizer can be loaded from {path}: {reason}") from error
    if tokenizer.eos_token_id is None:
        raise QuorumError(
            f"the tokenizer of {path} has no eos_token, so no completion would ever stop: set one in its config"
        )
    return tokenizer
