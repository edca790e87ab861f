"""What a file of an exported program may hold, so that reading it runs no code.

`torch.export.load` unpickles example inputs and some weights, evaluates the expressions of sizes, and looks the
operators up by name among everything that torch has. So the archive is taken apart here first, with a plain zip reader:
only raw weights, numbers, sizes in plain arithmetic, and operators of torch's own library pass. What passed is written
anew, so that torch reads nothing else.

Format: pytorch/torch/csrc/export/pt2_archive_constants.h and torch/_export/serde/schema.py.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from farrier_contracts.errors import InputError

MAX_MEMBERS = 1 << 16
MAX_DEPTH = 64  # of the graph's JSON
RAW = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
CONFIGS = re.compile(r"data/(weights|constants)/[\w.]+_config\.json")
PROGRAM = re.compile(r"models/[\w.]+\.json")
DROPPED = re.compile(
    r"data/sample_inputs/[\w.]+\.pt|archive_format|archive_version|byteorder|\.data/[\w.]+|version|\.format_version"
    r"|\.storage_alignment"
)
FORMAT = {"archive_format": b"pt2", "archive_version": b"0"}
TARGET = re.compile(
    r"torch\.ops\.(aten|prim|prims)\.\w+(\.\w+)?|torch\.(sym_\w+|_sym_\w+)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
    r"|math\.(ceil|floor|trunc)"
)
FUNCTIONS = {
    "Max", "Min", "Mod", "FloorDiv", "CeilDiv", "PythonMod", "CleanDiv", "IntTrueDiv", "FloatTrueDiv", "TruncToInt",
    "FloorToInt", "CeilToInt", "Where", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "True", "False", "oo",
    "int_oo", "Abs", "floor", "ceiling", "Add", "Mul", "Pow", "Integer", "Rational",
}  # fmt: skip
# torch writes a size as sympy's own notation: Symbol('s31', positive=True, integer=True)
QUOTED = re.compile(
    r"Symbol\('([suz]f?\d+)'(?:, (?:positive|nonnegative|integer|real)=(?:True|False))*\)"
    r"|Float\('([\d.]+)', precision=\d+\)"
)
EXPRESSION = re.compile(r"[\w\s+\-*/%(),.<>=&|~!]*")
SYMBOL = re.compile(r"[suz]f?\d+|-?\d+|\d*\.\d+|-?int_oo")


def vetted(path: Path, *, max_bytes: int) -> dict[str, bytes]:
    """Return the members of an archive that may be given to torch, by name; raises InputError for anything else."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _members(archive, path, max_bytes)
    except FileNotFoundError:
        raise InputError(f"there is no model at {path}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (zipfile.BadZipFile, ValueError, RecursionError, NotImplementedError, EOFError, RuntimeError):
        raise InputError(f"{path} is not an exported program of torch, or it is damaged") from None


def _members(archive: zipfile.ZipFile, path: Path, max_bytes: int) -> dict[str, bytes]:
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS or sum(info.file_size for info in infos) > max_bytes:
        raise InputError(f"{path} holds more than the limit of {max_bytes} bytes")
    members = dict(FORMAT)
    for info in infos:
        name = "/".join(PurePosixPath(info.filename).parts[1:])
        if DROPPED.fullmatch(name):
            continue
        if not any(kind.fullmatch(name) for kind in (RAW, CONFIGS, PROGRAM)):
            raise InputError(f"{path} holds {name!r}, which is no part of a plain exported program")
        content = archive.read(info)
        members[name] = content if RAW.fullmatch(name) else _program(json.loads(content), name, path)
    if sum(bool(PROGRAM.fullmatch(name)) for name in members) != 1:
        raise InputError(f"{path} does not hold just one exported program")
    return members


def _program(document: Any, name: str, path: Path) -> bytes:
    """Return a JSON part without the code that guards inputs; raises InputError for what torch would run."""
    if not isinstance(document, dict):
        raise ValueError(name)
    document.pop("guards_code", None)
    for mapping in _mappings(document, MAX_DEPTH):
        if mapping.get("use_pickle"):
            raise InputError(f"{path} holds a pickle, which can run code when it is read")
        for symbol in mapping.get("range_constraints") or ():
            if not SYMBOL.fullmatch(symbol):
                raise InputError(f"{path} names a size {symbol[:80]!r}, which is no plain symbol")
        expression = mapping.get("expr_str")
        if expression is not None and not _is_arithmetic(expression):
            raise InputError(
                f"{path} computes a size by {str(expression)[:80]!r}, which is no plain arithmetic"
            )
        target = mapping.get("target") if "inputs" in mapping and "outputs" in mapping else None
        if target is not None and not (isinstance(target, str) and TARGET.fullmatch(target)):
            raise InputError(f"{path} calls {str(target)[:80]!r}, which is no operator of torch's library")
    return json.dumps(document).encode()


def _is_arithmetic(expression: Any) -> bool:
    if not isinstance(expression, str):
        return False
    expression = QUOTED.sub(lambda found: found[1] or found[2], expression)
    if not EXPRESSION.fullmatch(expression):
        return False
    words = re.findall(r"[A-Za-z_]\w*", expression)
    attributes = re.search(r"[A-Za-z_)]\s*\.|\.\s*[A-Za-z_]", expression)
    return attributes is None and all(word in FUNCTIONS or SYMBOL.fullmatch(word) for word in words)


def _mappings(value: Any, depth: int) -> Iterator[Mapping[str, Any]]:
    if depth == 0:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from _mappings(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            yield from _mappings(item, depth - 1)
