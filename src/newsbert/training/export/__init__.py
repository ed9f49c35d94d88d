"""Export of a trained model to a bundle: ONNX graphs, quantization, parity checks, model card."""
