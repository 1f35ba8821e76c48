"""OpenVINO: real fp16 and bf16 on processors that have them, and on Intel GPUs."""
