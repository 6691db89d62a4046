"""What a chat template has written of the answer before the policy writes anything: an open <think>, or nothing.

Templates of reasoning models (R1 distills, QwQ, Qwen3-Thinking) end in an open <think>; others close an empty block
where thinking is switched off. Only what the template writes behind the last message counts: a question may hold any
text.
"""

from collections.abc import Sequence

from conf.errors import QuorumError
from rewards.sql.marks import END_THINK, THINK
from rollout.prompt.messages import Message


class TemplateUnfit(QuorumError):
    """The policy's chat template contradicts prompt.thinking, fails, or changes, hides or refuses the messages."""


def opened_by(text: str, messages: Sequence[Message], *, thinking: bool) -> str:
    """THINK where the rendered `text` of the messages ends in an open one, else ''. Raises TemplateUnfit where no
    completion could have the format that `thinking` asks for.
    """
    content = messages[-1]["content"].strip()
    place = text.rfind(content)
    if place < 0:
        raise TemplateUnfit(
            "the chat template of the policy's tokenizer changes the text of the question, or does not show it: put "
            "one that shows messages as they are into chat_template.jinja of its folder"
        )
    tail = text[place + len(content) :]
    opened = tail.rfind(THINK) > tail.rfind(END_THINK)
    if thinking and not opened and END_THINK in tail:
        raise TemplateUnfit(
            "the chat template of the policy's tokenizer closes the <think> block before the answer begins, so no "
            "completion can have the format: set prompt.thinking=false (in training also reward.format.thinking=false)"
        )
    if opened and not thinking:
        raise TemplateUnfit(
            "the chat template of the policy's tokenizer opens <think> in the prompt, and with prompt.thinking=false "
            "the whole completion is taken for SQL: set prompt.thinking=true (in training also "
            "reward.format.thinking=true)"
        )
    return THINK if opened else ""
