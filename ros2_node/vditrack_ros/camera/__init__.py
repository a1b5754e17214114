"""Camera subscription, and which of its images are taken."""
