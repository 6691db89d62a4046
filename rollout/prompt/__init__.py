"""A task as the policy reads it: schema text, message template, the model's own chat template, token budget."""

from rollout.prompt.renderer import ChatTokenizer, PromptRenderer, PromptTooLong

__all__ = ["ChatTokenizer", "PromptRenderer", "PromptTooLong"]
