"""The folder an expert works in: every path is walked from its root by directory handles, no check is by full path."""

import os
import secrets
import stat
import unicodedata
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from ....client.locations import HIDDEN_FOLDER
from ....core.failures import WorkspaceError
from ..results import ToolFailure

"""The folder below the root that holds our own state; no tool may reach it."""
MAX_LINKS = 40
MAX_PATH_BYTES = 4096
_NEW_FILE_MODE = 0o644
# O_PATH needs only search permission, as a lookup by the kernel would.
_DIRECTORY: int = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a fifo that takes a file's place between check and open must not block the worker.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Identity = tuple[int, int]


class Workspace:
    """Files below `root`, without its hidden folder and without the files named in `protected` (absolute paths)."""

    def __init__(self, root: Path, protected: tuple[Path, ...] = ()) -> None:
        if not root.is_absolute() or not root.is_dir():
            raise WorkspaceError(f"The workspace {root} is not an existing folder with an absolute path.")
        self.root = Path(os.path.realpath(root))
        self._protected = protected
        self._protected_names = frozenset(
            _folded(name)
            for path in protected
            for name in (str(path), os.path.realpath(path), os.path.join(os.path.realpath(path.parent), path.name))
        )

    @contextmanager
    def locate(self, path: str, *, make_parents: bool = False) -> "Generator[Place]":
        """Where `path` really is, held open by its directory.

        Raises:
            ToolFailure: the path leaves the workspace, is reserved, or a folder on the way is missing.
        """
        with _readable(path):
            walk = _Walk(self, path, make_parents=make_parents)
        try:
            with _readable(path):
                name = walk.follow(into_last=False)
                if name is not None and self._is_protected_name(walk.names, name):
                    raise _protected(path)
            yield Place(self, walk.directory, name, path)
        finally:
            walk.close()

    @contextmanager
    def directory(self, path: str) -> Generator[int]:
        """A handle of the folder `path`, resolved by the rules of `locate`."""
        with _readable(path):
            walk = _Walk(self, path, make_parents=False)
        try:
            with _readable(path):
                walk.follow(into_last=True)
            yield walk.directory
        finally:
            walk.close()

    def size(self, path: str) -> int:
        """Size of the file at `path` in bytes; 0 when there is none to read."""
        try:
            with self.locate(path) as place:
                status = place.status()
        except ToolFailure:
            return 0
        return status.st_size if status else 0

    def hidden_identity(self) -> Identity | None:
        """Device and inode of the hidden folder, as long as it exists."""
        return _identity_of(self.root / HIDDEN_FOLDER)

    def refuses(self, status: os.stat_result) -> bool:
        """Whether a file is protected, or a hard link to something in the hidden folder."""
        identity = (status.st_dev, status.st_ino)
        if any(identity == _identity_of(path) for path in self._protected):
            return True
        return status.st_nlink > 1 and self._is_in_hidden_folder(identity)

    def _is_protected_name(self, names: list[str], name: str) -> bool:
        return bool(self._protected) and _folded(str(self.root.joinpath(*names, name))) in self._protected_names

    def _is_in_hidden_folder(self, identity: Identity) -> bool:
        hidden = self.root / HIDDEN_FOLDER
        if hidden.is_dir() and hidden.stat().st_dev != identity[0]:
            return False
        for folder, _, files in os.walk(hidden):
            for file in files:
                if _identity_of(Path(folder, file), follow=False) == identity:
                    return True
        return False


