"""Commands to begin with: new, schema, completion."""

from __future__ import annotations

from pathlib import Path

import click

from runner import completing
from runner.cli.root import cli, console


@cli.command(short_help="Write a first recipe with its data and its probe.")
@click.argument("name", required=False)
@click.option("--from-data", metavar="FILE", type=click.Path(), help="Look at its rows, and write a recipe for them.")
@click.option(
    "--suites",
    metavar="NAMES",
    help="Copy suites that ship: names with commas between them, or all.",
    shell_complete=completing.suites,
)
def new(name: str | None, from_data: str | None, suites: str | None) -> None:
    """Write a first recipe with its data and its probe, which run as they are; or suites of probes; or both.

    \b
      recipe new my_model                      a recipe, its data, its probe
      recipe new --from-data rows.jsonl        a recipe for your rows: jsonl, json, csv, tsv, parquet, txt
      recipe new my_model --suites repetition  the first, and suites beside it
      recipe new --suites all                  suites alone: for checkpoints of any trainer

    Suites: radicals, novel_rules, repetition, forgetting, watched. They are yours to change; nothing is overwritten.
    """
    from runner import starter
    from runner.starter import chosen, recipe_lines, write_starter, write_suites

    if name is None and suites is None and from_data is None:
        raise click.UsageError("give a NAME for a recipe, --from-data or --suites")
    folder, names = Path.cwd(), chosen(suites) if suites is not None else ()
    had_probes = (folder / "probes").exists()
    if from_data is not None:
        name = name or starter.name_of(from_data)
        found = starter.look(from_data)
        proposal = starter.propose(found)
        written = starter.write_from_data(name, found, proposal, folder, names)
        console().print(starter.found_screen(found, proposal))
        click.echo()
    else:
        written = write_starter(name, folder, names) if name is not None else write_suites(names, folder)
    paths = [path.relative_to(folder).as_posix() for path in written]
    click.echo("\n".join(f"wrote {path}" for path in paths))
    if name is not None:
        click.echo(f"\nnow:  recipe run {paths[0]}")
        if names:
            click.echo("the suites are asked too where you add, under probes:")
            click.echo("\n".join(f"  {line}" for line in recipe_lines(names, folder)))
        return
    asked = [path for path in paths if path.startswith("probes/test_")] if had_probes else ["probes"]
    click.echo(f"\nnow:  pytest {' '.join(asked)} --ckpt CHECKPOINT")
    click.echo("CHECKPOINT is a folder of any trainer, with config.json, weights and tokenizer, or a PEFT adapter.")


@cli.command(short_help="Print the JSON Schema of the recipe language, for editors.")
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Write it there instead.")
def schema(out: Path | None) -> None:
    """Print the JSON Schema of the recipe language: completion and explanations for editors.

    \b
    recipe new writes it beside a recipe, whose first line names it:
      # yaml-language-server: $schema=recipe.schema.json
    After an upgrade of this package: recipe schema --out recipe.schema.json
    """
    from runner.atomic import publish_text
    from runner.starter import schema_text

    if out is None:
        click.echo(schema_text(), nl=False)
        return
    publish_text(out, schema_text())
    click.echo(f"wrote {out}")


@cli.command(short_help="Print the lines with which a shell completes commands.")
@click.argument("shell", type=click.Choice(completing.SHELLS))
def completion(shell: str) -> None:
    """Print the lines with which SHELL completes commands, recipes, stages, runs and checkpoints.

    \b
      bash  recipe completion bash >> ~/.bashrc
      zsh   recipe completion zsh >> ~/.zshrc
      fish  recipe completion fish > ~/.config/fish/completions/recipe.fish
    """
    click.echo(completing.script(cli, shell))
