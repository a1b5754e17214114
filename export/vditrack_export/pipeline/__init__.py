"""The export of a checkpoint and a card to a bundle."""
