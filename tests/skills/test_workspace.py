"""What tools can reach: everything in the workspace, nothing else, whatever the path looks like."""

import os
import threading
from pathlib import Path

import pytest
from perstack.activities.skills.base.workspace import MAX_LINKS, Workspace
from perstack.activities.skills.results import ToolFailure
from perstack.core.failures import WorkspaceError

LIMIT = 1_000_000


def read(workspace: Workspace, path: str) -> str:
    with workspace.locate(path) as place:
        return place.read(LIMIT).decode()


def write(workspace: Workspace, path: str, text: str) -> None:
    with workspace.locate(path, make_parents=True) as place:
        place.replace(text.encode())


def refusal(workspace: Workspace, path: str) -> str:
    """The refusal to read `path`; writing it is refused as well."""
    with pytest.raises(ToolFailure), workspace.locate(path) as place:
        place.replace(b"overwritten")
    with pytest.raises(ToolFailure) as caught:
        read(workspace, path)
    return caught.value.message


@pytest.mark.parametrize("path", ["a/b.txt", "./a/./b.txt", "a//b.txt", "a/../a/b.txt", "../ws/a/b.txt", "a/b.txt/"])
def test_a_file_is_reached_by_every_relative_spelling(workspace: Workspace, root: Path, path: str) -> None:
    (root / "a").mkdir()
    (root / "a/b.txt").write_text("here")
    assert read(workspace, path) == "here"


def test_a_file_is_reached_by_absolute_paths_that_name_the_root_in_any_way(
    workspace: Workspace, root: Path, tmp_path: Path
) -> None:
    (root / "b.txt").write_text("here")
    (tmp_path / "alias").symlink_to(root)
    for path in (f"{root}/b.txt", f"{root}/../ws/b.txt", f"{tmp_path}/alias/b.txt", f"{tmp_path}/./alias/../ws/b.txt"):
        assert read(workspace, path) == "here"


def test_the_workspace_may_itself_be_given_by_a_link(root: Path, tmp_path: Path) -> None:
    (root / "b.txt").write_text("here")
    (tmp_path / "alias").symlink_to(root)
    workspace = Workspace(tmp_path / "alias")
    assert workspace.root == root
    assert read(workspace, f"{tmp_path}/alias/b.txt") == "here"
    assert read(workspace, f"{root}/b.txt") == "here"


def test_a_tilde_is_the_home_folder(root: Path, monkeypatch: pytest.MonkeyPatch, outside: Path) -> None:
    (root / "b.txt").write_text("here")
    monkeypatch.setenv("HOME", str(root))
    assert read(Workspace(root), "~/b.txt") == "here"
    monkeypatch.setenv("HOME", str(outside))
    assert "outside the workspace" in refusal(Workspace(root), "~/secret.txt")


@pytest.mark.parametrize("path", ["", ".", "./", "a/.."])
def test_the_empty_path_and_the_dot_are_the_workspace(workspace: Workspace, root: Path, path: str) -> None:
    (root / "a").mkdir()
    with workspace.directory(path) as handle:
        status = os.fstat(handle)
    assert (status.st_dev, status.st_ino) == (root.stat().st_dev, root.stat().st_ino)
    assert "is a folder" in refusal(workspace, path)


@pytest.mark.parametrize(
    "path",
    [
        "../outside/secret.txt",
        "a/../../outside/secret.txt",
        "../../../../../../etc/passwd",
        "/etc/passwd",
        "/",
        "..",
        "../ws-sibling/x.txt",
        "/proc/self/root/etc/passwd",
        "~root/../../etc/passwd/../../..",
    ],
)
def test_paths_that_leave_the_workspace_are_refused(
    workspace: Workspace, root: Path, outside: Path, tmp_path: Path, path: str
) -> None:
    (root / "a").mkdir()
    (tmp_path / "ws-sibling").mkdir()
    (tmp_path / "ws-sibling/x.txt").write_text("secret")
    assert "outside" in refusal(workspace, path) or "There is no file" in refusal(workspace, path)
    assert (outside / "secret.txt").read_text() == "secret"


def test_a_sibling_with_the_same_prefix_is_outside(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "ws2").mkdir()
    (tmp_path / "ws2/x.txt").write_text("secret")
    assert "outside" in refusal(workspace, f"{tmp_path}/ws2/x.txt")


