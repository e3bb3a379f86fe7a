"""What a chat template really writes, looked at when a model is loaded: the special tokens at both ends."""

from __future__ import annotations

from palate.models.foreign import Inferred
from palate.models.probe_texts import PROBES
from palate.models.rendering import Rendered, Renderer


def template_remarks(renderer: Renderer) -> tuple[Inferred, ...]:
    """What is missing at the ends of a decoder's chat, and what is read instead; empty where all is as usual.

    A decoder's score is read at the last token, so a model that was trained with an end-of-sequence token there scores
    something else without it. Where the manifest rules on these tokens (`add_bos`, `add_eos`) the renderer obeys.
    """
    if renderer.manifest.architecture == "encoder" or renderer.manifest.template_kind != "chat":
        return ()
    probe = next((item for item in renderer.render_pairs(PROBES, "left") if isinstance(item, Rendered)), None)
    return () if probe is None else (*_beginning(renderer, probe), *_end(renderer, probe))


def _beginning(renderer: Renderer, probe: Rendered) -> tuple[Inferred, ...]:
    if renderer.bos_id is None:
        return ()
    written = _leading(probe.text, renderer.tokens([renderer.bos_id])[0])
    if written == 1:
        return ()
    missing = f"exactly one beginning-of-sequence token: the chat template writes {written or 'none'}"
    return (Inferred(missing, "one is read" if written else "none is read; add_bos in palate.json puts one there"),)


def _end(renderer: Renderer, probe: Rendered) -> tuple[Inferred, ...]:
    if renderer.eos_id is None or probe.token_ids[-1] == renderer.eos_id:
        return ()
    (last,) = renderer.tokens(probe.token_ids[-1:])
    assumed = (
        f"the score is read at its last token, {last!r}; add_eos in palate.json puts an end-of-sequence token there"
    )
    return (Inferred("an end-of-sequence token where the chat template ends", assumed),)


def _leading(text: str, token: str) -> int:
    """How many times `text` begins with `token`."""
    count = 0
    while token and text.startswith(token, count * len(token)):
        count += 1
    return count
