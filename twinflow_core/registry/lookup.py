"""Finding a version by what people call it: the beginning of its name, or the channel that serves it."""

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


def what_serves(registry: Registry, channel: str) -> str:
    """The version that a channel serves. Raises `TwinflowError` if there is none."""
    version = registry.head(channel).version
    if version is None:
        raise TwinflowError(
            f"{channel} serves nothing yet.",
            where=f"the registry of {registry.model}",
            fix="`make retrain` promotes to staging if the gates pass; `twinflow promote` to production.",
        )
    return version
