"""Google's Edge TPU: LiteRT with the delegate of `libedgetpu`; what was not compiled for it runs on the processor."""

from __future__ import annotations

import ctypes
import os
from typing import Any, List

from farrier_contracts.errors import BundleError, MissingToolError

from . import litert

LIBRARY = "libedgetpu.so.1"
LIBRARY_VARIABLE = "FARRIER_EDGETPU_LIBRARY"  # another path or name of it
DEVICE_VARIABLE = "FARRIER_EDGETPU_DEVICE"  # such as "usb:0" or "pci:1", where a board has several


class EdgeTpu(litert.LiteRt):
    """One interpreter on one Edge TPU."""

    @classmethod
    def delegates(cls, module: Any) -> List[Any]:
        """Load the delegate; raises MissingToolError without the library, BundleError where no device answers."""
        library = os.environ.get(LIBRARY_VARIABLE, LIBRARY)
        device = os.environ.get(DEVICE_VARIABLE)
        try:
            ctypes.CDLL(library)  # the runtime's own way leaves half an object behind where this fails
        except OSError:
            raise MissingToolError(
                f"this bundle needs the Edge TPU runtime, and {library} is not there: "
                "sudo apt-get install libedgetpu1-std"
            ) from None
        try:
            return [module.load_delegate(library, {"device": device} if device else None)]
        except (ValueError, RuntimeError, AttributeError) as error:
            reason = str(error).strip().partition("\n")[0] or "the delegate refused"
            raise BundleError(
                f"no Edge TPU can be used: {reason}; is it plugged in, and in use by nobody?"
            ) from None
