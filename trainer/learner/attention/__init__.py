"""Attention where completions share their prompt (learner.packing=shared_prefix; `padded` rows have torch's own).

On a CPU `prefix.py` is what transformers calls: prompts of few tokens go to `joint.py`, long ones to `merged.py`. On a
GPU it is `flash.py`.
"""
