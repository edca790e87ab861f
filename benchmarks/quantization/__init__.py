"""Numbers of few bits: accuracy, speed, size, and the doctor of drops."""
