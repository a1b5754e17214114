"""Reading checkpoints: whatever the form of its files, a model is a configuration and weights."""
