"""Chat templates written out: they are programs, and a package holds the text that they put around a prompt."""

from __future__ import annotations

from collections.abc import Callable

from twinflow_core.errors import TwinflowError
from twinflow_core.runtime.wording import Wording

# Nothing that a template might strip, escape or look for comes back changed unseen.
PROBE = " \n{{ A <b> 'prompt' }} \n"


def written_around(write: Callable[[str], str], empty: str = "", removed: str = "") -> Wording:
    """What `write` puts around prompts.

    Args:
        write: a prompt to the text that the text encoder reads.
        empty: what is written in place of the empty prompt.
        removed: what is left out of prompts before they are written.

    Raises:
        TwinflowError: it does more than that.
    """
    before, found, after = write(PROBE).partition(PROBE)
    if not found:
        raise TwinflowError(
            "The model's chat template changes the prompt itself, which a package cannot do.",
            where="tokenizer/chat_template.jinja",
            fix="Use a model with its family's own template.",
        )
    return Wording(before, after, write(empty), removed=removed)
