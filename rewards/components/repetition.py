"""The repetition penalty: how much of the reasoning has been said before."""


def repeated_share(reasoning: str) -> float:
    """Share of 4-grams of words that occurred before, in [0, 1]; 0 for fewer than five words."""
    words = reasoning.lower().split()
    grams = list(zip(words, words[1:], words[2:], words[3:], strict=False))
    return 1.0 - len(set(grams)) / len(grams) if len(grams) > 1 else 0.0