class Place:
    """A name in an open folder of the workspace; a file there is reached through the handle only."""

    def __init__(self, workspace: Workspace, directory: int, name: str | None, shown: str) -> None:
        self._workspace = workspace
        self._directory = directory
        self._name = name
        self._shown = shown

    def status(self) -> os.stat_result | None:
        """The regular file's status, or `None` when there is no such file.

        Raises:
            ToolFailure: it is a folder, a special file or a protected one.
        """
        if self._name is None:
            raise ToolFailure(f"{self._shown!r} is a folder.")
        with _readable(self._shown):
            try:
                status = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
            except FileNotFoundError:
                return None
        self._check(status)
        return status

    def read(self, limit: int) -> bytes:
        """The content of the file.

        Raises:
            ToolFailure: there is no such file, it may not be read, or it has more than `limit` bytes.
        """
        # The status first: opening a device or a fifo may have effects.
        if self.status() is None:
            raise ToolFailure(f"There is no file {self._shown!r}.")
        with _readable(self._shown):
            handle = os.open(self._name or ".", _READ, dir_fd=self._directory)
            with os.fdopen(handle, "rb") as file:
                status = os.fstat(handle)
                self._check(status)
                content = file.read(limit + 1) if status.st_size <= limit else b""
        if status.st_size > limit or len(content) > limit:
            raise ToolFailure(f"{self._shown!r} has {status.st_size} bytes, more than the limit of {limit}.")
        return content

    def replace(self, content: bytes) -> None:
        """Put `content` in the file's place at once: readers see the old file or the new one."""
        existing = self.status()
        if existing is not None and not existing.st_mode & stat.S_IWUSR:
            raise ToolFailure(f"{self._shown!r} is not writable.")
        temporary = f".{HIDDEN_FOLDER}-{secrets.token_hex(8)}.tmp"
        with _readable(self._shown):
            handle = os.open(temporary, _CREATE, _NEW_FILE_MODE, dir_fd=self._directory)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                    if existing is not None:
                        _keep_owner_and_mode(handle, existing)
                os.replace(temporary, self._name or ".", src_dir_fd=self._directory, dst_dir_fd=self._directory)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=self._directory)
                raise

    def _check(self, status: os.stat_result) -> None:
        if stat.S_ISDIR(status.st_mode):
            raise ToolFailure(f"{self._shown!r} is a folder.")
        if stat.S_ISLNK(status.st_mode):
            raise ToolFailure(f"{self._shown!r} changed while it was looked up.")
        if not stat.S_ISREG(status.st_mode):
            raise ToolFailure(f"{self._shown!r} is a device, pipe or socket, not a file.")
        if self._workspace.refuses(status):
            raise _protected(self._shown)


