from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import FILE, HELP, Group, json_option, print_json


@click.group(cls=Group, context_settings=HELP)
def bundle() -> None:
    """Build, inspect, verify and compare bundles: what a device may run, in one file."""


@bundle.command()
@click.argument("artifact", type=FILE)
@click.option("--name", required=True, help="The bundle's name: lower-case letters, digits and hyphens.")
@click.option(
    "--version", required=True, help="The bundle's version, such as 1.0.2; once published, it never changes."
)
@click.option("--target", default="host", show_default=True, help="What the model will run on.")
@click.option("--golden", type=FILE, help="Rows (.npz) whose outputs every device must reproduce.")
@click.option("--max-batch", type=click.IntRange(min=1), default=1, show_default=True,
              help="Rows that may share one run.")  # fmt: skip
@click.option("--no-cache", is_flag=True, help="Answer equal requests anew each time.")
@click.option("--licence", default="", help="The model's licence, such as Apache-2.0.")
@click.option("-o", "--out", type=FILE, required=True, help="The bundle file to write.")
@json_option
def build(
    artifact: Path,
    *,
    name: str,
    version: str,
    target: str,
    golden: Path | None,
    max_batch: int,
    no_cache: bool,
    licence: str,
    out: Path,
    as_json: bool,
) -> None:
    """Build a bundle from a compiled model."""
    from ..bundle import BuildSettings
    from ..bundle import build as run

    settings = BuildSettings(max_batch=max_batch, cache_responses=not no_cache, licence=licence)
    manifest = run(
        artifact,
        name=name,
        version=version,
        target=target,
        output=out,
        golden=golden,
        settings=settings,
    )
    size = out.stat().st_size
    if as_json:
        print_json({"path": str(out), "digest": manifest.digest, "bytes": size, "parts": len(manifest.parts)})
    else:
        click.echo(f"{out}: {name} {version}, {len(manifest.parts)} parts, {size} bytes")


@bundle.command()
@click.argument("file", type=FILE)
@json_option
def inspect(file: Path, as_json: bool) -> None:
    """Show what a bundle holds and needs."""
    from ..bundle import inspect as run

    document = run(file)
    if as_json:
        print_json(document)
    else:
        for label, text in _rows(document):
            click.echo(f"{label:<12}{text}")


@bundle.command()
@click.argument("file", type=FILE)
def verify(file: Path) -> None:
    """Check every byte of a bundle."""
    from ..bundle import verify as run

    manifest = run(file)
    click.echo(f"{file} is whole: {manifest.name} {manifest.version}, {len(manifest.parts)} parts")


@bundle.command()
@click.argument("old", type=FILE)
@click.argument("new", type=FILE)
@json_option
def diff(old: Path, new: Path, as_json: bool) -> None:
    """Show what an update from OLD to NEW changes and ships."""
    from ..bundle import diff as run

    difference = run(old, new)
    if as_json:
        print_json(difference.to_dict())
        return
    if difference.is_empty:
        click.echo("the two bundles are the same")
        return
    for label in ("fields", "added", "removed", "changed"):
        names = getattr(difference, label)
        if names:
            click.echo(f"{label if label == 'fields' else 'parts ' + label:<15}{', '.join(names)}")
    click.echo(f"{'to ship':<15}{difference.ship_bytes} bytes")


def _rows(document: dict[str, Any]) -> list[tuple[str, str]]:
    from ..report import words

    needs = document["compatibility"]
    engines = ", ".join(f"{engine} >= {version}" for engine, version in needs["engines"].items())
    golden = document["golden"]
    tolerances = (
        ", ".join(f"{name} within {atol:g}" for name, atol in golden["atol"].items()) if golden else ""
    )
    rows = [
        ("bundle", f"{document['name']} {document['version']}"),
        ("digest", document["digest"]),
        *(("input", _tensor(tensor)) for tensor in document["inputs"]),
        *(("output", _tensor(tensor)) for tensor in document["outputs"]),
        *(
            ("artifact", f"{a['part']} ({a['format']}, {a['precision']}) for {a['target']} in {a['engine']}")
            for a in document["artifacts"]
        ),
        ("needs", f"{', '.join(needs['arch']) or 'any'}; {engines or 'any engine version'}; "
                  f"{words.size(needs['memory_bytes'])} of memory"),
        ("batch", f"at most {document['batching']['max_batch']}"),
        ("golden", tolerances or "none"),
        ("licence", document["licence"] or "not stated"),
    ]  # fmt: skip
    parts = sorted(document["parts"].items())
    rows += [("part", f"{part['sha256'][:12]} {part['size']:>12} bytes  {name}") for name, part in parts]
    return rows


def _tensor(tensor: dict[str, Any]) -> str:
    shape = " x ".join("any" if size < 0 else str(size) for size in tensor["shape"])
    return f"{tensor['name']}: {tensor['datatype']} [{shape}]"
