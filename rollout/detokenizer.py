"""From sampled tokens to the text that is scored.

Special tokens (end, padding, roles) are no part of an answer, the think tags always are: some models have them as
special tokens, and decoding would drop them with the others.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rewards.sql.marks import END_THINK, THINK

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Detokenizer:
    """Decodes with one tokenizer."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        special = {number: token.content for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._dropped = {number for number, content in special.items() if content not in (THINK, END_THINK)}
        self._special_tags = len(self._dropped) < len(special)

    def texts(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        """One text a sequence of token ids, without special tokens, with think tags."""
        if not self._special_tags:
            return self._tokenizer.batch_decode(sequences, skip_special_tokens=True)
        kept = [[token for token in sequence if token not in self._dropped] for sequence in sequences]
        return self._tokenizer.batch_decode(kept, skip_special_tokens=False)
