"""Why an operator stayed in float, noted on its node: as a sentence in memory, as a few bytes in a file."""

from __future__ import annotations

import re

import onnx

from . import rules

REASON_KEY = "farrier.reason"  # in a node's metadata
INTEGER_KEY = "int8"  # on a node that computes in integers though no quantizer follows it
PART_KEY = "part"  # on a node that only serves another: it converts or scales
SHORT_KEY = "why"  # the same, abbreviated: the number of a sentence, and what is filled in

_SENTENCES = (
    rules.NO_KERNEL,
    rules.TAIL,
    rules.STEM,
    rules.EXCLUDED,
    rules.FLOAT_INPUT,
    rules.OPSET,
    rules.SLOWER,
    rules.WEIGHT_ONLY,
    rules.NO_WEIGHTS,
    rules.NOT_DYNAMIC,
    rules.NOT_CONSTANT,
    rules.NOT_MATRIX,
    rules.SMALL,
    rules.SCALED,
    rules.LSTM_KIND,
    rules.INSIDE,
    rules.STORED,
    rules.SPREAD,
    rules.NOT_SMOOTHED,
    rules.RESULT_FLOAT,
    rules.OPERANDS,
)
_FIELD = re.compile(r"{(\w+)}")


def set_reason(node: onnx.NodeProto, reason: str) -> None:
    """Note on a node why it stayed in float."""
    forget(node)
    node.metadata_props.add(key=REASON_KEY, value=reason)


def mark_part(node: onnx.NodeProto) -> onnx.NodeProto:
    """Note that a node is no operator of the model but a part of how one is computed; returns the node."""
    if not is_part(node):
        node.metadata_props.add(key=PART_KEY, value="1")
    return node


def is_part(node: onnx.NodeProto) -> bool:
    """Say whether a node is marked as a part of another."""
    return any(field.key == PART_KEY for field in node.metadata_props)


def mark_integer(node: onnx.NodeProto) -> None:
    """Note that a node computes in integers whatever reads its result."""
    if not is_integer(node):
        node.metadata_props.add(key=INTEGER_KEY, value="1")


def is_integer(node: onnx.NodeProto) -> bool:
    """Say whether a node is marked as computing in integers."""
    return any(field.key == INTEGER_KEY for field in node.metadata_props)


def reason_of(node: onnx.NodeProto) -> str | None:
    """Return the noted sentence, in either form."""
    for field in node.metadata_props:
        if field.key == REASON_KEY:
            return field.value
        if field.key == SHORT_KEY:
            return _written_out(field.value)
    return None


def abbreviate(node: onnx.NodeProto) -> None:
    """Turn a noted sentence into its few bytes, where it is one of the known ones."""
    reason = reason_of(node)
    for number, sentence in enumerate(_SENTENCES):
        found = None if reason is None else re.fullmatch(_pattern(sentence), reason, re.DOTALL)
        if found is not None:
            forget(node)
            node.metadata_props.add(key=SHORT_KEY, value="\t".join([str(number), *found.groups()]))
            return


def forget(node: onnx.NodeProto) -> None:
    """Remove the noted reason."""
    others = [field for field in node.metadata_props if field.key not in (REASON_KEY, SHORT_KEY)]
    del node.metadata_props[:]
    node.metadata_props.extend(others)


def _written_out(short: str) -> str:
    number, _, rest = short.partition("\t")
    if not number.isdigit() or int(number) >= len(_SENTENCES):
        return short
    sentence = _SENTENCES[int(number)]
    names = _FIELD.findall(sentence)
    filled = rest.split("\t", max(len(names) - 1, 0))
    return sentence.format(**dict(zip(names, filled, strict=False)))


def _pattern(sentence: str) -> str:
    """Return the regular expression of a sentence in which each field may be anything."""
    return "(.*)".join(re.escape(part) for part in _FIELD.split(sentence)[::2])
