# SPDX-License-Identifier: Apache-2.0
"""The 820 models of Debian's sweethome3d-furniture (CC0 and CC BY 3.0), for more kinds of training objects."""

import re
from pathlib import Path

from training.data.catalogue import FURNITURE, KINDS
from training.data.meshes import Model, archive_reader, read_model

CATALOGUE = "PluginFurnitureCatalog.properties"


def furniture_models(folder: Path) -> dict[str, tuple[Path, str]]:
    """All models of a folder's ``.sh3f`` archives, but for the kinds that the sample frames show.

    Returns:
        ``<folder in the archive>-<model>`` -> the archive, and the OBJ's name in it.

    Raises:
        FileNotFoundError: there is no archive.
    """
    models = {}
    sampled = {f"{FURNITURE}-{kind.file}" for kind in KINDS.values() if not kind.robosuite}
    for archive in sorted(folder.glob("*.sh3f")):
        properties = archive_reader(archive)(CATALOGUE).decode("latin-1")
        for path in re.findall(r"^model#\d+\s*=\s*/?(\S.*?\.obj)\s*$", properties, re.MULTILINE | re.IGNORECASE):
            models["-".join([path.split("/")[0], Path(path).stem])] = (archive, path)
    if not models:
        raise FileNotFoundError(f"no .sh3f archive in {folder}: install Debian's sweethome3d-furniture")
    return {name: models[name] for name in sorted(models) if name not in sampled}


def read_furniture(archive: Path, path: str) -> Model:
    """One model, centred and upright, its longest side 1 m; see `read_model` for what is raised."""
    return read_model(archive_reader(archive), path).placed(1.0, upright=False, half=False)
