"""ONNX in, ONNX out: loading, op ids, plans, emulation and conversion. Pure but for loading."""
