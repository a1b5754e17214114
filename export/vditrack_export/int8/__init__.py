"""INT8 graphs for CPUs, made from the graphs of a bundle."""
