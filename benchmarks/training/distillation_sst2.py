"""What half the layers of a transformer keep of its accuracy on SST-2 after distillation.

    python -m benchmarks.training.distillation_sst2 [--device cuda] [--epochs 10] [--seeds 3] [--layers 6]
                                                    [--way alternate] [--shared-data ../shared/data]

The teacher is a small transformer with that many layers over word numbers, trained here from nothing on 4,500
sentences (kept in the zoo's store). The student is made from it by `farrier distill --layers half`: every second layer,
started from the teacher's weights. Beside it stands the same student trained on the labels alone, with the same
sentences, order and number of epochs; both see a tenth of the words left out, anew in each epoch. The judges are the
sentences that none of them has seen, and two copies of each with words left out. The figure is the mean over seeds of
the student's accuracy as a share of the teacher's, in percent.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np

from farrier_converters.distillation.students import WAYS, shallower
from farrier_converters.graph import run
from farrier_converters.model import Model, load
from farrier_converters.training.data import Rows
from farrier_converters.training.distillation import Reading, Weights
from farrier_converters.training.distillation.teach import Lesson, teach
from farrier_converters.training.fit import FitSettings, fit
from farrier_converters.training.module import OnnxModule

from ..cifar import ROOT
from ..figure import emit
from ..zoo.nets import text
from ..zoo.store import DEFAULT, Store
from ..zoo.training import Course, trained

GOAL = 97.0  # percent of the teacher's accuracy
COURSE = Course(12, rate=1e-3, decay=0.1)


def augment(inputs: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Leave out a tenth of the words."""
    ids = inputs["ids"]
    gone = (ids != text.PADDING) & (rng.random(ids.shape) < text.DROPPED)
    return {"ids": np.where(gone, text.UNKNOWN, ids)}


def accuracy(model: Model, ids: np.ndarray, labels: np.ndarray) -> float:
    session = run.session(model.proto)
    found = [session.run(None, {"ids": ids[i : i + 250]})[0] for i in range(0, len(ids), 250)]
    return 100 * float((np.concatenate([np.asarray(f) for f in found]).argmax(1) == labels).mean())


def one_seed(seed: int, teacher: Model, student: Model, rows: dict[str, np.ndarray], given) -> float:
    stream = Rows({"ids": rows["x"]}, rows["y"], batch=64, seed=seed, augment=augment)
    score = partial(accuracy, ids=rows["test"], labels=rows["labels"])
    settings = FitSettings(
        epochs=given.epochs, learning_rate=given.rate, weight_decay=0.1, seed=seed, device=given.device
    )
    started = time.perf_counter()
    module = OnnxModule(student)
    fit(module, stream, settings)
    alone = score(module.write_back())
    middle = time.perf_counter()
    weights = Weights(given.temperature, given.hard, given.features, given.attention)
    lesson = Lesson(weights=weights, fit=settings, reading=Reading(mask="ids"))
    distilled = score(teach(student, [teacher], stream, lesson).model)
    share = 100 * distilled / score(teacher)
    print(
        f"seed {seed}: on labels alone {alone:.2f} ({middle - started:.0f} s), distilled {distilled:.2f} "
        f"({time.perf_counter() - middle:.0f} s): {share:.2f} % of the teacher's",
        flush=True,
    )
    return share


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--store", type=Path, default=DEFAULT, help="where the trained teacher is kept")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda", "auto"))
    parser.add_argument("--layers", type=int, default=6, help="of the teacher")
    parser.add_argument("--way", default="alternate", choices=WAYS)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--temperature", type=float, default=2.0)
    parser.add_argument("--hard", type=float, default=0.5, help="share of the labels in the loss")
    parser.add_argument("--features", type=float, default=0.5)
    parser.add_argument("--attention", type=float, default=0.0)
    given = parser.parse_args()
    store = Store(given.shared_data, given.store)
    rows = store.arrays("sst2", lambda: text._ids(store))
    build = partial(text._transformer, int(rows["words"]), layers=given.layers)
    started = time.perf_counter()
    name = f"sst2-transformer-{given.layers}"
    teacher = load(trained(store, name, build, rows["x"], rows["y"], COURSE, input_name="ids"))
    made = shallower(teacher, "half", way=given.way, batches=[{"ids": rows["x"][:128]}])
    score = partial(accuracy, ids=rows["test"], labels=rows["labels"])
    print(
        f"teacher with {given.layers} layers {score(teacher):.2f}, cut to {len(made.kept)} {score(made.model):.2f} "
        f"({time.perf_counter() - started:.0f} s, {len(rows['test'])} test sentences)",
        flush=True,
    )
    shares = [one_seed(seed, teacher, made.model, rows, given) for seed in range(given.seeds)]
    emit("distillation_half_transformer_sst2", float(np.mean(shares)), goal=GOAL, unit="% of the teacher")


if __name__ == "__main__":
    main()
