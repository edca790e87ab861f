"""The exponential of C libraries for float32, which is not always the correctly rounded one.

Source: Arm Optimized Routines, math/expf.c, which glibc (since 2.27), musl and Bionic have taken over. With
x = (k + r) / 32 * ln 2 and a whole k, exp(x) is 2^(k/32), from a table, times a cubic in r; all in float64, rounded
once at the end.
"""

from __future__ import annotations

import numpy as np

STEPS = 32
# an approximation of 2^(r / 32), the highest power first; its constant term is one
CUBIC = tuple(
    float.fromhex(number) / STEPS**power
    for power, number in (
        (3, "0x1.c6af84b912394p-5"),
        (2, "0x1.ebfce50fac4f3p-3"),
        (1, "0x1.62e42ff0c52d6p-1"),
    )
)
INVERSE_LN2 = float.fromhex("0x1.71547652b82fep+0") * STEPS
ROOTS = np.array([2.0 ** (i / STEPS) for i in range(STEPS)])
LEAST, MOST = -104.0, 89.0  # beyond, a float32 is zero or infinite


def exp(values: np.ndarray) -> np.ndarray:
    """Return exp(x) of float32: float32."""
    scaled = np.clip(values.astype(np.float64), LEAST, MOST) * INVERSE_LN2
    whole = np.rint(scaled)
    rest = scaled - whole
    steps = np.nan_to_num(whole).astype(np.int64)
    high, middle, low = CUBIC
    power = (high * rest + middle) * (rest * rest) + (low * rest + 1)
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(power * ROOTS[steps % STEPS], steps // STEPS).astype(np.float32)
