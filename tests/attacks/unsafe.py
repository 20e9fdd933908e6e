"""Each check of the boundary, broken as somebody might break it: the attacks on it have to notice."""

import asyncio
import ipaddress
import json
import os
import signal
import stat
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from attacks.addresses import NetworkAttack, network_attacks, number_attacks, url_attacks
from attacks.arena import Attack
from attacks.commands import environment_attacks, metacharacter_attacks, process_attacks
from attacks.races import stepped_races
from attacks.routes import path_attacks
from perstack.activities.skills import endpoints, environment
from perstack.activities.skills.base import exec as commands
from perstack.activities.skills.base import skill, workspace
from perstack.activities.skills.results import ToolFailure
from perstack.definitions import checks, hosts, protected

Patch = pytest.MonkeyPatch
# The checks that are broken here are no one's to call, and their names may change: then this file has to follow.
_WALK: Any = getattr(workspace, "_Walk")  # noqa: B009
_NETWORK: Any = getattr(endpoints, "_CheckedNetwork")  # noqa: B009
_TRANSPORT: Any = getattr(endpoints, "_CheckedTransport")  # noqa: B009


@dataclass(frozen=True)
class Variant:
    """One broken check, and what the names of the attacks on it contain."""

    name: str
    apply: Callable[[Patch], None]
    attacks: Callable[[], Iterable[Attack]]
    about: tuple[str, ...]

    def __str__(self) -> str:
        return self.name

    def relevant(self) -> list[Attack]:
        """The attacks of which at least one has to succeed."""
        return [attack for attack in self.attacks() if any(text in str(attack) for text in self.about)]


def always(value: Any) -> Callable[..., Any]:
    """A function that answers `value`, whatever it is asked."""

    def answer(*args: Any, **more: Any) -> Any:
        return value

    return answer


def replacing(target: Any, name: str, new: Any) -> Callable[[Patch], None]:
    """Put `new` in the place of what is called `name`."""
    return lambda patch: patch.setattr(target, name, new)


# Paths


def links_left_to_the_kernel(patch: Patch) -> None:
    patch.setattr(_WALK, "_link_target", always(None))
    for name in ("_DIRECTORY", "_READ"):
        patch.setattr(workspace, name, getattr(workspace, name) & ~os.O_NOFOLLOW)


def last_component_left_to_the_kernel(patch: Patch) -> None:
    original = _WALK._link_target

    def target(walk: Any, name: str) -> str | None:
        return original(walk, name) if walk._rest else None

    def status(place: Any) -> os.stat_result | None:
        try:
            return os.stat(place._name, dir_fd=place._directory)
        except FileNotFoundError:
            return None

    patch.setattr(_WALK, "_link_target", target)
    patch.setattr(workspace.Place, "status", status)
    patch.setattr(workspace, "_READ", getattr(workspace, "_READ") & ~os.O_NOFOLLOW)  # noqa: B009


def parents_left_to_the_kernel(patch: Patch) -> None:
    def go_up(walk: Any) -> None:
        walk._take(os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=walk.directory), walk.names[:-1])

    patch.setattr(_WALK, "_go_up", go_up)


def absolute_paths_taken(patch: Patch) -> None:
    def from_the_top(walk: Any, parts: list[str]) -> list[str]:
        walk._take(os.open("/", os.O_RDONLY | os.O_DIRECTORY), ["/"])
        return [part for part in parts if part != "/"][::-1]

    patch.setattr(_WALK, "_below_root", from_the_top)


