"""Every way we know of to say a path that a tool must not take."""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from attacks.arena import TOOLS, Arena, Tool

Build = Callable[[Arena, str], str]


@dataclass(frozen=True)
class Route:
    """A path to something forbidden, made for the file a tool is after (or for the folder, if there is none)."""

    name: str
    build: Build
    takes_folders: bool = True
    takes_new: bool = True
    """Whether it also leads to a file that is not there yet."""
    is_refused: bool = False


@dataclass(frozen=True)
class PathAttack:
    """One tool on one route."""

    route: Route
    tool: Tool

    def __str__(self) -> str:
        return f"{self.tool}: {self.route.name}"

    async def run(self, arena: Arena) -> list[str]:
        """What the attack achieved; nothing, as we hope."""
        return await arena.attack(self.tool, self.route.build(arena, self.tool.leaf), is_refused=self.route.is_refused)


def below(prefix: str) -> Build:
    """The file below a fixed folder."""
    return lambda arena, leaf: os.path.join(prefix.format(arena=arena), leaf)


def just(path: str) -> Build:
    """Always the same path."""
    return lambda arena, leaf: path.format(arena=arena)


def link(name: str, target: str, path: str) -> Build:
    """The file below `path`, once `name` is a link to `target`."""

    def build(arena: Arena, leaf: str) -> str:
        place = arena.root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target.format(arena=arena))
        return os.path.join(path.format(arena=arena), leaf)

    return build


def chain(length: int) -> Build:
    """The file below the last of `length` links, each of which leads to the one before."""

    def build(arena: Arena, leaf: str) -> str:
        (arena.root / "link0").symlink_to("../outside")
        for number in range(1, length):
            (arena.root / f"link{number}").symlink_to(f"link{number - 1}")
        return os.path.join(f"link{length - 1}", leaf)

    return build


def file_link(target: str, *, name: str = "file", length: int = 1) -> Build:
    """A link as the last component, over `length` links."""

    def build(arena: Arena, leaf: str) -> str:
        place = arena.root / name
        for number in range(1, length):
            place.with_name(f"{place.name}{number}").symlink_to(place.name + str(number + 1))
        last = place.with_name(f"{place.name}{length}")
        last.symlink_to(os.path.join(target.format(arena=arena), leaf))
        return str(place.with_name(f"{place.name}1").relative_to(arena.root))

    return build


def hard_link(arena: Arena, leaf: str) -> str:
    """A second name of a file in the hidden folder."""
    (arena.root / "hard").hardlink_to(arena.root / "perstack" / leaf)
    return "hard"


def env_hard_link(arena: Arena, leaf: str) -> str:
    """A second name of an env file."""
    (arena.root / "hard").hardlink_to(arena.root / ".env")
    return "hard"


def env_link(arena: Arena, leaf: str) -> str:
    """A link to an env file."""
    (arena.root / "e").symlink_to(".env")
    return "e"


def store_behind_the_hidden_folder(arena: Arena, leaf: str) -> str:
    """The hidden folder is a link to an ordinary one, which is then as hidden."""
    os.rename(arena.root / "perstack", arena.root / "store")
    (arena.root / "perstack").symlink_to("store")
    return os.path.join("store", leaf)


def env_alias(arena: Arena, leaf: str) -> str:
    """The folder of the env file under another name."""
    (arena.root / "alias").symlink_to(".")
    return "alias/.env"


def pipe(arena: Arena, leaf: str) -> str:
    """A pipe that nobody writes to."""
    os.mkfifo(arena.root / "pipe")
    return "pipe"


def unix_socket(arena: Arena, leaf: str) -> str:
    """A socket that nobody listens on."""
    os.mknod(arena.root / "socket", 0o600 | stat.S_IFSOCK)
    return "socket"


