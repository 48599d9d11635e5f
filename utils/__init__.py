"""Everything below the scripts. Nothing is imported here; ``notebook_init`` is found where v6.1 has it."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "notebook_init":
        from importlib import import_module

        return import_module("utils.compat.general.notebook").notebook_init
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
