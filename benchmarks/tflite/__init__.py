"""The TFLite files that we write: speed, and what each set of kernels answers."""
