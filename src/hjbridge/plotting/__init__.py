"""The book's figures: `style` for all, `control`, `steps` and `diffusion` for the parts of the book.

Only the names of `style` are handed on. The others are imported by their file, so that a change of one part's figures
does not make the records of another part stale.
"""

from hjbridge.plotting.style import (
    animation,
    density_and_paths,
    image_animation,
    image_grid,
    lines,
    particle_animation,
    use_style,
)

__all__ = [
    "animation",
    "density_and_paths",
    "image_animation",
    "image_grid",
    "lines",
    "particle_animation",
    "use_style",
]
