"""The emulator: the definition of low precision, on ONNX Runtime's fp32 kernels."""
