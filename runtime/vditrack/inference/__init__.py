"""Inference sessions: ONNX Runtime, TensorRT, selection and engine identity."""
