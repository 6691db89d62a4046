"""A task as the policy reads it: schema text, message template, the model's own chat template, token budget."""

from rollout.prompt.chat import ChatTokenizer
from rollout.prompt.renderer import PromptRenderer, PromptTooLong

__all__ = ["ChatTokenizer", "PromptRenderer", "PromptTooLong"]
