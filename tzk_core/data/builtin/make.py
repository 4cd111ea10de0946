"""Make the built-in subsets from full data sets, by a rule that gives the same bytes again.

    python -m tzk_core.data.builtin.make DIR

reads ``DIR/{mnist,fashion_mnist}/{train,test}.parquet`` (the hub's columns ``image``, a PNG, and
``label``) and writes the files beside this one. Of each class it takes the images whose PNG bytes
have the smallest SHA-256, and orders all of them by it: balanced, seeded by the content alone.
The PNGs are packed again, losslessly.
"""

from __future__ import annotations

import argparse
import hashlib
import io
from pathlib import Path

from PIL import Image

__all__ = ["main", "subset"]

NAMES = ("mnist", "fashion_mnist")
PER_CLASS = {"train": 400, "test": 50}


def subset(source: Path, per_class: int):
    """The balanced subset of one parquet file, as a `datasets.Dataset`."""
    import datasets
    import pyarrow.parquet

    table = datasets.Dataset(pyarrow.parquet.read_table(source))
    features = table.features
    rows = list(table.cast_column("image", datasets.Image(decode=False)))
    rows.sort(key=lambda row: hashlib.sha256(row["image"]["bytes"]).digest())
    taken = dict.fromkeys(range(features["label"].num_classes), 0)
    kept = []
    for row in rows:
        if taken[row["label"]] < per_class:
            taken[row["label"]] += 1
            kept.append(row)
    columns = {
        "image": [{"bytes": _packed(row["image"]["bytes"]), "path": None} for row in kept],
        "label": [row["label"] for row in kept],
    }
    return datasets.Dataset.from_dict(columns, features=features)


def _packed(png: bytes) -> bytes:
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.save(buffer, "PNG", optimize=True)
    return min(buffer.getvalue(), png, key=len)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path, help="the folder of the full data sets")
    source = parser.parse_args().source
    for name in NAMES:
        folder = Path(__file__).parent / name
        folder.mkdir(exist_ok=True)
        for split, per_class in PER_CLASS.items():
            made = subset(source / name / f"{split}.parquet", per_class)
            made.to_parquet(folder / f"{split}.parquet")
            print(f"{name}/{split}: {len(made)} images")


if __name__ == "__main__":
    main()
