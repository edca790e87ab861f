"""Distillation on the ONNX graph: students made from their teachers, and what of the two belongs together.

Everything here needs numpy and onnx alone; what trains is in `training.distillation`.
"""
