"""Finding a version by the beginning of its name, as people write it."""

from __future__ import annotations

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.registry import Registry


def find_version(registry: Registry, beginning: str) -> str:
    """The one version whose name begins so.

    Raises:
        TwinflowError: none or several do.
    """
    fitting = [version for version in registry.versions() if version.startswith(beginning)]
    if len(fitting) == 1:
        return fitting[0]
    found = f"{len(fitting)} versions of {registry.model} begin" if fitting else "No version begins"
    raise TwinflowError(
        f"{found} with `{beginning}`.",
        where=f"the registry of {registry.model}",
        fix="`twinflow runs` and `twinflow history` show versions.",
    )
