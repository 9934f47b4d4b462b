"""Picture sizes for servers: pictures are resized here, to sizes that a server leaves as they are.

Servers resize pictures on their own, each with its limits, its rounding and its filter. A picture
whose sides are multiples of the patch factor, within all these limits, comes through any of them
unchanged, so that its size is known here and boxes in its pixels are right.
"""

from __future__ import annotations

from ..errors import BadImage
from ..types import Family, Request, Size
from .kinds import PictureLimits, ServerKind


def pixel_bounds(
    min_pixels: int | None, max_pixels: int | None, family: Family, kind: ServerKind
) -> tuple[int, int]:
    """The least and the most pixels that a request with these bounds and the server allow of a
    picture; the server's own limits hold in any case. Raises ``BadOption`` as
    ``ImageProcessor.bounded``."""
    from ..media.image_processor import ImageProcessor

    low, high = kind.pictures.bounds(family)
    own = ImageProcessor(family.patch_factor // 2, 2, min_pixels=low, max_pixels=high)
    wanted = own.bounded(min_pixels, max_pixels)
    least = min(max(wanted.min_pixels, low), high)
    return least, max(least, min(wanted.max_pixels, high))


def bound_notes(request: Request, family: Family, kind: ServerKind) -> tuple[str, ...]:
    """What the user should know where the server's limits hold in the place of the request's."""
    low, high = kind.pictures.bounds(family)
    if request.max_pixels is not None and request.max_pixels < low:
        return (
            f"max_pixels is {request.max_pixels}, but {kind.title} shows a model at least {low} "
            "pixels of a picture and makes smaller ones larger.",
        )
    most = max(request.min_pixels or 0, request.max_pixels or 0)
    if most > high:
        return (
            f"{kind.title} shows a model at most {high} pixels of a picture, so that more were not "
            "sent.",
        )
    return ()


def planned_size(
    size: Size, bounds: tuple[int, int], family: Family, limits: PictureLimits
) -> Size:
    """The (height, width) that a picture of ``size`` is resized to before it is sent: the engine's
    own ``target_size`` within ``bounds``, made such that the server's resize leaves it as it is.
    Raises ``BadImage`` for an aspect ratio over 200, and for a picture that fits no size that the
    server leaves alone."""
    from ..media.image_processor import target_size

    found = target_size(*size, family.patch_factor, *bounds)
    for _ in range(16):
        resized = limits.resized(_shortened(found, family.patch_factor, limits), family)
        if resized == found:
            return found
        found = resized
    raise BadImage(
        f"A picture of {size[1]}x{size[0]} cannot be made to fit this kind of server: it is too "
        "long for its least or its most pixels. Crop it, or cut it into parts."
    )


def _shortened(size: Size, factor: int, limits: PictureLimits) -> Size:
    """``size`` within the server's longest side, and not longer than servers take: their processors
    refuse an aspect ratio over 200, which rounding a short side down can lead to."""
    from ..media.images import MAX_ASPECT_RATIO

    height, width = size
    longest = limits.longest_side // factor * factor
    if longest and max(size) > longest:
        scale = longest / max(size)
        height, width = (max(factor, int(side * scale + 1e-6) // factor * factor) for side in size)
    longest = MAX_ASPECT_RATIO * min(height, width)
    return min(height, longest), min(width, longest)


def tokens_of(size: Size, family: Family) -> int:
    """Tokens that a picture of ``size``, multiples of the patch factor, becomes."""
    return size[0] // family.patch_factor * (size[1] // family.patch_factor)
