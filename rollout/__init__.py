"""How are completions made? Tasks, prompts, vLLM engines in Ray actors, and the pool that routes to them."""
