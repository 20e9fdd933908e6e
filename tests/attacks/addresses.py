"""Attacks on where a skill's endpoint may be: spellings of private hosts, names that change, redirects."""

import ipaddress
import socket
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from attacks.arena import Arena
from attacks.internet import OTHER_PUBLIC, PUBLIC, Answer, Internet, Seen, internet
from perstack.activities.skills import endpoints
from perstack.core.failures import DefinitionError, PerstackError
from perstack.definitions import load

PRIVATE = (
    "127.0.0.1",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "0.0.0.0",
    "192.0.0.192",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
)
"""One address of each kind that only a neighbour can have."""
NAMES = (
    *("localhost", "LOCALHOST", "localhost.", "a.localhost", "localhost.localdomain", "host.docker.internal"),
    *("metadata.google.internal", "metadata.goog", "metadata", "instance-data", "metadata.tencentyun.com"),
    *("kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "printer.local", "nas.home.arpa", "router.lan"),
    *(
        "intranet",
        "xn--lcalhost-54a.com",
        "xn--pple-43d.com",
        "аpple.com",
        "ｌｏｃａｌｈｏｓｔ",
        "ℓocalhost",
        "localhost。",
    ),
)
ADDRESSES = (
    *(
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[fe80::1]",
        "[fe80::1%25eth0]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[fec0::1]",
    ),
    *("[ff02::1]", "[2001:db8::1]", "[100::1]", "[64:ff9b:1::a00:1]", "[3fff::1]", "[5f00::1]", "[2606:4700::1%25lo]"),
)
URLS = (
    "http://example.com/",
    "http://93.184.215.14/",
    "ws://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "//example.com/",
    "example.com",
    "https:///etc/passwd",
    "https://user@example.com/",
    "https://user:password@example.com/",
    "https://example.com@127.0.0.1/",
    "https://example.com:443@127.0.0.1/",
    "https://127.0.0.1\\@example.com/",
    "https://127.0.0.1#@example.com/",
    "https://127.0.0.1?@example.com/",
    "https://127.0.0.1%2f@example.com/",
    "https://exa mple.com/",
    "https://example.com\n.evil.com/",
    "https://[::1/",
    "https://[::1].example.com/",
    "https://example.com:0x50/",
    "https://.example.com/",
    "https://%31%32%37.0.0.1/",
)
_SERVED = ("a.example.com", "b.example.com", "evil-example.com", "intern.example.com")


def spellings(address: str) -> Iterator[tuple[str, str]]:
    """Ways in which some reader takes a text for `address`, with a name for each."""
    v4 = ipaddress.IPv4Address(address)
    number, parts = int(v4), list(v4.packed)
    low = number & 0xFFFFFF
    yield "dotted", address
    yield "with a dot", f"{address}."
    yield "decimal", str(number)
    yield "hexadecimal", hex(number)
    yield "octal", f"0{number:o}"
    yield "octal parts", ".".join(f"0{part:o}" for part in parts)
    yield "long octal parts", ".".join(f"{part:011o}" for part in parts)
    yield "hexadecimal parts", ".".join(hex(part) for part in parts)
    yield "mixed parts", f"{hex(parts[0])}.{parts[1]}.0{parts[2]:o}.{parts[3]}"
    yield "two parts", f"{parts[0]}.{low}"
    yield "three parts", f"{parts[0]}.{parts[1]}.{low & 0xFFFF}"
    yield "full width", "".join(chr(ord(c) + 0xFEE0) for c in address)
    yield "circled", "".join(chr(0x2460 + int(c) - 1) if c in "123456789" else c for c in address)
    yield "mathematical", "".join(chr(0x1D7D8 + int(c)) if c.isdigit() else c for c in address)
    yield "ideographic dots", address.replace(".", "。")
    yield "mapped", f"[::ffff:{address}]"
    yield "mapped, in words", f"[::ffff:{number >> 16:x}:{number & 0xFFFF:x}]"
    yield "mapped, in full", f"[0000:0000:0000:0000:0000:FFFF:{number >> 16:04X}:{number & 0xFFFF:04X}]"
    yield "translated", f"[::ffff:0:{address}]"
    yield "compatible", f"[::{address}]"
    yield "NAT64", f"[64:ff9b::{address}]"
    yield "6to4", f"[{ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1)}]"
    yield "Teredo", f"[{ipaddress.IPv6Address((0x20010000 << 96) | (0xFFFFFFFF ^ number))}]"


@dataclass(frozen=True)
class UrlAttack:
    """An endpoint that must be refused by its URL alone, wherever somebody asks."""

    url: str
    name: str = ""

    def __str__(self) -> str:
        return f"endpoint: {self.name or repr(self.url)}"

    async def run(self, arena: Arena | None = None) -> list[str]:
        """Who lets it pass."""
        found: list[str] = []
        policy = endpoints.EndpointPolicy.from_env({})
        try:
            policy.check(self.url)
        except PerstackError:
            pass
        else:
            found.append("the connection takes it")
        skill = f'type = "mcpSseSkill"\nendpoint = {toml_text(self.url)}'
        try:
            load.load_text(f'[experts.x]\ninstruction = "x"\n[experts.x.skills.s]\n{skill}\n', source="x")
        except DefinitionError:
            pass
        else:
            found.append("the definition takes it")
        return found


@dataclass(frozen=True)
class NumberAttack:
    """A host that the system's resolver reads as an address by itself: the last check has to see that."""

    host: str
    name: str

    def __str__(self) -> str:
        return f"address: {self.name}"

    async def run(self, arena: Arena | None = None) -> list[str]:
        """Whether the connection would be made."""

        async def numeric(host: str, port: int) -> Sequence[str]:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
            return [str(address[0]) for *_, address in found]

        try:
            reached = await endpoints.EndpointPolicy(resolve=numeric).addresses(self.host.strip("[]"), 443)
        except (PerstackError, OSError, UnicodeError):
            return []
        return [f"connects to {reached}"]


@dataclass(frozen=True)
class NetworkAttack:
    """A public endpoint that leads elsewhere once it is asked; nothing but what it should be is connected to."""

    name: str
    names: dict[str, list[Sequence[str]]] = field(default_factory=dict[str, list[Sequence[str]]])
    """What the resolver says, one answer after another."""
    redirect: str = ""
    domains: tuple[str, ...] = ()
    allowed: frozenset[tuple[str, int]] = frozenset()

    def __str__(self) -> str:
        return f"network: {self.name}"

    async def run(self, arena: Arena) -> list[str]:
        """Whom it reached that it must not, and what it told there."""
        with tempfile.TemporaryDirectory(dir=arena.base) as folder, pytest.MonkeyPatch.context() as patch:
            async with internet(self._answer, _SERVED, Path(folder), patch) as world:
                return await self._visit(world)

    async def _visit(self, world: Internet) -> list[str]:
        world.names = {"a.example.com": [[PUBLIC]], **self.names}
        headers = {"authorization": "Bearer secret", "x-api-key": "secret"}
        policy = world.policy(allowed=self.allowed)
        async with policy.http_client(self.domains, headers=headers) as client:
            for _ in range(2):
                try:
                    await client.get("https://a.example.com/")
                except (PerstackError, httpx2.HTTPError, httpx2.InvalidURL):
                    continue
        found = [f"connected to {address}" for address in world.connected if address not in (PUBLIC, OTHER_PUBLIC)]
        found += [f"connected to port {port}" for port in world.ports - {443}]
        others = [seen for seen in world.seen if not seen.headers["host"].startswith("a.example.com")]
        found += [f"asked {seen.headers['host']}" for seen in others if "b.example.com" not in self.domains]
        return found + ["told our headers" for seen in others if {"authorization", "x-api-key"} & set(seen.headers)]

    def _answer(self, seen: Seen) -> Answer:
        if self.redirect and seen.headers["host"].startswith("a.example.com"):
            return Answer(307, {"location": self.redirect})
        return Answer()


def url_attacks() -> Iterator[UrlAttack]:
    """Every spelling of every private host, and every URL that is none."""
    for address in PRIVATE:
        for name, host in spellings(address):
            yield UrlAttack(f"https://{host}/mcp", f"{address}, {name}")
    for host in (*NAMES, *ADDRESSES):
        yield UrlAttack(f"https://{host}/mcp", ascii(host))
        yield UrlAttack(f"https://{host}:8443/mcp", f"{host!a} with a port")
    for url in URLS:
        yield UrlAttack(url)


def number_attacks() -> Iterator[NumberAttack]:
    """Every spelling of every private address, past the check of the URL."""
    for address in PRIVATE:
        for name, host in spellings(address):
            yield NumberAttack(host, f"{address}, {name}")
    for host in ADDRESSES:
        yield NumberAttack(host, host)


def network_attacks() -> Iterator[NetworkAttack]:
    """Names that change, answers with a private address in them, and redirects."""
    for address in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1"):
        yield NetworkAttack(f"a name of {address}", {"a.example.com": [[address]]})
        yield NetworkAttack(f"a public name that becomes {address}", {"a.example.com": [[PUBLIC], [address]]})
        yield NetworkAttack(f"a public address and {address}", {"a.example.com": [[PUBLIC, address]]})
        yield NetworkAttack(f"{address} and a public address", {"a.example.com": [[address, PUBLIC]]})
        host = f"[{address}]" if ":" in address else address
        yield NetworkAttack(f"a redirect to {address}", redirect=f"https://{host}/")
        yield NetworkAttack(
            f"a redirect to a name of {address}",
            {"b.example.com": [[address]]},
            "https://b.example.com/",
            ("*.example.com",),
        )
    for host in ("2130706433", "0x7f000001", "127.1", "localhost", "[::]", "0"):
        yield NetworkAttack(f"a redirect to {host}", {host: [["127.0.0.1"]]}, f"https://{host}/")
    public: dict[str, list[Sequence[str]]] = {"b.example.com": [[OTHER_PUBLIC]], "evil-example.com": [[OTHER_PUBLIC]]}
    operators = frozenset({("intern.example.com", 443), ("127.0.0.1", 80)})
    private: dict[str, list[Sequence[str]]] = {"intern.example.com": [["10.0.0.1"]]}
    yield NetworkAttack("a redirect to another host", public, "https://b.example.com/")
    yield NetworkAttack("a redirect to a host of other domains", public, "https://b.example.com/", ("a.example.com",))
    yield NetworkAttack("a redirect to a host that ends alike", public, "https://evil-example.com/", ("*.example.com",))
    yield NetworkAttack("a redirect to HTTP", public, "http://a.example.com/")
    yield NetworkAttack("a redirect to HTTP elsewhere", public, "http://b.example.com/", ("*.example.com",))
    yield NetworkAttack("a redirect with a user", public, "https://user:pass@b.example.com/")
    yield NetworkAttack(
        "a redirect that keeps our headers", public, "https://b.example.com/", ("a.example.com", "b.example.com")
    )
    yield NetworkAttack("a redirect to the operator's host", private, "https://intern.example.com/", (), operators)
    yield NetworkAttack("a redirect to the operator's address", {}, "http://127.0.0.1:80/", (), operators)


def toml_text(text: str) -> str:
    """`text` as a TOML string."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'
