"""The tiny policy's tokenizer: Qwen2's own class with a byte-level BPE trained on the task corpus.

Guarantees: AutoTokenizer loads the same tokenizer from the policy's folder (for a Qwen2 config it always takes Qwen2's
class, with Qwen2's way of splitting words); text in Unicode's composed form round-trips exactly, because every byte has
a token. <think> and </think> are ordinary tokens of their own: they survive decoding without special tokens.
"""

from collections.abc import Iterable

from tokenizers import AddedToken, pre_tokenizers
from transformers import PreTrainedTokenizerBase, Qwen2Tokenizer

BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
_ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
_THINK = ("<think>", "</think>")
SMALLEST_VOCABULARY = 256 + 3 + len(_ROLES) + len(_THINK)
"""Tokens that are always there: all bytes, and the added tokens. The schema knows it too (conf/schema/model.py)."""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer(corpus: Iterable[str], vocabulary: int, max_positions: int) -> PreTrainedTokenizerBase:
    """A tokenizer of at most `vocabulary` tokens; the same corpus gives the same tokenizer."""
    untrained = Qwen2Tokenizer(unk_token=PAD, bos_token=BEGIN, eos_token=END, pad_token=PAD)
    tokenizer = untrained.train_new_from_iterator(
        corpus,
        vocabulary - len(_THINK),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        new_special_tokens=[AddedToken(token, special=True, normalized=False) for token in _ROLES],
        show_progress=False,
    )
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in _THINK])
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = max_positions
    return tokenizer
