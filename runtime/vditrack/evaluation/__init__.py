"""The official protocols of point tracking and mask propagation, on the user's own data."""