class _Walk:
    """One path, resolved component by component; links are read and followed here, never by the kernel."""

    def __init__(self, workspace: Workspace, path: str, *, make_parents: bool) -> None:
        self._workspace = workspace
        self._shown = path
        self._make_parents = make_parents
        self._hidden = workspace.hidden_identity()
        self._links = 0
        self.names: list[str] = []
        self._rest: list[str] = []
        self.directory = os.open(workspace.root, _DIRECTORY)
        try:
            self._start(path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let the handle go."""
        os.close(self.directory)

    def follow(self, *, into_last: bool) -> str | None:
        """Walk to the end; the name of the last component, or `None` when the end is an open folder."""
        while self._rest:
            name = self._rest.pop()
            if name == "..":
                self._go_up()
                continue
            if not self.names and _folded(name) == HIDDEN_FOLDER:
                raise _hidden(self._shown)
            target = self._link_target(name)
            if target is not None:
                self._follow_link(target)
            elif self._rest or into_last:
                self._enter(name)
            else:
                return name
        return None

    def _start(self, path: str) -> None:
        if "\0" in path:
            raise ToolFailure("A path may not contain the character NUL.")
        if path == "~" or path.startswith("~/"):
            path = os.path.expanduser("~") + path[1:]
        if len(os.fsencode(path)) >= MAX_PATH_BYTES:
            raise ToolFailure("The path is too long.")
        if path.startswith("/"):
            self._rest = self._below_root(["/", *_components(path)])
        else:
            self._rest = _components(path)[::-1]

    def _link_target(self, name: str) -> str | None:
        try:
            return os.readlink(name, dir_fd=self.directory)
        except OSError:
            # Not a link, or not there at all: entering or opening it says which.
            return None

    def _follow_link(self, target: str) -> None:
        self._links += 1
        if self._links > MAX_LINKS:
            raise ToolFailure(f"{self._shown!r} goes through more than {MAX_LINKS} links.")
        if target.startswith("/"):
            self._rest = self._below_root(["/", *_components(target), *self._rest[::-1]])
            self._reopen([])
        else:
            self._rest.extend(_components(target)[::-1])

    def _go_up(self) -> None:
        if self.names:
            self._reopen(self.names[:-1])
            return
        parts = ["/", *_components(str(self._workspace.root)), "..", *self._rest[::-1]]
        self._rest = self._below_root(parts)

    def _enter(self, name: str) -> None:
        try:
            handle = os.open(name, _DIRECTORY, dir_fd=self.directory)
        except FileNotFoundError:
            if not self._make_parents:
                raise
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=self.directory)
            handle = os.open(name, _DIRECTORY, dir_fd=self.directory)
        self._take(handle, [*self.names, name])

    def _reopen(self, names: list[str]) -> None:
        """Go to a folder already resolved; handles of the way are not kept, so that depth costs none."""
        self._take(os.open(self._workspace.root, _DIRECTORY), [])
        for name in names:
            self._take(os.open(name, _DIRECTORY, dir_fd=self.directory), [*self.names, name])

    def _take(self, handle: int, names: list[str]) -> None:
        os.close(self.directory)
        self.directory = handle
        self.names = names
        if self._hidden is None and names:
            self._hidden = self._workspace.hidden_identity()
        if self._hidden is not None and names:
            status = os.fstat(handle)
            if (status.st_dev, status.st_ino) == self._hidden:
                raise _hidden(self._shown)

    def _below_root(self, parts: list[str]) -> list[str]:
        """What of an absolute path lies below the root, last component first.

        Only identities are compared here, so a path may name the root in any way; what is below it is then walked.
        """
        root = os.stat(self._workspace.root)
        own = list(self._workspace.root.parts)
        found = None
        prefix = ""
        for index, part in enumerate(parts, start=1):
            prefix = os.path.join(prefix, part)
            try:
                status = os.stat(prefix)
            except OSError:
                break
            if (status.st_dev, status.st_ino) == (root.st_dev, root.st_ino):
                found = index
        if found is None or (parts[:found] == own and parts[found : found + 1] == [".."]):
            raise ToolFailure(f"{self._shown!r} is outside the workspace.")
        return parts[found:][::-1]


def _components(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _folded(name: str) -> str:
    """`name` as a file system that ignores case and composition may see it."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _identity_of(path: Path, *, follow: bool = True) -> Identity | None:
    try:
        status = os.stat(path, follow_symlinks=follow)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _keep_owner_and_mode(handle: int, existing: os.stat_result) -> None:
    new = os.fstat(handle)
    if (new.st_uid, new.st_gid) != (existing.st_uid, existing.st_gid):
        with suppress(PermissionError):
            os.fchown(handle, existing.st_uid, existing.st_gid)
    # Not its set-id bits: the kernel takes them from a file that is written to, and these bytes are new ones.
    os.fchmod(handle, existing.st_mode & 0o777)


@contextmanager
def _readable(shown: str) -> Generator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ToolFailure(f"There is no file or folder {shown!r}.") from error
    except UnicodeEncodeError as error:
        raise ToolFailure("The path is not valid text.") from error
    except OSError as error:
        raise ToolFailure(f"{shown!r}: {error.strerror or error}.") from error


def _hidden(shown: str) -> ToolFailure:
    return ToolFailure(f"{shown!r} is in the reserved {HIDDEN_FOLDER} folder, which tools cannot reach.")


def _protected(shown: str) -> ToolFailure:
    return ToolFailure(f"{shown!r} is a file of the runtime itself, which tools cannot reach.")