def checked_by_prefix(patch: Patch) -> None:
    """What many do: resolve, compare the beginning, open by the path."""

    def resolved(space: workspace.Workspace, path: str) -> str:
        found = os.path.realpath(os.path.join(space.root, os.path.expanduser(path)))
        if not found.startswith(str(space.root)):
            raise ToolFailure("outside")
        if found.startswith(f"{space.root}/{workspace.HIDDEN_FOLDER}"):
            raise ToolFailure("hidden")
        return found

    @contextmanager
    def locate(space: workspace.Workspace, path: str, *, make_parents: bool = False) -> Generator[_NaivePlace]:
        yield _NaivePlace(resolved(space, path))

    @contextmanager
    def directory(space: workspace.Workspace, path: str) -> Generator[int]:
        found = resolved(space, path)
        handle = _stepped("open")(found, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield handle
        finally:
            os.close(handle)

    patch.setattr(workspace.Workspace, "locate", locate)
    patch.setattr(workspace.Workspace, "directory", directory)


class _NaivePlace:
    def __init__(self, path: str) -> None:
        self._path = path

    def status(self) -> os.stat_result | None:
        try:
            return _stepped("stat")(self._path)
        except FileNotFoundError:
            return None

    def read(self, limit: int) -> bytes:
        _stepped("stat")(self._path)
        with Path(self._path).open("rb") as file:
            return file.read(limit)

    def replace(self, content: bytes) -> None:
        if _stepped("stat")(self._path) is not None:
            handle = _stepped("open")(self._path, os.O_WRONLY | os.O_TRUNC)
            os.write(handle, content)
            os.close(handle)


def _stepped(name: str) -> Any:
    """A call of `os` that a race can get in front of."""
    return getattr(getattr(workspace, "os"), name)  # noqa: B009


def any_kind_of_file(patch: Patch) -> None:
    def check(place: Any, status: os.stat_result) -> None:
        if stat.S_ISDIR(status.st_mode):
            raise ToolFailure("folder")

    patch.setattr(workspace.Place, "_check", check)


def final_check_left_out(patch: Patch) -> None:
    """The file that was looked at is taken for the one that is opened."""

    def read(place: Any, limit: int) -> bytes:
        if place.status() is None:
            raise ToolFailure("nothing there")
        handle = _stepped("open")(place._name, os.O_RDONLY | os.O_NONBLOCK, dir_fd=place._directory)
        with os.fdopen(handle, "rb") as file:
            return file.read(limit)

    patch.setattr(workspace.Place, "read", read)


def env_files_by_name_only(patch: Patch) -> None:
    def refuses(space: Any, status: os.stat_result) -> bool:
        return status.st_nlink > 1 and space._is_in_hidden_folder((status.st_dev, status.st_ino))

    patch.setattr(workspace.Workspace, "refuses", refuses)


# Environment and commands


def case_matters(patch: Patch) -> None:
    names = protected.PROTECTED_NAMES
    patch.setattr(environment, "is_protected", names.__contains__)


def through_a_shell(patch: Patch) -> None:
    original = commands.Commands.run

    async def run(running: commands.Commands, args: Mapping[str, Any]) -> dict[str, Any]:
        line = " ".join([args["command"], *args["args"]])
        return await original(running, {**args, "command": "sh", "args": ["-c", line]})

    patch.setattr(commands.Commands, "run", run)


async def nothing(*args: Any) -> None:
    pass


def leader_only(patch: Patch) -> None:
    async def end(leader: int, token: str, *, has_exited: Callable[[], bool]) -> None:
        with suppress(ProcessLookupError):
            os.kill(leader, signal.SIGKILL)
        while not has_exited():  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    patch.setattr(commands, "end_processes", end)


def group_only(patch: Patch) -> None:
    async def end(leader: int, token: str, *, has_exited: Callable[[], bool]) -> None:
        with suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)
        while not has_exited():  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    patch.setattr(commands, "end_processes", end)


def everything_kept(patch: Patch) -> None:
    class Hoard(commands.Output):
        def __init__(self) -> None:
            super().__init__(1 << 40)

    def all_json(value: Mapping[str, Any]) -> str:
        return json.dumps(value, ensure_ascii=False)

    patch.setattr(commands, "Output", Hoard)
    patch.setattr(skill, "json_text", all_json)


# Endpoints


def judged_by(judge: Callable[[ipaddress.IPv4Address | ipaddress.IPv6Address], bool]) -> Callable[[Patch], None]:
    """Addresses are judged by `judge`; texts that are none as before."""

    def apply(patch: Patch) -> None:
        original = hosts.is_public_address

        def is_public(address: str | hosts.Address) -> bool:
            found = hosts.literal_address(address) if isinstance(address, str) else address
            return original(address) if found is None else judge(found)

        _for_all(patch, is_public)

    return apply


def _for_all(patch: Patch, is_public: Callable[[str | hosts.Address], bool]) -> None:
    for module in (hosts, checks, endpoints):
        patch.setattr(module, "is_public_address", is_public)


def names_judged_by(judge: Callable[[str], bool]) -> Callable[[Patch], None]:
    """Texts are judged by `judge`, addresses as before."""

    def apply(patch: Patch) -> None:
        original = hosts.is_public_address

        def is_public(address: str | hosts.Address) -> bool:
            return judge(address) if isinstance(address, str) else original(address)

        _for_all(patch, is_public)

    return apply


