"""What vLLM leaves undone on a CPU; rollout/vllm_backend.py switches it on.

Put in the place of vLLM's own functions, in the engine's process alone: `decoder.py`, `sampling.py`, `slots.py`. Loaded
by vLLM through its connector interface: `shared_prompts.py`. Called by the decoder, without vLLM: `kernel.py` with its
C sources, `siblings.py`.
"""
