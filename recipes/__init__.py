"""Recipes, one YAML file an experiment, installed as ``tzk_recipes``.

This file makes the folder a package: in an editable installation `importlib.resources` cannot read
a namespace package that setuptools maps from another name.
"""
