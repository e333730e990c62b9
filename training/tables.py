# SPDX-License-Identifier: Apache-2.0
"""The paper's Tables 1-5 and the 2x2 of baselines on a set of one's own: `python -m training.tables CONFIG --help`.

Trains the models that the tables compare, each in a folder of its own, and writes `tables.md`. A cell whose model is not
trained to its end says "not run". Trained models, and figures that were worked out once, are kept: the same command goes on where
it stopped.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.begin import begin
from training.comparison import Comparison, Figures
from training.data.batches import Mixture
from training.data.packed import PackedScenes, evenly, fingerprint, to_measure_on
from training.figures import percent
from training.paper_figures import TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5
from training.settings import from_yaml
from training.sources import LEAVE_OUT, check_reached, packed_reach, packed_scenes
from training.train import fit
from training.variants import EQUAL, OURS, RATIOS, TablesSettings, noise, variants

KS = (3, 5, 7, 9)
NOT_RUN = "not run"


def write(tables: Comparison, train: str, test: str) -> str:
    """All tables as Markdown."""
    s = tables.settings
    ours = tables.sequential(OURS, s.samples)
    layers = range(1, tables.deepest + 1)
    having = {layer: [stack[layer - 1] for stack in tables.truth if len(stack) >= layer] for layer in layers}
    heads = [f"layer {k} ({len(masks)} images, pi {percent(float(np.mean(masks)))})" for k, masks in having.items()]
    loop = s.train.loop
    text = [
        "# Tables",
        "",
        f"Trained on `{train}`, measured on {len(tables.scenes)} images of `{test}`; network `{s.train.network.kind}`, "
        f"{loop.steps} steps of {loop.batch_size} images, seed {loop.seed}; {s.sampler}, {s.sampling_steps} steps, "
        f"K = {s.samples} where nothing else is said. Cells are conditional IOU / AP; pooled IOU / AP in brackets, which is the "
        "paper's reading as far as can be told. The paper's figures, in italics, are of other sets with other objects: they show "
        "the shape of a table, and are not to be compared with ours.",
        *_beyond(s.train.composites.max_layers, tables.truth),
    ]

    def add(title: str, columns: list[str], rows: list[tuple[str, list[str]]]) -> None:
        text.extend(["", f"## {title}", "", f"| | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"])
        text.extend(f"| {name} | {' | '.join(cells)} |" for name, cells in rows)

    def ours_cells(figures: Figures | None) -> list[str]:
        return [NOT_RUN] * len(layers) if figures is None else [_cell(figures["layers"][k - 1]) for k in layers]

    def paper_cells(values: Sequence[Any]) -> list[str]:
        shown = [f"*{v[0]} / {v[1]}*" if isinstance(v, tuple) else f"*{v}*" for v in values]
        return [shown[k - 1] if k <= len(shown) else "" for k in layers]

    rows = []
    for k in KS:
        rows += [(f"K = {k}", ours_cells(tables.sequential(OURS, k))), (f"*K = {k}, ACOM*", paper_cells(TABLE_1[k]))]
    add("Table 1: number of hypotheses", heads, rows)

    mean = tables.sequential(OURS, s.samples, mean=True)
    add(
        "Table 2: what the cumulative mask is made of",
        heads,
        [
            ("mean mask (at least half of the hypotheses)", ours_cells(mean)),
            ("selected mask", ours_cells(ours)),
            *((f"*{name}, AP, ACOM*", paper_cells(values)) for name, values in TABLE_2.items()),
        ],
    )

    rows = []
    for ratio in (0.0, *RATIOS):
        name = noise(ratio) if ratio else OURS
        rows += [(f"{ratio:.0%}", ours_cells(tables.sequential(name, s.samples)))]
        rows += [(f"*{ratio:.0%}, ACOM*", paper_cells(TABLE_3[ratio]))]
    add("Table 3: noise introduction", heads, rows)

    rows = [(f"a model a layer, {equal}, half of the rows blank", ours_cells(tables.independent(equal))) for equal in EQUAL]
    rows.append(("cumulative", ours_cells(ours)))
    for dataset, (without, cumulative) in TABLE_4.items():
        rows += [(f"*DIS, {dataset}*", paper_cells(without)), (f"*cumulative, {dataset}*", paper_cells(cumulative))]
    add("Table 4: with and without cumulative learning", heads, rows)

    columns = {"with layer": "ap_with_layer", "without: the best layer": "ap_without_layer", "without: by object": "ap_by_object"}
    cells = [NOT_RUN if ours is None else percent(ours[key]) for key in columns.values()]
    rows = [("ours", cells), *((name, [NOT_RUN] * 3) for name in ("PointRend", "AISFormer", "PLIn"))]
    for name, of_dataset in TABLE_5.items():
        for dataset, pair in of_dataset.items():
            rows.append((f"*{name}, {dataset}*", [*("*N/A*" if value is None else f"*{value}*" for value in pair), ""]))
    add("Table 5: AP with and without layer", list(columns), rows)

    sampled, once = f"K = {s.samples}, {s.sampling_steps} steps", "K = 1, 1 step"
    grid = {
        f"sequential, diffusion ({sampled})": ours,
        f"sequential, regression ({once})": tables.sequential("sequential_regression", 1, 1),
        f"one-shot, diffusion ({sampled})": tables.one_shot("one_shot_diffusion", s.samples, s.sampling_steps),
        f"one-shot, regression ({once})": tables.one_shot("one_shot_regression", 1, 1),
    }
    rows = [(name, [*ours_cells(f), *([NOT_RUN] * 3 if f is None else map(percent, f["hidden"]))]) for name, f in grid.items()]
    hidden = ["hidden parts of layers 2-3, IOU: of one hypothesis", "of the best of the K", "of the mean of the K"]
    add("2x2: sequential or all at once, diffusion or regression", [*heads, *hidden], rows)
    return "\n".join(text) + "\n"


def _beyond(drawn: int, truth: Sequence[np.ndarray]) -> list[str]:
    """A line, after a blank one, on the layers of the test images that no model draws; none where there are none."""
    deeper = [len(stack) for stack in truth if len(stack) > drawn]
    if not deeper:
        return []
    line = f"{len(deeper)} of these images have up to {max(deeper)} layers, more than the {drawn} that the models draw"
    return ["", f"{line}: deeper ones have no column, and count as missed in Table 5."]


def _cell(f: Figures) -> str:
    return f"{percent(f['iou'])} / {percent(f['ap'])} ({percent(f['pooled_iou'])} / {percent(f['pooled_ap'])})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.tables", description=str(__doc__).split("\n")[0])
    parser.add_argument("config", type=Path, help="a YAML file, such as training/configs/tables.yaml")
    parser.add_argument("--train", type=Path, required=True, help="a packed set to train on")
    parser.add_argument("--test", type=Path, required=True, help="a packed set to measure on")
    parser.add_argument("--out", type=Path, required=True, help="folder for the models, the figures and tables.md")
    parser.add_argument(LEAVE_OUT, action="store_true", help="of --train, scenes with more layers than the configuration draws")
    parser.add_argument(
        "--models", nargs="*", help="train these alone; none with an empty list (default: all, one after the other)"
    )
    parser.add_argument("--count", type=int, default=200, help="images to measure on, the same for all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the noise in sampling (default: %(default)s)")
    args = parser.parse_args()
    try:
        settings = from_yaml(TablesSettings, args.config)
        known = variants(settings)
        unknown = sorted(set(args.models or ()) - set(known))
        if unknown:
            raise ValueError(f"there is no model {unknown[0]!r}: choose from {', '.join(known)}")
        test = to_measure_on(args.test)
        if test.meta["settings"]["image_size"] != settings.train.composites.image_size:
            raise ValueError(
                f"images of {args.test} are not {settings.train.composites.image_size} a side, as those of the configuration"
            )
        check_reached(settings.train.composites.max_layers, packed_reach([args.train]))
        train = packed_scenes([args.train], settings.train.composites, leave_out_deeper=args.leave_out_deeper)
        args.out.mkdir(parents=True, exist_ok=True)
        scenes = [test[k] for k in evenly(len(test), args.count)]
        comparison = Comparison(settings, args.out, fingerprint(PackedScenes(args.train).meta["sha256"]), scenes, args.seed)
        for name in known if args.models is None else args.models:
            print(f"{name}:", flush=True)
            run = fit(
                known[name], Mixture(train, 1.0, None, settings.train.composites.worn), comparison.claim(name), begin(known[name])
            )
            if run.step < known[name].loop.steps:
                parser.exit(130, "the same command goes on there\n")
        text = write(comparison, str(args.train), str(args.test))
    except (FloatingPointError, ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        parser.exit(130, "interrupted at once; the same command goes on from the last checkpoint\n")
    (args.out / "tables.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