def test_links_inside_the_workspace_are_followed(workspace: Workspace, root: Path) -> None:
    (root / "real/deep").mkdir(parents=True)
    (root / "real/deep/file.txt").write_text("here")
    (root / "folder").symlink_to("real")
    (root / "absolute").symlink_to(root / "real/deep")
    (root / "real/up").symlink_to("../folder/deep/file.txt")
    (root / "out-and-in").symlink_to("../ws/real")
    for path in ("folder/deep/file.txt", "absolute/file.txt", "real/up", "out-and-in/deep/file.txt"):
        assert read(workspace, path) == "here"
    # `..` after a link means the parent of the link's target.
    assert read(workspace, "absolute/../up") == "here"


@pytest.mark.parametrize("depth", [0, 1, 4])
@pytest.mark.parametrize("style", ["absolute", "relative", "through another link"])
def test_an_escaping_folder_link_is_refused_at_every_depth(
    workspace: Workspace, root: Path, outside: Path, depth: int, style: str
) -> None:
    folder = root.joinpath(*["d"] * depth)
    folder.mkdir(parents=True, exist_ok=True)
    target = str(outside) if style == "absolute" else "../" * (depth + 1) + "outside"
    if style == "through another link":
        (root / "hop").symlink_to(outside)
        target = str(root / "hop")
    (folder / "link").symlink_to(target)
    assert "outside" in refusal(workspace, "d/" * depth + "link/secret.txt")
    with pytest.raises(ToolFailure, match="outside"):
        write(workspace, "d/" * depth + "link/new/file.txt", "x")
    with pytest.raises(ToolFailure, match="outside"), workspace.directory("d/" * depth + "link"):
        pass
    assert [path.name for path in outside.iterdir()] == ["secret.txt"]


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_an_escaping_link_as_the_last_component_is_refused(
    workspace: Workspace, root: Path, outside: Path, depth: int
) -> None:
    folder = root.joinpath(*["d"] * depth)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file").symlink_to(outside / "secret.txt")
    (folder / "new").symlink_to(outside / "new.txt")
    assert "outside" in refusal(workspace, "d/" * depth + "file")
    with pytest.raises(ToolFailure, match="outside"):
        write(workspace, "d/" * depth + "new", "x")
    assert [path.name for path in outside.iterdir()] == ["secret.txt"]


def test_links_in_a_circle_end_in_a_refusal(workspace: Workspace, root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    (root / "self").symlink_to("self/self")
    for path in ("a", "self/x"):
        assert f"more than {MAX_LINKS} links" in refusal(workspace, path)


def test_writing_through_a_link_inside_changes_its_target(workspace: Workspace, root: Path) -> None:
    (root / "real.txt").write_text("old")
    (root / "link.txt").symlink_to("real.txt")
    write(workspace, "link.txt", "new")
    assert (root / "link.txt").is_symlink()
    assert (root / "real.txt").read_text() == "new"


def test_missing_parents_are_made_at_any_depth(workspace: Workspace, root: Path) -> None:
    write(workspace, "x/y/z/file.txt", "deep")
    assert (root / "x/y/z/file.txt").read_text() == "deep"


def test_missing_parents_are_not_made_for_reading(workspace: Workspace, root: Path) -> None:
    with pytest.raises(ToolFailure, match="no file or folder"):
        read(workspace, "x/y/file.txt")
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    "path",
    [
        "perstack/state.json",
        "PERSTACK/state.json",
        "Perstack/state.json",
        "./perstack/./state.json",
        "a/../perstack/state.json",
        "a/../../ws/perstack/state.json",
        "PERſTACK/state.json",
        "ｐerstack/state.json",
        "to-hidden/state.json",
        "a/up/perstack/state.json",
        "to-state",
        "a/chain",
        "hard-link.json",
        "perstack/new.json",
    ],
)
def test_the_hidden_folder_cannot_be_reached(workspace: Workspace, root: Path, path: str) -> None:
    (root / "perstack").mkdir()
    (root / "perstack/state.json").write_text("secret")
    (root / "a").mkdir()
    (root / "to-hidden").symlink_to("perstack")
    (root / "a/up").symlink_to("..")
    (root / "to-state").symlink_to("perstack/state.json")
    (root / "a/chain").symlink_to("../to-hidden/state.json")
    (root / "hard-link.json").hardlink_to(root / "perstack/state.json")
    assert "cannot reach" in refusal(workspace, path)
    assert (root / "perstack/state.json").read_text() == "secret"
    assert not (root / "perstack/new.json").exists()


