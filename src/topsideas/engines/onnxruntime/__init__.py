"""ONNX Runtime's execution providers: CUDA, TensorRT, ROCm, DirectML, CoreML, QNN and others."""
