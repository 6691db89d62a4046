"""What a run will need and cost, from the shape of its model, before anything starts."""
