"""Everything below the scripts. Nothing is imported here; ``utils.notebook_init`` is a name of v6.1."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "notebook_init":
        from importlib import import_module

        return import_module("utils.compat.general_checks").notebook_init
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
