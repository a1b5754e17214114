"""The recipe of the bundled model: synthetic scenes of known motion, the model, its training."""
