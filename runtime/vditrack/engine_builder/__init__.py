"""Builds TensorRT and TensorRT-RTX engines from a bundle's graphs, lists them and verifies them."""
