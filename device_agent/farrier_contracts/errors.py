"""The errors that a user may see, and the exit code each one carries.

    FarrierError              1   anything else
    ├── UsageError            2   an option or argument is wrong
    │   └── MissingToolError  2   an optional tool is absent; the sentence holds the command that installs it
    ├── InputError            2   a model, data file, configuration or bundle is wrong
    │   └── BundleError       2   a bundle is damaged, unsafe or not for this device
    ├── TrustError            2   signed metadata is expired, rolled back, foreign or forged
    └── BudgetError           3   no candidate meets the budget

The message is one sentence for a person: what is wrong, and what to do about it.
"""

from __future__ import annotations


class FarrierError(Exception):
    """Anything that Farrier says to a user instead of showing a traceback."""

    exit_code = 1


class UsageError(FarrierError):
    """An option or argument is wrong."""

    exit_code = 2


class MissingToolError(UsageError):
    """An optional tool or library is absent."""


class InputError(FarrierError):
    """A model, data file, configuration or bundle is wrong."""

    exit_code = 2


class BundleError(InputError):
    """A bundle is damaged, unsafe or not for this device."""


class TrustError(FarrierError):
    """Signed metadata is expired, rolled back, foreign or forged."""

    exit_code = 2


class BudgetError(FarrierError):
    """No candidate meets the budget."""

    exit_code = 3
