"""What `--file` names, as parts of the first message."""

import base64
import mimetypes
from pathlib import Path

from ..activities.skills.base.files import IMAGE_TYPES, MAX_IMAGE_BYTES, MAX_PDF_BYTES, PDF_TYPE, sniffed
from ..core.failures import UsageError
from ..core.messages import FileInlinePart, FileUrlPart, ImageInlinePart, ImageUrlPart, UserPart


def file_part(name: str, workspace: Path) -> UserPart:
    """An image or PDF by path or URL; a file is judged by its content, a URL by its name.

    Raises:
        UsageError: it cannot be read, is neither an image nor a PDF, or is too large.
    """
    if name.startswith(("http://", "https://")):
        mime_type = mimetypes.guess_type(name.partition("?")[0])[0] or ""
        return (ImageUrlPart if _is_image(name, mime_type) else FileUrlPart)(url=name, mime_type=mime_type)
    try:
        with (workspace / name).open("rb") as file:
            content = file.read(MAX_PDF_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"--file {name}: {getattr(error, 'strerror', None) or error}.") from error
    mime_type = sniffed(content)
    is_image = _is_image(name, mime_type)
    limit = MAX_IMAGE_BYTES if is_image else MAX_PDF_BYTES
    if len(content) > limit:
        raise UsageError(f"--file {name}: it is larger than {limit // 1024 // 1024} MiB.")
    data = base64.b64encode(content).decode()
    return (ImageInlinePart if is_image else FileInlinePart)(encoded_data=data, mime_type=mime_type)


def _is_image(name: str, mime_type: str) -> bool:
    if mime_type not in IMAGE_TYPES and mime_type != PDF_TYPE:
        found = f"this is {mime_type}" if mime_type else "its type is unknown"
        raise UsageError(
            f"--file {name}: only PNG, JPEG, GIF and WebP images and PDFs can be given to the model; {found}."
        )
    return mime_type != PDF_TYPE
