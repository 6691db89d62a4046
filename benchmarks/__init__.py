"""How good is it? Official scores of policies, hosted models and prediction files on Spider and BIRD."""
