"""Questions in, answer out: finds small sets, knows nothing of ONNX."""
