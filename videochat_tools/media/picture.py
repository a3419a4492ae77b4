"""Still pictures."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from videochat_tools.errors import MediaNotFoundError, UnreadableMediaError

__all__ = ["read_picture"]


def read_picture(source: Path | IO[bytes]) -> npt.NDArray[np.uint8]:
    """uint8 RGB [height, width, 3], turned the right way up.

    Raises:
        MediaNotFoundError: no such file.
        UnreadableMediaError: damaged, or no picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = source if isinstance(source, Path) else "the inline picture"
    try:
        with Image.open(source) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except FileNotFoundError:
        raise MediaNotFoundError(f"no such file: {name}; check the name and the folder") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        # The message about an unknown kind prints the object that was read.
        reason = "of no known kind" if isinstance(error, UnidentifiedImageError) else error
        raise UnreadableMediaError(
            f"{name} is no readable picture ({reason}); give a JPEG, PNG or WebP file"
        ) from error
