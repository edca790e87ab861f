"""NVIDIA's TensorRT on Jetson boards: what its importer knows, what its DLA takes."""
