"""Which hosts a definition may name: public endpoints and domain patterns."""

import ipaddress
import re
import socket

_LOCAL_NAMES = ("localhost", "internal", "local", "localdomain", "home.arpa")
_LABEL = r"[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_private_host(host: str) -> bool:
    """Whether a literal host is this machine, a private network or otherwise not public.

    Names are judged by their spelling alone; what they resolve to is checked when connecting.
    """
    name = host.strip().strip("[]").rstrip(".").lower()
    address = literal_address(name)
    if address is None:
        return not name or any(name == local or name.endswith(f".{local}") for local in _LOCAL_NAMES)
    return not is_public_address(address)


def literal_address(name: str) -> Address | None:
    """The address a host spells out, also in the decimal, octal and hexadecimal forms clients accept."""
    try:
        return ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(name)) if re.fullmatch(r"[0-9a-fx.]+", name) else None
    except OSError:
        return None


def is_public_address(address: Address) -> bool:
    """Whether an address belongs to the public internet, whatever notation wraps it."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is not None:
            return is_public_address(inner)
        # IPv4-compatible (::/96) and NAT64 (64:ff9b::/96) addresses reach the IPv4 address in their last bits.
        if int(address) >> 32 in (0, 0x64FF9B << 64):
            return is_public_address(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address.is_global and not address.is_multicast


def domain_problem(pattern: str) -> str | None:
    """What is wrong with one entry of `allowedDomains`, or `None`."""
    if any(label.lower().startswith("xn--") for label in pattern.split(".")):
        return f"{pattern!r} is a punycode domain, refused to protect against look-alike (homograph) names"
    if not _DOMAIN.fullmatch(pattern):
        return f"{pattern!r} is not a domain: give a host name, or `*.` and a host name; no scheme, port or path"
    return None
