"""Files and folders that were read, listed, moved or removed."""

from collections.abc import Iterator

from .....core.activity import (
    CreateDirectoryActivity,
    DeleteDirectoryActivity,
    DeleteFileActivity,
    DirectoryItem,
    GetFileInfoActivity,
    ListDirectoryActivity,
    MoveFileActivity,
    ReadImageFileActivity,
    ReadPdfFileActivity,
    ReadTextFileActivity,
)
from ....plain import one_line
from ...moments import size
from .block import DIM, Block
from .marks import below, failure, tool_head

LIST_ROWS = 6
_LABELS = {
    "readImageFile": "Image",
    "readPdfFile": "PDF",
    "deleteFile": "Delete",
    "createDirectory": "Make folder",
}


def read_text(activity: ReadTextFileActivity) -> Iterator[Block]:
    from_, to = activity.from_, activity.to
    place = "" if from_ is None and to is None else f"#{'' if from_ is None else from_}-{'' if to is None else to}"
    yield tool_head("Read", activity.path + place, activity.error)
    yield from failure(activity.error)
    if activity.content is not None:
        yield below(activity.content, style=DIM)


def read_media(activity: ReadImageFileActivity | ReadPdfFileActivity) -> Iterator[Block]:
    about = [one_line(activity.mime_type)] if activity.mime_type is not None else []
    if activity.size is not None:
        about.append(size(activity.size))
    text = f"{activity.path} ({', '.join(about)})" if about else activity.path
    yield tool_head(_LABELS[activity.type], text, activity.error)
    yield from failure(activity.error)


def change_path(activity: DeleteFileActivity | CreateDirectoryActivity) -> Iterator[Block]:
    yield tool_head(_LABELS[activity.type], activity.path, activity.error)
    yield from failure(activity.error)


def delete_folder(activity: DeleteDirectoryActivity) -> Iterator[Block]:
    label = "Delete folder with all in it" if activity.recursive else "Delete folder"
    yield tool_head(label, activity.path, activity.error)
    yield from failure(activity.error)


def move(activity: MoveFileActivity) -> Iterator[Block]:
    yield tool_head("Move", f"{one_line(activity.source)} → {one_line(activity.destination)}", activity.error)
    yield from failure(activity.error)


def file_info(activity: GetFileInfoActivity) -> Iterator[Block]:
    yield tool_head("Info", activity.path, activity.error)
    yield from failure(activity.error)
    info = activity.info
    if info is None:
        return
    if not info.exists:
        yield below("does not exist", style=DIM)
        return
    kind = info.type if info.mime_type is None else f"{info.type}, {one_line(info.mime_type)}"
    yield below(f"{kind}, {one_line(info.size_formatted)}, changed {one_line(info.modified)}", style=DIM)


def list_folder(activity: ListDirectoryActivity) -> Iterator[Block]:
    yield tool_head("List", activity.path, activity.error)
    yield from failure(activity.error)
    if activity.items is not None:
        yield below("\n".join(map(_item, activity.items)) or "(empty)", rows=LIST_ROWS, style=DIM)


def _item(item: DirectoryItem) -> str:
    name = one_line(item.name)
    return f"{name}/" if item.type == "directory" else f"{name}  {size(item.size)}"