def test_the_hidden_folder_cannot_be_reached_by_absolute_paths_or_as_a_folder(workspace: Workspace, root: Path) -> None:
    (root / "perstack").mkdir()
    assert "cannot reach" in refusal(workspace, f"{root}/Perstack/state.json")
    for path in ("perstack", "PERSTACK", f"{root}/perstack"):
        with pytest.raises(ToolFailure, match="cannot reach"), workspace.directory(path):
            pass


def test_the_hidden_folder_cannot_be_made(workspace: Workspace, root: Path) -> None:
    for path in ("perstack", "PerStack/x.txt"):
        with pytest.raises(ToolFailure, match="cannot reach"):
            write(workspace, path, "x")
    assert list(root.iterdir()) == []


def test_the_target_of_a_linked_hidden_folder_is_hidden_too(workspace: Workspace, root: Path) -> None:
    (root / "store").mkdir()
    (root / "store/state.json").write_text("secret")
    (root / "perstack").symlink_to("store")
    assert "cannot reach" in refusal(workspace, "store/state.json")


def test_a_perstack_folder_further_down_is_an_ordinary_one(workspace: Workspace, root: Path) -> None:
    write(workspace, "src/perstack/core.py", "x = 1")
    assert read(workspace, "src/perstack/core.py") == "x = 1"


def test_an_ordinary_file_with_hard_links_is_read(workspace: Workspace, root: Path) -> None:
    (root / "perstack").mkdir()
    (root / "a.txt").write_text("here")
    (root / "b.txt").hardlink_to(root / "a.txt")
    assert read(workspace, "b.txt") == "here"


@pytest.mark.parametrize("path", [".env", "./a/../.env", ".ENV", "env-link", "env-hard", "alias/.env"])
def test_env_files_in_use_cannot_be_reached(root: Path, path: str) -> None:
    (root / "a").mkdir()
    (root / ".env").write_text("KEY=secret")
    (root / "env-link").symlink_to(".env")
    (root / "env-hard").hardlink_to(root / ".env")
    (root / "alias").symlink_to(".")
    workspace = Workspace(root, protected=(root / ".env",))
    assert "cannot reach" in refusal(workspace, path)
    assert (root / ".env").read_text() == "KEY=secret"


def test_an_env_file_that_is_a_link_is_protected_with_its_target(root: Path) -> None:
    (root / "real.env").write_text("KEY=secret")
    (root / ".env").symlink_to("real.env")
    workspace = Workspace(root, protected=(root / ".env",))
    for path in (".env", "real.env"):
        assert "cannot reach" in refusal(workspace, path)


def test_an_env_file_that_is_not_there_yet_cannot_be_made(root: Path) -> None:
    workspace = Workspace(root, protected=(root / ".env.local",))
    with pytest.raises(ToolFailure, match="cannot reach"):
        write(workspace, ".env.local", "KEY=mine")
    assert list(root.iterdir()) == []


def test_other_env_files_are_ordinary(root: Path) -> None:
    workspace = Workspace(root, protected=(root / ".env",))
    write(workspace, ".env.example", "KEY=")
    assert read(workspace, ".env.example") == "KEY="


def test_special_files_are_refused_without_being_opened(workspace: Workspace, root: Path) -> None:
    os.mkfifo(root / "pipe")
    (root / "null").symlink_to("/dev/null")
    assert "not a file" in refusal(workspace, "pipe")
    assert "outside" in refusal(workspace, "null")


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "a/" * 3000, "\udcff\ud800.txt"])
def test_impossible_paths_are_refused_in_words(workspace: Workspace, path: str) -> None:
    assert refusal(workspace, path)


