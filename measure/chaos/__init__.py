"""Breaking real training runs from outside and counting what they lose."""
