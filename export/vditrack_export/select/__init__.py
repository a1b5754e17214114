"""Which block, head, noise level and frequencies of a backbone know where a point has gone."""
