"""Saving and loading: huggingface_hub's mixin, safetensors and JSON, nothing pickled."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import torch
from huggingface_hub import PyTorchModelHubMixin, constants, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .config import FORMAT_VERSION, TzKConfig
from .errors import ModelUnavailable, WorkFailed
from .pretrained import expanded, run_folder
from .randomness import generator

__all__ = ["CONFIG", "WEIGHTS", "PretrainedMixin", "load_config", "sha256"]

CONFIG, WEIGHTS = constants.CONFIG_NAME, constants.SAFETENSORS_SINGLE_FILE
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


class PretrainedMixin(PyTorchModelHubMixin):
    """``from_pretrained`` and ``save_pretrained`` of TzK.

    A folder holds ``config.json``, written from the live model, ``model.safetensors``, and
    ``README.md``. ``config.json`` carries the SHA-256 of the weights, so that a folder whose two
    files do not belong together is refused.
    """

    def save_pretrained(self, save_directory: str | Path, **kwargs) -> str | None:
        """Writes the folder; each file is written aside and renamed into place.

        Raises:
            WorkFailed: the folder cannot be written; what was in it stays as it was.
        """
        folder = Path(save_directory)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as aside:
                kept = folder / "README.md"
                if kept.exists():
                    (Path(aside) / "README.md").write_bytes(kept.read_bytes())
                result = super().save_pretrained(aside, **kwargs)
                for name in (WEIGHTS, CONFIG, "README.md"):
                    os.replace(Path(aside) / name, folder / name)
        except (OSError, SafetensorError) as error:
            raise WorkFailed(f"the model cannot be saved to {folder}: {error}") from error
        return result

    def _save_pretrained(self, save_directory: Path) -> None:
        state = {key: tensor.contiguous() for key, tensor in self.state_dict().items()}
        save_file(state, save_directory / WEIGHTS, metadata={"format": "pt"})
        config = self.config.model_dump(mode="json")
        config["weights_sha256"] = sha256(save_directory / WEIGHTS)
        (save_directory / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        # safetensors lets the owner alone read; whoever may read the one file may read the other.
        shutil.copymode(save_directory / CONFIG, save_directory / WEIGHTS)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs):
        """A model from a folder or from the hub, in evaluation mode, on the CPU.

        ``builtin`` is the model that comes with tzk. Weights that are stored in float16 are worked
        with in float32. What looks like a local path (it exists, or its first part does, or it is
        no ``owner/name``) never goes to the hub.

        Raises:
            ModelUnavailable: missing, corrupt, not loading strictly, or of another format.
        """
        where = run_folder(pretrained_model_name_or_path)
        name = str(pretrained_model_name_or_path)
        local = (
            str(where) != name
            or isinstance(pretrained_model_name_or_path, Path)
            or not _HUB_NAME.fullmatch(name)
            or name.startswith((".", "~"))
            or Path(name.split("/")[0]).exists()
        )
        if local:
            return cls._load(where.expanduser(), **kwargs)
        try:
            return super().from_pretrained(name, **kwargs)
        except (HfHubHTTPError, OSError) as error:
            # The mixin asks for config.json itself, and lets a hub that cannot be reached through.
            reason = " ".join(str(error).split())
            raise ModelUnavailable(f"{name} cannot be had from the hub: {reason[:300]}") from error

    @classmethod
    def _from_pretrained(
        cls, *, model_id, revision, cache_dir, force_download, local_files_only, token, **kwargs
    ):
        kwargs.pop("config", None)
        files = {}
        for file in (CONFIG, WEIGHTS):
            try:
                files[file] = hf_hub_download(
                    repo_id=model_id,
                    filename=file,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    token=token,
                    local_files_only=local_files_only,
                )
            except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
                raise ModelUnavailable(
                    f"{file} of {model_id} cannot be had from the hub: {error}"
                ) from error
        return cls._load(Path(files[CONFIG]).parent, **kwargs)

    @classmethod
    def _load(cls, folder: Path, map_location: str | torch.device = "cpu", **_):
        config, wanted = load_config(folder)
        weights = folder / WEIGHTS
        if not weights.is_file():
            raise ModelUnavailable(f"{folder} has no {WEIGHTS}: train or copy the run again")
        if wanted and sha256(weights) != wanted:
            raise ModelUnavailable(
                f"{weights} is not the file that {CONFIG} was written with (its SHA-256 differs): "
                "it is corrupt or belongs to another run"
            )
        try:
            state = load_file(weights, device=str(map_location))
            state = {k: v.float() if v.dtype == torch.float16 else v for k, v in state.items()}
            # Every weight and shuffle is overwritten, so this generator leaves no trace.
            model = cls(config, generator=generator(0))
            dtype = next((v.dtype for v in state.values() if v.is_floating_point()), None)
            state = expanded(state, model.state_dict())
            model.to(device=map_location, dtype=dtype).load_state_dict(state, strict=True)
        except (SafetensorError, RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())
            raise ModelUnavailable(f"{weights} cannot be loaded: {reason[:300]}") from error
        return model.eval()


def load_config(folder: Path) -> tuple[TzKConfig, str | None]:
    """The configuration in a run folder, and the SHA-256 its weights must have.

    Raises:
        ModelUnavailable: no such folder or file, not JSON, an unknown format, a wrong value.
    """
    folder = run_folder(folder)
    path = folder / CONFIG
    if not path.is_file():
        what = "is no run" if folder.is_dir() else "does not exist"
        raise ModelUnavailable(f"{folder} {what}: there is no {path}")
    try:
        stored = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise ModelUnavailable(f"{path} cannot be read: {error}") from error
    version = stored.get("format_version") if isinstance(stored, dict) else None
    if version != FORMAT_VERSION:
        raise ModelUnavailable(
            f"{path} has format_version {version!r}; this tzk reads {FORMAT_VERSION}"
        )
    wanted = stored.pop("weights_sha256", None)
    try:
        return TzKConfig.model_validate(stored), wanted
    except ValidationError as error:
        first = error.errors()[0]
        where = "/".join(str(part) for part in first["loc"])
        raise ModelUnavailable(f"{path} is wrong at {where}: {first['msg']}") from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with contextlib.closing(path.open("rb")) as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
