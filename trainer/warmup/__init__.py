"""The warm-up stage: supervised fine-tuning on the task source's traces, before GRPO. `python -m trainer.warmup` runs it alone."""
