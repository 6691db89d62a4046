"""The warm-up stage: supervised fine-tuning on the task source's traces, before GRPO or alone."""
