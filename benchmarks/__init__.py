"""How good is a policy? Entrypoints that score predictions and models as the official scorers do."""
