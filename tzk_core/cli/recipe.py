"""``tzk recipe``: the recipes that come with tzk, and what one says in full."""

from __future__ import annotations

import click
import yaml

__all__ = ["recipe"]


@click.group()
def recipe() -> None:
    """List recipes, show one with every default filled in, or tell of every key."""


@recipe.command("list")
def list_recipes() -> None:
    """The recipes that come with tzk."""
    from ..training.recipe import builtin_recipes

    for name in builtin_recipes():
        click.echo(name)


@recipe.command()
@click.argument("name")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="change a key")
def show(name: str, overrides: tuple[str, ...]) -> None:
    """The resolved recipe NAME (a file or one that comes with tzk) as YAML."""
    from ..training.recipe import load_recipe

    resolved = load_recipe(name, overrides).model_dump(mode="json")
    click.echo(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True), nl=False)


@recipe.command()
def fields() -> None:
    """Every key that a recipe may have, with its default and what it does, as Markdown."""
    from ..training.fields import document

    click.echo(document(), nl=False)
