"""What programs on pages print and draw in a new run, against what is recorded of them."""

from __future__ import annotations

import functools
import io
import re

from hjbridge.ledger.pages import Output

NUMBER = re.compile(r"(?<![\w.])[-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)")


def differences(page: str, old: list[Output], new: list[Output]) -> list[str]:
    """What a new run does not repeat, in words; processors may differ by a unit in the last place of a number."""
    told = []
    for number, (before, after) in enumerate(zip(old, new, strict=True), 1):
        if why := text_difference(before.printed, after.printed):
            told.append(f"program {number} prints something else: {why}")
        if len(before.pictures) != len(after.pictures):
            told.append(f"program {number} draws {len(after.pictures)} pictures in place of {len(before.pictures)}")
        for was, now in zip(before.pictures, after.pictures, strict=False):
            if why := picture_difference(was, now):
                told.append(f"program {number} draws another picture: {why}")
    return [f"{page}: {why}; if it is right, run `hjbridge pages {page}`" for why in told]


def text_difference(old: str, new: str) -> str | None:
    """The first line that is not repeated: words and whole numbers exactly, others as `allowed` tells."""
    before, after = old.splitlines(), new.splitlines()
    for was, now in zip(before, after, strict=False):
        numbers = list(zip(NUMBER.findall(was), NUMBER.findall(now), strict=False))
        same = " ".join(NUMBER.sub("#", was).split()) == " ".join(NUMBER.sub("#", now).split())
        if not same or not all(abs(value(a) - value(b)) <= allowed(a) for a, b in numbers):
            return f"{now!r} in place of {was!r}"
    return None if len(before) == len(after) else f"{len(after)} lines in place of {len(before)}"


def value(number: str) -> float:
    """A printed number."""
    return float(number.replace("−", "-").replace(",", ""))


def allowed(number: str) -> float:
    """How far another processor may be from a printed number: a unit in its last place or a thousandth; 0 if whole."""
    mantissa, _, power = number.partition("e")
    _, dot, decimals = mantissa.partition(".")
    if not dot and not power:
        return 0.0
    # printed decimals are rounded, so that a unit has to bear the error of its own sum
    return max(1.001 * 10.0 ** (int(power or 0) - len(decimals)), 1e-3 * abs(value(number)))


def picture_difference(old: bytes, new: bytes) -> str | None:
    """Whether two pictures differ in size, or by more than 16 of 255 levels in more than 1 of 200 pixels."""
    from PIL import Image, ImageChops

    before, after = (Image.open(io.BytesIO(bytes)).convert("RGBA") for bytes in (old, new))
    if before.size != after.size:
        return f"its size is {after.size} in place of {before.size}"
    bands = ImageChops.difference(before, after).split()
    largest = functools.reduce(ImageChops.lighter, bands).histogram()
    share = sum(largest[17:]) / sum(largest)
    return f"{share:.1%} of its pixels differ" if share > 1 / 200 else None
