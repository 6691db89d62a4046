"""How fast a training step is: side by side with another trainer, against its own arithmetic, and on a device."""
