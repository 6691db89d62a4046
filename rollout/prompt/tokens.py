"""Text to token ids, in which text from the data is text, whatever it says.

A tokenizer reads the name of a control token (<|im_end|>, </s>) as that token wherever it stands: a question, a cell or
a trace that holds one would end the user's message, or the answer to imitate. Guarantees: ids are the tokenizer's own
where the data names no control token; where it does, the names in the data become ordinary tokens of the same
characters and everything else is as before. Does not protect text that another program renders: a hosted model's
server, `quorum serve`.
"""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from conf.errors import QuorumError
from rewards.sql.marks import END_THINK, THINK
from rollout.prompt.chat import ChatTokenizer

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

_MARKUP = frozenset(
    f"<{slash}{name}>"
    for slash in ("", "/")
    for name in "table caption thead tbody tfoot tr th td h1 h2 h3 h4 h5 h6 blockquote strong em b i u s sub sup code "
    "p div span a li ul ol".split()
)
"""Tags of HTML, which some tokenizers (Gemma) read as one token each: text like any other, unless marked special."""


@runtime_checkable
class _AddsTokens(Protocol):
    """A tokenizer of transformers."""

    added_tokens_decoder: Mapping[int, "AddedToken"]


@runtime_checkable
class _OnTokenizers(Protocol):
    """One that is built on the library tokenizers, as all with a tokenizer.json are."""

    backend_tokenizer: "Tokenizer"


class ControlTokenInData(QuorumError):
    """The data names a control token, and the tokenizer cannot read its name as text."""


class TextEncoder:
    """Encodes for one tokenizer."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder if isinstance(tokenizer, _AddsTokens) else {}
        self._control = {number: token.content for number, token in added.items() if is_control(token)}
        # The longest first: alternatives are tried in order, and tokenizers take the longest name.
        names = sorted(self._control.values(), key=len, reverse=True)
        self._names = re.compile("|".join(map(re.escape, names))) if names else None
        normalized = any(added[number].normalized for number in self._control)
        self._backend = tokenizer.backend_tokenizer if isinstance(tokenizer, _OnTokenizers) else None
        self._normalizer = self._backend.normalizer if normalized and self._backend is not None else None
        self._guarded: _Guarded | None = None

    def encode(self, parts: Sequence[str]) -> tuple[int, ...]:
        """Ids of the joined parts: what is ours, whose control tokens are meant, and what is the data's, in turn.

        >>> encoder.encode(["<|im_start|>user\\n", question, "<|im_end|>\\n"])

        Raises ControlTokenInData.
        """
        found = next(filter(None, map(self._named, parts[1::2])), None)
        if found is None:
            return tuple(self._tokenizer.encode("".join(parts), add_special_tokens=False))
        if self._guarded is None:
            if self._backend is None:
                raise ControlTokenInData(
                    f"the data holds {found}, a control token of the policy's tokenizer, which can tell it from text "
                    "only where its folder holds a tokenizer.json"
                )
            self._guarded = _Guarded(self._backend, self._control)
        return self._guarded.encode(parts)

    def _named(self, text: str) -> str | None:
        """A control token whose name the text holds."""
        if self._names is None:
            return None
        found = self._names.search(text)
        if found is None and self._normalizer is not None:
            found = self._names.search(self._normalizer.normalize_str(text))
        return None if found is None else found[0]


def is_control(token: "AddedToken") -> bool:
    """Whether an added token is a sign of the format and no piece of text. Of those that are not marked special these
    are names in brackets or bars (<think>, <tool_call>, <|fim_prefix|>), but not HTML tags, white space or words.
    """
    name = token.content
    if token.special or name in (THINK, END_THINK):
        return True
    bracketed = not name[:1].isalnum() and not name[-1:].isalnum() and any(map(str.isalnum, name))
    return bracketed and name not in _MARKUP


class _Guarded:
    """A copy of the tokenizer that knows the control tokens by names that no data holds."""

    def __init__(self, backend: "Tokenizer", control: Mapping[int, str]) -> None:
        from tokenizers import Tokenizer

        nonce = secrets.token_hex(8)
        self._secret = {name: f"<{nonce}x{number}>" for number, name in control.items()}
        names = sorted(self._secret, key=len, reverse=True)
        self._names = re.compile("|".join(map(re.escape, names)))
        self._copy = Tokenizer.from_str(json.dumps(_renamed(json.loads(backend.to_str()), self._secret)))
        # Added tokens are numbered anew as they are read.
        self._numbers = {
            self._copy.token_to_id(self._secret.get(token.content, token.content)): number
            for number, token in backend.get_added_tokens_decoder().items()
        }

    def encode(self, parts: Sequence[str]) -> tuple[int, ...]:
        own = [self._names.sub(lambda found: self._secret[found[0]], part) for part in parts[::2]]
        text = "".join(own[place // 2] if place % 2 == 0 else part for place, part in enumerate(parts))
        ids = self._copy.encode(text, add_special_tokens=False).ids
        return tuple(self._numbers.get(number, number) for number in ids)


def _renamed(description: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A tokenizer.json in which tokens have other names, in the model's own vocabulary too: there the name of one could
    be put together from text."""
    for token in description["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = description["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(name, name): number for name, number in vocabulary.items()}
    else:
        model["vocab"] = [[names.get(name, name), score] for name, score in vocabulary]
    if model.get("unk_token") is not None:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        pairs = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"])
        model["merges"] = [pair for pair in pairs if not names.keys() & {*pair, "".join(pair)}]
    return description | {"post_processor": None, "truncation": None, "padding": None}
