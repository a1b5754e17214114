"""From a checkpoint and a card to a bundle."""
