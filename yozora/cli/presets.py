"""`yozora presets`: styles by name."""

from __future__ import annotations

import typer

presets = typer.Typer(help="Styles by name, for --preset.", no_args_is_help=True)


@presets.callback()
def _presets() -> None:
    """Styles by name, for --preset."""


@presets.command("list")
def list_() -> None:
    """List the shipped presets and your own."""
    from yozora.create.presets import load_presets, user_folder

    for name, preset in load_presets().items():
        print(f"{name}: {preset.description}" if preset.description else name)
        words = preset.apply("…") if preset.prefix or preset.suffix else ""
        settings = [f"{key} {value}" for key, value in preset.settings.items()]
        print(f"    {'; '.join([words, *settings] if words else settings) or 'changes nothing'}")
    if folder := user_folder():
        print(f"your own: any .toml file in {folder}")