ESCAPES = (
    Route("..", below("../outside")),
    Route("./..", below("./../outside")),
    Route("folder/../..", below("a/../../outside")),
    Route("many slashes", below(".//..///outside/")),
    Route("deep and back", below("a/deep/folder/../../../../outside")),
    Route("far above the root", below("../" * 40 + "{arena.outside}")),
    Route("absolute", below("{arena.outside}")),
    Route("absolute, two slashes", below("/{arena.outside}")),
    Route("absolute through the root", below("{arena.root}/../outside")),
    Route("absolute through the root and its name", below("{arena.root}/../ws/../outside")),
    Route("a sibling with the same prefix", below("../ws-2")),
    Route("an absolute sibling with the same prefix", below("{arena.root}-2")),
    Route("~", below("~")),
    Route("~/..", below("~/../outside")),
    Route("the worker's root", below("/proc/self/root{arena.outside}")),
    Route("the worker's folder", below("/proc/self/cwd/{arena.outside}")),
    Route("the worker's root by id", below(f"/proc/{os.getpid()}/root{{arena.outside}}")),
    Route("a thread's root", below("/proc/thread-self/root{arena.outside}")),
    Route("a link to a folder", link("out", "../outside", "out")),
    Route("an absolute link to a folder", link("out", "{arena.outside}", "out")),
    Route("a link deep inside", link("a/deep/out", "../../../outside", "a/deep/out")),
    Route("a link to the parent", link("up", "..", "up/outside")),
    Route("a link to the root of all", link("top", "/", "top{arena.outside}")),
    Route("a link out and in and out", link("out", "../outside", "out/../ws/out")),
    Route("a link into /proc", link("proc", "/proc/self/root", "proc{arena.outside}")),
    Route("a link to a descriptor's folder", link("fd", "/proc/self/cwd", "fd/{arena.outside}")),
    Route("a link with ..", link("a/x", "deep/../../../outside", "a/x")),
    Route("a link that ends in a slash", link("out", "../outside/", "out/")),
    Route("a link with a dot behind it", link("out", "../outside", "out/.")),
    Route("a chain of 3 links", chain(3)),
    Route("a chain of 39 links", chain(39)),
    Route("a chain of 60 links", chain(60)),
    Route("the last component is a link", file_link("../outside"), takes_folders=False),
    Route("the last component is an absolute link", file_link("{arena.outside}"), takes_folders=False),
    Route("the last component is a deep link", file_link("../../outside", name="a/file"), takes_folders=False),
    Route("the last component is a chain of links", file_link("../outside", length=4), takes_folders=False),
    Route("a pipe", pipe, is_refused=True, takes_new=False),
    Route("a socket", unix_socket, is_refused=True, takes_new=False),
    Route("a very long path", below("a/../" * 700 + "../outside")),
    Route("a longer path than there may be", below("./" * 3000 + "../outside"), is_refused=True),
    Route("NUL behind the file", lambda arena, leaf: f"../outside/{leaf}\0.txt", is_refused=True),
    Route("NUL before the escape", lambda arena, leaf: f"canary.txt\0/../../outside/{leaf}", is_refused=True),
    Route("half a surrogate pair", below("../outside/\ud800"), is_refused=True),
    Route("back slashes", below("..\\outside")),
    Route("URL escapes", below("%2e%2e/outside")),
    Route("a file URL", below("file://{arena.outside}")),
    Route("full-width dots", below("．．/outside")),
    Route("a two-dot leader", below("‥/outside")),
    Route("dots and a space", below(".. /outside")),
    Route("a shell's variable", below("$HOME")),
    Route("a shell's command", below("$(cd ../outside; pwd)")),
)
HIDDEN = tuple(
    Route(name, build, is_refused=True, takes_folders=folders, takes_new=new)
    for name, build, folders, new in (
        ("the hidden folder", below("perstack"), True, True),
        ("the hidden folder below a dot", below("./perstack/."), True, True),
        ("the hidden folder, absolute", below("{arena.root}/perstack"), True, True),
        ("the hidden folder from above", below("../ws/perstack"), True, True),
        ("the hidden folder after ..", below("a/../perstack"), True, True),
        ("the hidden folder in capitals", below("PERSTACK"), True, True),
        ("the hidden folder in mixed case", below("pErStAcK"), True, True),
        ("the hidden folder, absolute in capitals", below("{arena.root}/Perstack"), True, True),
        ("the hidden folder with a long s", below("perſtack"), True, True),
        ("the hidden folder in full width", below("ｐｅｒｓｔａｃｋ"), True, True),
        ("the hidden folder in mathematical letters", below("𝐩𝐞𝐫𝐬𝐭𝐚𝐜𝐤"), True, True),
        ("the hidden folder with a ligature", below("perﬆack"), True, True),
        ("the hidden folder with a Kelvin sign", below("perstac\u212a"), True, True),
        ("a link to the hidden folder", link("h", "perstack", "h"), True, True),
        ("an absolute link to the hidden folder", link("h", "{arena.root}/perstack", "h"), True, True),
        ("a link to the hidden folder from below", link("a/h", "../perstack", "a/h"), True, True),
        ("a link to the root and down", link("a/top", "..", "a/top/perstack"), True, True),
        ("a link from outside and back", link("o", "../ws/perstack", "o"), True, True),
        ("the worker's root and down", below("/proc/self/root{arena.root}/perstack"), True, True),
        ("the folder behind a linked hidden folder", store_behind_the_hidden_folder, True, True),
        ("a file link into the hidden folder", file_link("perstack"), False, True),
        ("a chain of file links into the hidden folder", file_link("perstack", length=3), False, True),
        ("a hard link into the hidden folder", hard_link, False, False),
    )
)
ENV_FILES = tuple(
    Route(name, build, is_refused=True, takes_folders=False, takes_new=False)
    for name, build in (
        ("an env file", just(".env")),
        ("an env file below a dot", just("./a/../.env")),
        ("an env file, absolute", just("{arena.root}/.env")),
        ("an env file in capitals", just(".ENV")),
        ("an env file in full width", just(".ｅnv")),
        ("an env file that is not there yet", just(".env.local")),
        ("an env file that is not there yet, in capitals", just(".env.LOCAL")),
        ("a hard link to an env file", env_hard_link),
        ("an env file by another name of its folder", env_alias),
        ("a link to an env file", env_link),
    )
)
_TEXT_TOOLS = ("readTextFile", "writeTextFile", "editTextFile", "addDelegateFromConfig")


def path_attacks() -> list[PathAttack]:
    """Every tool on every route that makes sense for it."""
    attacks = [
        PathAttack(route, tool)
        for route in (*ESCAPES, *HIDDEN)
        for tool in TOOLS
        if (tool.leaf or route.takes_folders) and (route.takes_new or tool.leaf.startswith("canary"))
    ]
    return attacks + [PathAttack(route, tool) for route in ENV_FILES for tool in TOOLS if str(tool) in _TEXT_TOOLS]
