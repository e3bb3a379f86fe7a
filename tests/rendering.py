"""One pair as a reward model reads it, for tests that have one."""

from palate.models.manifest import Truncation
from palate.models.rendering import Content, Rendered, Renderer, RenderingError


def render_pair(
    renderer: Renderer, prompt: Content, completion: Content, truncation: Truncation | None = None
) -> Rendered:
    """What `Renderer.render_pairs` gives for it.

    Raises:
        RenderingError: It cannot be rendered.
    """
    (result,) = renderer.render_pairs([(prompt, completion)], truncation)
    if isinstance(result, RenderingError):
        raise result
    return result
