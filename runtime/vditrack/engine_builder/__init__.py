"""From a bundle's graphs to TensorRT and TensorRT-RTX engines, and what can be said of them."""
