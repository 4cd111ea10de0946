"""Recipes of the paper's experiments for ``tzk reproduce``, installed as ``tzk_recipes.paper``.

``NAME.yaml`` has the paper's sizes and data, ``NAME-small.yaml`` every structural element at sizes
for two CPU cores. This file makes the folder a package, so that an installation has it.
"""
