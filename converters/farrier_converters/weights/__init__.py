"""Weight-only quantization: few bits on blockwise grids, rounded so that the outputs move least."""
