"""Messages to text through the policy's own chat template.

Guarantees: what the messages say stands in the text as it is. A template that knows no system message, or shows none,
gets its text before the user's, and `remark` says so; any other that refuses the messages, fails, or does not show them
is TemplateUnfit, with the template's own reason.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from jinja2 import TemplateError

from conf.errors import QuorumError, first_line
from rollout.prompt.messages import Message
from rollout.prompt.opened import TemplateUnfit, opened_by

_FAULTS = (TemplateError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError)
"""What rendering raises: jinja's own errors, and whatever an expression of the template does."""


class ChatTokenizer(Protocol):
    """The part of a transformers tokenizer that rendering needs."""

    chat_template: Any

    def apply_chat_template(
        self, conversation: list[Message], *, tokenize: bool, add_generation_prompt: bool, enable_thinking: bool
    ) -> Any: ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    parts: tuple[str, ...]
    """The text in pieces: what is ours and the template's, and what the user's message says, in turn."""
    opened: str
    """What the text has written of the answer: "<think>" or nothing."""

    @property
    def text(self) -> str:
        return "".join(self.parts)


class Chat:
    """One tokenizer's chat template; every question has the same system message."""

    def __init__(self, tokenizer: ChatTokenizer, *, thinking: bool) -> None:
        """Raises QuorumError without a template."""
        if not tokenizer.chat_template:
            raise QuorumError(
                "the policy's tokenizer has no chat template: use an instruct model, or add chat_template.jinja to its "
                "folder"
            )
        self._tokenizer = tokenizer
        self._thinking = thinking
        self._refusal: str | None = None
        self.remark = ""
        """How the template made us change the messages, in a sentence, once something was rendered; '': it did not."""

    def render(self, messages: list[Message]) -> Rendered:
        """The text that ends where the answer begins, of a user's message or of a system's and a user's.

        Raises TemplateUnfit.
        """
        text, opened = self._shown(messages) if len(messages) == 1 else self._with_system(messages)
        said = messages[-1]["content"].strip()  # as templates trim it
        pieces = text.split(said) if said else [text]
        parts = [part for piece in pieces for part in (piece, said)][:-1]
        return Rendered(parts=tuple(parts), opened=opened)

    def _with_system(self, messages: list[Message]) -> tuple[str, str]:
        """The first question decides for all whether the system message stands by itself."""
        if self._refusal is not None:
            return self._shown(_folded(messages) if self._refusal else messages)
        try:
            shown = self._shown(messages)
        except TemplateUnfit as error:
            try:
                shown = self._shown(_folded(messages))
            except TemplateUnfit:
                raise error from error.__cause__
            self._fold(_refusal(error))
            return shown
        if messages[0]["content"].strip() in shown[0]:
            self._refusal = ""
            return shown
        self._fold("shows no system message")
        return self._shown(_folded(messages))

    def _fold(self, refusal: str) -> None:
        self._refusal = refusal
        self.remark = (
            f"the chat template of the policy's tokenizer {refusal}: what it says now stands at the beginning of the "
            "user's message"
        )

    def _shown(self, messages: list[Message]) -> tuple[str, str]:
        """The text, and what it has opened of the answer."""
        try:
            text = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=self._thinking
            )
        except _FAULTS as error:
            reason = first_line(error, otherwise=type(error).__name__)
            raise TemplateUnfit(
                f"the chat template of the policy's tokenizer refuses the messages ({reason}): put one that shows them "
                "into chat_template.jinja of its folder"
            ) from error
        return text, opened_by(text, messages, thinking=self._thinking)


def _folded(messages: list[Message]) -> list[Message]:
    return [{"role": "user", "content": "\n\n".join(message["content"] for message in messages)}]


def _refusal(error: TemplateUnfit) -> str:
    cause = error.__cause__
    if not isinstance(cause, Exception):
        return "shows no question beside a system message"
    return f"refuses a system message ({first_line(cause, otherwise=type(cause).__name__)})"