def _is_public_dotted(host: str) -> bool:
    """Knows the usual form of an address only, as a pattern would."""
    try:
        return hosts.is_public_address(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return not host.endswith((".internal", ".local", "localhost"))


def numbers_as_the_system_reads_them(patch: Patch) -> None:
    """The address of a host that is one to `inet_aton` alone is not judged any more."""

    async def addresses(policy: Any, host: str, port: int) -> Sequence[str]:
        return await policy.resolve(host, port)

    patch.setattr(endpoints.EndpointPolicy, "addresses", addresses)


def first_address_only(patch: Patch) -> None:
    async def addresses(policy: Any, host: str, port: int) -> Sequence[str]:
        found = await policy.resolve(host, port)
        if not hosts.is_public_address(found[0]):
            raise endpoints.EndpointError("private")
        return found[::-1]

    patch.setattr(endpoints.EndpointPolicy, "addresses", addresses)


def nothing_pinned(patch: Patch) -> None:
    """The name is checked, and then connected to as a name."""
    original = _NETWORK._first_that_answers

    async def connect_tcp(network: Any, host: str, port: int, timeout: Any = None, **more: Any) -> Any:
        await network._policy.addresses(host, port)
        return await original(network, [host], port, timeout, None)

    patch.setattr(_NETWORK, "connect_tcp", connect_tcp)


def checked_before_only(patch: Patch) -> None:
    """What the client is redirected to is not looked at."""
    patch.setattr(_TRANSPORT, "_check_redirect", always(None))
    patch.setattr(endpoints.EndpointPolicy, "check", always(None))


def domains_by_ending(host: str, patterns: Iterable[str]) -> bool:
    return any(host.endswith(pattern.removeprefix("*.")) for pattern in patterns)


def operators_hosts_as_targets(patch: Patch) -> None:
    def check(transport: Any, request: Any) -> None:
        target = (request.url.host, request.url.port or 443)
        first = request.extensions.setdefault("first", request.url)
        if first.host != request.url.host and target not in transport._policy.allowed:
            raise endpoints.EndpointError("another host")

    patch.setattr(_TRANSPORT, "_check_redirect", check)


def headers_kept(patch: Patch) -> None:
    original = _TRANSPORT.__init__

    def begin(transport: Any, policy: Any, domains: Any, own_headers: Any) -> None:
        original(transport, policy, domains, ())

    patch.setattr(_TRANSPORT, "__init__", begin)


def _commands() -> Iterator[Attack]:
    yield from metacharacter_attacks()
    yield from environment_attacks()
    yield from process_attacks()


def _endpoints() -> Iterator[Attack]:
    yield from url_attacks()
    yield from number_attacks()


def _network() -> Iterator[NetworkAttack]:
    return network_attacks()


VARIANTS = (
    Variant(
        "links in folders are followed by the kernel", links_left_to_the_kernel, path_attacks, ("a link to a folder",)
    ),
    Variant(
        "a link as the last component is followed by the kernel",
        last_component_left_to_the_kernel,
        path_attacks,
        ("readTextFile: the last component is a",),
    ),
    Variant(
        "`..` is followed by the kernel",
        parents_left_to_the_kernel,
        path_attacks,
        ("readTextFile: ..", "deep and back"),
    ),
    Variant("absolute paths are taken", absolute_paths_taken, path_attacks, ("Text: absolute", "File: absolute")),
    Variant("the beginning of a path is compared", checked_by_prefix, path_attacks, ("same prefix",)),
    Variant(
        "a path is checked, then opened", checked_by_prefix, stepped_races, ("readTextFile", "writeTextFile", "exec")
    ),
    Variant(
        "a file is checked, then opened", final_check_left_out, stepped_races, ("readTextFile: a file for a link",)
    ),
    Variant("a file that was opened is not looked at", any_kind_of_file, path_attacks, ("a hard link to an env file",)),
    Variant("pipes and sockets are files", any_kind_of_file, path_attacks, ("readTextFile: a pipe",)),
    Variant(
        "case and Unicode forms are not folded", replacing(workspace, "_folded", str), path_attacks, ("in capitals",)
    ),
    Variant(
        "Unicode forms are not folded",
        replacing(workspace, "_folded", str.lower),
        path_attacks,
        ("writeTextFile-new: the hidden folder in full width", "writeTextFile-new: the hidden folder with a long s"),
    ),
    Variant(
        "nothing is hidden", replacing(workspace, "HIDDEN_FOLDER", "nothing"), path_attacks, ("the hidden folder",)
    ),
    Variant(
        "the hidden folder is known by its name only",
        replacing(workspace.Workspace, "hidden_identity", always(None)),
        path_attacks,
        ("linked hidden folder",),
    ),
    Variant(
        "hard links are not looked up",
        replacing(workspace.Workspace, "_is_in_hidden_folder", always(False)),
        path_attacks,
        ("a hard link into the hidden folder",),
    ),
    Variant(
        "env files are known by their names only", env_files_by_name_only, path_attacks, ("a hard link to an env file",)
    ),
    Variant(
        "env files are known by their identities only",
        replacing(workspace.Workspace, "_is_protected_name", always(False)),
        path_attacks,
        ("an env file that is not there yet",),
    ),
    Variant(
        "the whole environment passes",
        replacing(environment, "_safe_part", dict),
        _commands,
        ("its environment", "skill"),
    ),
    Variant(
        "no variable is protected",
        replacing(environment, "is_protected", always(False)),
        _commands,
        ("LD_PRELOAD",),
    ),
    Variant("the case of a variable matters", case_matters, _commands, ("sets ld_", "sets Path", "sets Home")),
    Variant(
        "no prefix is protected",
        replacing(protected, "PROTECTED_PREFIXES", ()),
        _commands,
        ("LD_AUDIT", "GIT_CONFIG"),
    ),
    Variant("commands run in a shell", through_a_shell, _commands, ("the argument",)),
    Variant("only the program itself is ended", leader_only, _commands, ("children in the background",)),
    Variant(
        "only the program's group is ended", group_only, _commands, ("in a session of its own", "without its variables")
    ),
    Variant("demons outlive the session", replacing(commands, "end_strays", nothing), _commands, ("a demon",)),
    Variant("all output is kept", everything_kept, _commands, ("much output",)),
    Variant("every address is public", judged_by(lambda address: True), _endpoints, ("dotted",)),
    Variant(
        "an address is private if the standard library says so",
        judged_by(lambda address: not address.is_private),
        _endpoints,
        ("100.64.0.1, dotted", "168.63.129.16, dotted", "192.0.0.192, dotted"),
    ),
    Variant(
        "wrapped addresses are not unwrapped",
        judged_by(lambda address: address.version == 6 or address.is_global),
        _endpoints,
        ("mapped",),
    ),
    Variant(
        "NAT64 is not unwrapped",
        judged_by(lambda address: address.is_global and not address.is_multicast),
        _endpoints,
        ("NAT64", "6to4"),
    ),
    Variant(
        "addresses are known in their usual form only", names_judged_by(_is_public_dotted), _endpoints, ("decimal",)
    ),
    Variant(
        "no name is local", replacing(hosts, "_LOCAL_DOMAINS", ()), _endpoints, (".localhost", ".internal", ".svc")
    ),
    Variant("no name gives credentials", replacing(hosts, "_METADATA_NAMES", ()), _endpoints, ("metadata.goog'",)),
    Variant("punycode is taken", replacing(hosts, "is_lookalike", always(False)), _endpoints, ("xn--",)),
    Variant("what a name resolves to is not looked at", numbers_as_the_system_reads_them, _endpoints, ("address: ",)),
    Variant("what a name resolves to is not checked", numbers_as_the_system_reads_them, _network, ("a name of",)),
    Variant("only the first address is checked", first_address_only, _network, ("a public address and",)),
    Variant("a checked name is resolved again", nothing_pinned, _network, ("a public name that becomes",)),
    Variant("redirects are not checked", checked_before_only, _network, ("a redirect to HTTP",)),
    Variant(
        "a redirect may go to any public host",
        replacing(_TRANSPORT, "_check_redirect", always(None)),
        _network,
        ("a redirect to another host",),
    ),
    Variant(
        "domains are compared by their ends",
        replacing(endpoints, "matches_domain", domains_by_ending),
        _network,
        ("alike",),
    ),
    Variant(
        "the operator's hosts may be redirected to", operators_hosts_as_targets, _network, ("the operator's host",)
    ),
    Variant("headers go wherever we are sent", headers_kept, _network, ("keeps our headers",)),
)
