"""The training of the bundled model on synthetic scenes of known motion."""
