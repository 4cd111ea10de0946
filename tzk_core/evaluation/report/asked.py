"""Which images an evaluation is of: as asked, or those of the run's own recipe."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from safetensors.torch import save

from ...data.images import Images
from ...data.names import slugs
from ...data.sources import class_names, load, splits
from ...errors import UsageError
from ...hub import WEIGHTS, sha256
from ...model import TzK
from ...pretrained import run_folder
from ...training.progress import Reporter
from ...training.recipe import Recipe, SourceConfig, parse_recipe
from ...training.run import FACTS
from ..settings import Settings
from .data import Source, in_memory, read_source

__all__ = ["not_its_own", "read_against", "read_asked", "recipe_of", "weights_of"]

HOLDOUT, SEED = 0.1, 0  # of what is held out where no recipe says it
_KIND = re.compile(r"([a-z0-9][a-z0-9_-]*)=(.+)")


def recipe_of(run: str | Path) -> Recipe | None:
    """The recipe of a run folder or of one of its checkpoints, if it is there.

    Raises:
        UsageError: it is there and no recipe.
    """
    folder = run_folder(run)
    for place in (folder, folder.parent.parent if folder.parent.name == "checkpoints" else folder):
        file = place / "recipe.yaml"
        if file.is_file():
            try:
                return parse_recipe(yaml.safe_load(file.read_text()), title=str(file))
            except yaml.YAMLError as error:
                raise UsageError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    return None


def read_asked(
    run: str | Path, model: TzK, data: Sequence[str], settings: Settings, reporter: Reporter
) -> list[Source]:
    """The sources of ``data``, each KIND=SOURCE, or of the run's recipe if there are none.

    Raises:
        UsageError: there are none, or one is no source or of no kind of the model.
        WorkFailed: images cannot be read.
    """
    recipe = recipe_of(run)
    if data:
        configs = [_config(each, recipe, model) for each in data]
    elif recipe is not None:
        configs = recipe.data.sources
    else:
        kinds = list(model.kinds())
        usage = f"--data KIND=SOURCE (KIND one of {', '.join(kinds)})" if kinds else "--data SOURCE"
        raise UsageError(f"{run} has no recipe.yaml that says what it was trained on: give {usage}")
    sources = []
    for config, name in zip(configs, _names(configs), strict=True):
        reporter.say(f"reading {config.source}")
        source = read_source(
            config,
            name,
            model.preparation,
            test_images=settings.test_images,
            seed=SEED if recipe is None else recipe.seed,
            holdout=HOLDOUT if recipe is None else recipe.data.holdout,
            cache=recipe is None or recipe.data.cache,
        )
        for line in (*source.train.skipped, *source.test.skipped):
            reporter.say(f"skipped {line}")
        sources.append(source)
    return sources


def not_its_own(run: str | Path, sources: list[Source]) -> list[str]:
    """A sentence for each source whose training images need not be those of the model.

    They are the model's if its recipe names that source for the kind, or if the run has recorded
    images of that fingerprint.
    """
    recipe, facts = recipe_of(run), run_folder(run) / FACTS
    seen = json.loads(facts.read_text()).get("fingerprints", {}) if facts.is_file() else {}
    own = {s.knowledge: s.source for s in recipe.data.sources} if recipe else {}
    notes = []
    for source in sources:
        named = own.get(source.config.knowledge)
        if source.config.source == named or source.train.fingerprint in seen.values():
            continue
        by = f"the model's recipe names {named}" if named else "no recipe names the model's"
        notes.append(
            f"The training images of {source.name}, to which samples are compared and classifiers "
            f"trained, are the {len(source.train):,} of {source.config.source}; {by}, which may be "
            "others, or more."
        )
    return notes


def read_against(
    against: Sequence[str], model: TzK, settings: Settings, reporter: Reporter
) -> list[Images]:
    """The test images, or those there are, of sources that are none of the model's."""
    found = []
    for source in dict.fromkeys(against):
        reporter.say(f"reading {source}")
        split = "test" if "test" in splits(source) else "train"
        images = load(
            source,
            split=split,
            preparation=model.preparation,
            limit=settings.test_images,
            cache=True,
        )
        found.append(in_memory(images))
    names = [images.name for images in found]
    if len(set(names)) < len(names):
        raise UsageError(f"two of the sources to tell from have one name: {', '.join(names)}")
    return found


def weights_of(run: str | Path, model: TzK) -> tuple[str, str]:
    """SHA-256 of the weights (of their file, where it is local) and of the configuration."""
    file = run_folder(run) / WEIGHTS
    if file.is_file():
        weights = sha256(file)
    else:
        state = {key: value.cpu().contiguous() for key, value in model.state_dict().items()}
        weights = hashlib.sha256(save(state)).hexdigest()
    config = json.dumps(model.config.model_dump(mode="json"), sort_keys=True)
    return weights, hashlib.sha256(config.encode()).hexdigest()


def _config(asked: str, recipe: Recipe | None, model: TzK) -> SourceConfig:
    """What is known of the images of one ``--data``: as the recipe has it for that kind, else by
    the model's kinds."""
    match = _KIND.fullmatch(asked)
    kind, source = match.groups() if match else (None, asked)
    kinds = model.kinds()
    if kind is not None and kind not in kinds:
        known = f"it knows {', '.join(kinds)}" if kinds else "it knows none: give --data SOURCE"
        raise UsageError(f"--data {asked}: the model has no kind {kind!r}; {known}")
    for own in recipe.data.sources if recipe else ():
        if own.knowledge == kind:
            return own.model_copy(update={"source": source, "split": "train", "limit": None})
    if kind is not None:
        below = [path for path in model.paths() if path.startswith(f"{kind}/")]
        return SourceConfig(source=source, knowledge=kind, classes=_any(source, f"{kind}/", below))
    if _any(source, "", list(kinds)):
        return SourceConfig(source=source, classes=True)
    if kinds:
        raise UsageError(
            f"--data {asked} does not say of which kind its images are: KIND={asked}, KIND one of "
            f"{', '.join(kinds)}"
        )
    return SourceConfig(source=source)


def _any(source: str, above: str, paths: list[str]) -> bool:
    """Whether any label of a source is a kind of the model."""
    if not paths:
        return False
    return bool({above + name for name in slugs(class_names(source))} & set(paths))


def _names(configs: Sequence[SourceConfig]) -> list[str]:
    """What the sources are called: their kind, or the last step of their source; none alike."""
    names: list[str] = []
    for config in configs:
        base = name = config.knowledge or Path(config.source).name or config.source
        count = 1
        while name in names:
            count += 1
            name = f"{base}-{count}"
        names.append(name)
    return names