def test_a_deep_path_needs_only_a_few_handles(workspace: Workspace, root: Path) -> None:
    deep = "d/" * 200
    before = len(os.listdir("/proc/self/fd"))
    with workspace.locate(deep + "file.txt", make_parents=True) as place:
        assert len(os.listdir("/proc/self/fd")) <= before + 2
        place.replace(b"deep")
    assert read(workspace, deep + "file.txt") == "deep"
    assert len(os.listdir("/proc/self/fd")) == before


def test_refusals_leave_no_handle_open(workspace: Workspace, root: Path, outside: Path) -> None:
    (root / "link").symlink_to(outside)
    (root / "perstack").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for path in ("link/x", "perstack/x", "../x", "missing/x", "a\0b", "/etc/passwd"):
        with pytest.raises(ToolFailure), workspace.locate(path):
            pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_replaced_file_keeps_its_mode_and_leaves_no_other(workspace: Workspace, root: Path) -> None:
    (root / "run.sh").write_text("old")
    (root / "run.sh").chmod(0o755)
    write(workspace, "run.sh", "new")
    assert (root / "run.sh").stat().st_mode & 0o777 == 0o755
    assert [path.name for path in root.iterdir()] == ["run.sh"]


def test_a_replaced_program_does_not_keep_the_right_to_act_as_its_owner(workspace: Workspace, root: Path) -> None:
    (root / "tool").write_text("old")
    (root / "tool").chmod(0o6755)
    write(workspace, "tool", "new")
    assert (root / "tool").stat().st_mode & 0o7777 == 0o755


def test_a_file_without_write_permission_is_not_replaced(workspace: Workspace, root: Path) -> None:
    (root / "fixed.txt").write_text("old")
    (root / "fixed.txt").chmod(0o444)
    with pytest.raises(ToolFailure, match="not writable"):
        write(workspace, "fixed.txt", "new")
    assert (root / "fixed.txt").read_text() == "old"


def test_a_workspace_has_to_be_an_existing_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "missing", tmp_path / "file", Path("relative")):
        with pytest.raises(WorkspaceError):
            Workspace(path)


def test_a_link_swapped_while_we_look_never_leads_outside(workspace: Workspace, root: Path, outside: Path) -> None:
    (root / "real").mkdir()
    (root / "real/secret.txt").write_text("inside")
    (root / "turn").symlink_to("real")
    (outside / "file.txt").write_text("secret")
    (root / "file.txt").write_text("inside")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for target in (outside, Path("real")):
                (root / "next").symlink_to(target)
                os.replace(root / "next", root / "turn")
            (root / "next-file").symlink_to(outside / "file.txt")
            os.replace(root / "next-file", root / "file.txt")
            (root / "plain").write_text("inside")
            os.replace(root / "plain", root / "file.txt")

    racer = threading.Thread(target=swap)
    racer.start()
    seen: set[str] = set()
    try:
        for turn in range(3000):
            for path in ("turn/secret.txt", "file.txt"):
                try:
                    seen.add(read(workspace, path))
                    if turn % 10 == 0:
                        write(workspace, path, "inside")
                    seen.add("reached")
                except ToolFailure:
                    seen.add("refused")
    finally:
        stop.set()
        racer.join()
    assert "inside" in seen
    assert seen <= {"inside", "refused", "reached"}
    assert (outside / "secret.txt").read_text() == "secret"
    assert (outside / "file.txt").read_text() == "secret"


def test_a_folder_swapped_for_a_link_while_we_look_never_leads_outside(
    workspace: Workspace, root: Path, outside: Path
) -> None:
    (root / "folder").mkdir()
    (root / "folder/secret.txt").write_text("inside")
    (root / "link").symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(root / "folder", root / "aside")
            os.rename(root / "link", root / "folder")
            os.rename(root / "folder", root / "link")
            os.rename(root / "aside", root / "folder")

    racer = threading.Thread(target=swap)
    racer.start()
    seen: set[str] = set()
    try:
        for turn in range(5000):
            try:
                seen.add(read(workspace, "folder/secret.txt"))
                if turn % 10 == 0:
                    with workspace.locate("folder/secret.txt") as place:
                        place.replace(b"inside")
            except ToolFailure:
                seen.add("refused")
    finally:
        stop.set()
        racer.join()
    assert "inside" in seen
    assert seen <= {"inside", "refused"}
    assert (outside / "secret.txt").read_text() == "secret"
