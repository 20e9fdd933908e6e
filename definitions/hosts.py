"""Which hosts a definition may name and a worker may connect to: public endpoints, and domain patterns."""

import ipaddress
import re
import unicodedata
from collections.abc import Iterable, Mapping

from ..core.failures import UsageError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
AllowedEndpoints = frozenset[tuple[str, int]]
"""Hosts, as `plain_host` has them, and ports that may be private and speak plain HTTP."""

ALLOW_VARIABLE = "PERSTACK_ALLOW_ENDPOINTS"
"""Names the endpoints beyond the public ones, `host:port,…`; read from the process environment only."""
MAX_HOST = 253
_ENTRY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})")
_LABEL = r"[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.(?!-)[a-z0-9_-]{1,63})+")
# A host with such an end is an IPv4 address to the URL standard and to every resolver, whatever stands before.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# The ideographic full stops separate labels (RFC 3490 §3.1), and normalisation leaves two of them alone.
_DOTS = str.maketrans({"\u3002": ".", "\uff0e": ".", "\uff61": "."})

# RFC 6761, RFC 6762, RFC 8375, ICANN's private-use domain, and what home routers and cluster resolvers answer for.
_LOCAL_DOMAINS = ("localhost", "localdomain", "local", "internal", "home.arpa", "lan", "intranet", "svc", "onion")
# Where clouds answer for credentials under a name outside of those domains.
_METADATA_NAMES = frozenset(
    {"metadata.goog", "metadata.tencentyun.com", "metadata.packet.net", "metadata.platformequinix.com"}
)
# The IANA special-purpose registries, as far as the `ipaddress` of Python 3.11 lets them pass.
_SPECIAL_IPV4 = (
    ipaddress.IPv4Network("192.0.0.0/24"),
    ipaddress.IPv4Network("192.88.99.0/24"),
    # Azure's wire server: a public address on paper, the machine's own controller behind it.
    ipaddress.IPv4Network("168.63.129.16/32"),
)
_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL_IPV6 = (
    # Teredo and other protocol assignments; 6to4: both wrap an IPv4 address, and nobody serves from them.
    ipaddress.IPv6Network("2001::/23"),
    ipaddress.IPv6Network("2002::/16"),
    ipaddress.IPv6Network("2001:db8::/32"),
    ipaddress.IPv6Network("3fff::/20"),
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public_address(address: str | Address) -> bool:
    """Whether an address, or a host as it stands in a URL, belongs to the public internet.

    A name is judged by its spelling alone; what it resolves to is asked again when connecting. Whatever two readers
    could read in two ways is not public: an IPv4 address in any but the dotted decimal form, an IPv6 address with a
    zone, letters beyond ASCII, punycode.
    """
    if isinstance(address, str):
        return _is_public_host(address)
    if isinstance(address, ipaddress.IPv4Address):
        is_special = any(address in network for network in _SPECIAL_IPV4)
        return address.is_global and not address.is_multicast and not address.is_reserved and not is_special
    if address.scope_id is not None:
        return False
    if address in _NAT64:
        # What a resolver makes of an IPv4 address in a network that has IPv6 alone (RFC 6147).
        return is_public_address(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    # Mapped, compatible, local and multicast addresses are all outside of the one block for the internet.
    return address in _GLOBAL_IPV6 and address.is_global and not any(address in network for network in _SPECIAL_IPV6)


def plain_host(host: str) -> str:
    """`host` in the one form that is compared: compatibility forms, case, brackets and the root's dot are gone."""
    name = unicodedata.normalize("NFKC", host.translate(_DOTS)).lower()
    if name.startswith("[") and name.endswith("]"):
        return name[1:-1]
    return name.removesuffix(".")


def literal_address(host: str) -> Address | None:
    """The address that a host spells out in its standard form, or `None`."""
    try:
        return ipaddress.ip_address(plain_host(host))
    except ValueError:
        return None


def is_lookalike(host: str) -> bool:
    """Whether a host has letters that can pass for others: beyond ASCII, or as punycode."""
    return not host.isascii() or any(label.startswith("xn--") for label in plain_host(host).split("."))


def matches_domain(host: str, patterns: Iterable[str]) -> bool:
    """Whether `host` is one of `patterns`, or below the domain of one that starts with `*.`."""
    name = plain_host(host)
    for pattern in patterns:
        domain = plain_host(pattern)
        if name == domain or (domain.startswith("*.") and name.endswith(domain[1:])):
            return True
    return False


def domain_problem(pattern: str) -> str | None:
    """What is wrong with one entry of `allowedDomains`, or `None`."""
    if any(label.lower().startswith("xn--") for label in pattern.split(".")):
        return f"{pattern!r} is a punycode domain, refused to protect against look-alike (homograph) names"
    if not _DOMAIN.fullmatch(pattern):
        return f"{pattern!r} is not a domain: give a host name, or `*.` and a host name; no scheme, port or path"
    return None


def allowed_endpoints(env: Mapping[str, str]) -> AllowedEndpoints:
    """The endpoints that the operator of a worker allows beyond the public ones, of the process environment `env`.

    Raises:
        UsageError: an entry of `PERSTACK_ALLOW_ENDPOINTS` is no host and port.
    """
    entries = (entry.strip() for entry in env.get(ALLOW_VARIABLE, "").split(","))
    return frozenset(_endpoint(entry) for entry in entries if entry)


def _endpoint(entry: str) -> tuple[str, int]:
    match = _ENTRY.fullmatch(entry)
    host, port = (plain_host(match[1]), int(match[2])) if match else ("", 0)
    is_number = literal_address(host) is None and (":" in host or _NUMBER.fullmatch(host.rpartition(".")[2]))
    if not host or not 0 < port < 65536 or is_number or is_lookalike(host):
        raise UsageError(
            f"{entry!r} in {ALLOW_VARIABLE} is not a host and a port.",
            code="usage.endpoints",
            hint="Write each as `host:port`, for example `localhost:8080` or `[::1]:8080`, with commas between them.",
        )
    return host, port


def _is_public_host(host: str) -> bool:
    name = plain_host(host)
    try:
        return host.isascii() and is_public_address(ipaddress.ip_address(name))
    except ValueError:
        pass
    # A name without a dot is completed by the resolver's search list: it is a host of some local network.
    if len(name) > MAX_HOST or not _HOST.fullmatch(name) or is_lookalike(host):
        return False
    if _NUMBER.fullmatch(name.rpartition(".")[2]) or name in _METADATA_NAMES:
        return False
    return not any(name.endswith(f".{domain}") for domain in _LOCAL_DOMAINS)
