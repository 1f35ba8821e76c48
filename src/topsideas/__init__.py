"""topsideas: finds the ops of an ONNX model that must stay in fp32, with evidence."""

__version__ = "0.1.0"
