"""Which endpoints a skill may reach, at whatever place somebody tries to lead it elsewhere."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path

import httpx2
import pytest
from attacks.internet import OTHER_PUBLIC, PUBLIC, Answer, Internet, Script, Seen, internet
from hypothesis import given
from hypothesis import strategies as st
from perstack.activities.skills import endpoints
from perstack.activities.skills.endpoints import EndpointError, EndpointPolicy
from perstack.core.failures import DefinitionError, UsageError
from perstack.definitions.hosts import allowed_endpoints, is_lookalike, is_public_address, matches_domain
from perstack.definitions.load import load_text

NAMES = ("a.example.com", "b.example.com", "other.example.org")
EMPTY = EndpointPolicy()


def redirecting(seen: Seen) -> Answer:
    """`/to/<status>/<url>` redirects there; everything else says what it is."""
    if seen.path.startswith("/to/"):
        _, _, status, target = seen.path.split("/", 3)
        return Answer(int(status), {"location": target})
    return Answer(body=f"{seen.headers['host']}{seen.path}".encode())


def scripted(answer: Answer) -> Script:
    """The same for everybody."""
    return lambda _: answer


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Internet]:
    async with internet(redirecting, NAMES, tmp_path, monkeypatch) as world:
        world.names = {name: [[PUBLIC]] for name in NAMES}
        yield world


def specialities(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[str]:
    """What the standard library sees in an address that nobody on the internet has."""
    names = ("is_private", "is_loopback", "is_link_local", "is_multicast", "is_unspecified")
    # All of ::/8 is reserved to the library, also what resolvers make for networks that have IPv6 alone.
    is_reserved = address.is_reserved and not str(address).startswith("64:ff9b::")
    return [name for name in names if getattr(address, name)] + ["is_reserved"] * is_reserved


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_public_only_if_the_standard_library_sees_nothing_special_in_it(
    address: ipaddress.IPv4Address,
) -> None:
    if is_public_address(address):
        assert address.is_global
        assert not specialities(address)
    assert is_public_address(str(address)) == is_public_address(address)


@given(st.ip_addresses(v=6) | st.integers(0x20 << 120, (0x40 << 120) - 1).map(ipaddress.IPv6Address))
def test_an_ipv6_address_is_public_only_if_the_standard_library_sees_nothing_special_in_it(
    address: ipaddress.IPv6Address,
) -> None:
    if is_public_address(address):
        assert address.is_global
        assert not specialities(address)
        assert not any((address.ipv4_mapped, address.sixtofour, address.teredo, address.is_site_local))
    for text in (str(address), address.exploded, f"[{address}]", str(address).upper()):
        assert is_public_address(text) == is_public_address(address)


SPECIAL_BLOCKS = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32", "::/128", "::1/128", "::/96", "::ffff:0:0/96",
    "64:ff9b:1::/48", "100::/64", "2001::/32", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16",
    "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
]  # fmt: skip


@given(st.sampled_from(SPECIAL_BLOCKS).map(ipaddress.ip_network).flatmap(lambda net: st.ip_addresses(network=net)))
def test_no_address_of_a_special_block_is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert not is_public_address(address)
    assert not is_public_address(str(address))


def wrapped(address: ipaddress.IPv4Address) -> list[str]:
    """The forms in which an IPv6 address carries an IPv4 address."""
    number = int(address)
    integers = ((0x2002 << 112) | (number << 80), (0x20010000 << 96) | (0xFFFFFFFF ^ number))
    return [
        *(f"{prefix}{address}" for prefix in ("::", "::ffff:", "::ffff:0:", "64:ff9b::", "64:ff9b:1::")),
        *(str(ipaddress.IPv6Address(integer)) for integer in integers),
    ]


@given(st.sampled_from(SPECIAL_BLOCKS[:15]).map(ipaddress.IPv4Network).flatmap(lambda n: st.ip_addresses(network=n)))
def test_no_wrapping_makes_a_private_address_public(address: ipaddress.IPv4Address) -> None:
    assert [text for text in wrapped(address) if is_public_address(text)] == []


@given(
    st.ip_addresses(v=4),
    st.sampled_from(["{0}", "{0:#x}", "0{0:o}", "{1:#x}.{2}", "{1}.{2:#x}", "0{1:o}.{2}", "{3:#x}.{4}.{5}", "{6}"]),
)
def test_an_ipv4_address_in_an_unusual_spelling_is_never_public(address: ipaddress.IPv4Address, form: str) -> None:
    number = int(address)
    octets = ".".join(f"0{part:o}" for part in address.packed)
    text = form.format(
        number, number >> 24, number & 0xFFFFFF, number >> 24, (number >> 16) & 0xFF, number & 0xFFFF, octets
    )
    assert not is_public_address(text)
    assert not is_public_address(f"{text}.")


@given(st.ip_addresses(v=4).filter(lambda address: not is_public_address(address)), st.integers(0, 2), st.data())
def test_unicode_digits_and_dots_are_normalised_before_the_check(
    address: ipaddress.IPv4Address, dot: int, data: st.DataObject
) -> None:
    zero = data.draw(st.sampled_from([0xFF10, 0x1D7CE, 0x1D7D8, 0x1D7F6]))
    text = "".join(chr(zero + int(c)) if c.isdigit() else "。．｡"[dot] for c in str(address))
    assert not is_public_address(text)


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LocalHost", "localhost.", "a.localhost", "ｌｏｃａｌｈｏｓｔ", "localhost。",
        "db.internal", "DB.INTERNAL.",
        "printer.local", "x.localdomain", "nas.home.arpa", "router.lan", "api.default.svc", "metadata",
        "metadata.google.internal", "metadata.goog", "METADATA.GOOG.", "metadata.tencentyun.com", "instance-data",
        "instance-data.ec2.internal", "kubernetes", "kubernetes.default.svc.cluster.local", "abcdefgh.onion",
        "169.254.169.254", "[fd00:ec2::254]", "100.100.100.200", "192.0.0.192", "168.63.129.16",
        "fe80::1%eth0", "[fe80::1%25eth0]", "[2606:4700::1111%eth0]", "[::1]", "[::]", "[::ffff:7f00:1]",
        "", ".", "..", "example..com", ".example.com", "exam ple.com", "example.com:443", "user@example.com",
        "example.com/x", "%6c%6f%63%61%6c%68%6f%73%74", "127.0.0.1%00.example.com", "1.2.3.4.5", "256.1.1.1",
        "999999999999", "1.1", "0x", "foo.0x7f", "a.1", "08.8.8.8", "xn--pple-43d.com", "www.XN--pple-43d.com",
        "аpple.com", "ex\u200bample.com", "a" * 64 + ".com", "a." * 127 + "com", "-a.example.com", "*.example.com",
        "example.com\n", "127.0.0.1 .example", "127.0.0.1\t",
    ],
)  # fmt: skip
def test_a_host_that_is_local_malformed_or_can_pass_for_another_is_not_public(host: str) -> None:
    assert not is_public_address(host)


@pytest.mark.parametrize(
    "host",
    ["example.com", "EXAMPLE.com.", "8.8.8.8", "[2606:4700::1111]", "2606:4700::1111", "64:ff9b::8.8.8.8", "fd.io",
     "127.example.com", "localhost.example.com", "internal.example.com", "my_host.example.com", "10.0.0.1.nip.io",
     "deadbeef.example.x0", "100.128.0.1", "172.32.0.1"],
)  # fmt: skip
def test_a_public_host_is_public(host: str) -> None:
    assert is_public_address(host)


@pytest.mark.parametrize("host", ["xn--pple-43d.com", "a.xn--p1ai", "аpple.com", "１２７.0.0.1", "example。com"])
def test_punycode_and_letters_beyond_ascii_can_pass_for_others(host: str) -> None:
    assert is_lookalike(host)
    assert not is_lookalike("example.com")


@pytest.mark.parametrize(
    ("host", "pattern", "is_match"),
    [
        ("example.com", "example.com", True), ("EXAMPLE.com.", "example.COM", True),
        ("a.example.com", "*.example.com", True),
        ("a.b.example.com", "*.example.com", True), ("example.com", "*.example.com", False),
        ("evil-example.com", "*.example.com", False), ("evilexample.com", "example.com", False),
        ("example.com.evil.org", "example.com", False), ("a.example.com", "example.com", False),
        ("example.com", "example.co", False),
    ],
)  # fmt: skip
def test_a_domain_pattern_matches_a_host_or_what_is_below_its_wildcard(host: str, pattern: str, is_match: bool) -> None:
    assert matches_domain(host, [pattern]) is is_match
    assert matches_domain(host, ["unrelated.net", pattern]) is is_match


def test_the_operator_allows_endpoints_by_host_and_port() -> None:
    policy = EndpointPolicy.from_env({"PERSTACK_ALLOW_ENDPOINTS": " LocalHost:8080, 127.0.0.1:9000 ,[::1]:9001,"})
    assert policy.describe() == ("127.0.0.1:9000", "[::1]:9001", "localhost:8080")
    for url in (
        "http://localhost:8080/mcp",
        "https://127.0.0.1:9000",
        "http://[::1]:9001/sse",
        "http://LOCALHOST.:8080",
    ):
        policy.check(url)
    for url in ("http://localhost:8081", "http://127.0.0.1:8080", "https://localhost", "http://user@localhost:8080"):
        with pytest.raises(EndpointError):
            policy.check(url)


@pytest.mark.parametrize(
    ("url", "is_fine"),
    [
        ("http://localhost:8080/mcp", True),
        ("https://LOCALHOST.:8080/mcp", True),
        ("https://10.0.0.1/mcp", True),
        ("http://10.0.0.1/mcp", False),
        ("http://localhost/mcp", False),
        ("http://user@localhost:8080/mcp", False),
        ("ftp://localhost:8080/mcp", False),
        ("https://10.0.0.2/mcp", False),
    ],
)
def test_an_allowed_endpoint_may_stand_in_a_definition(url: str, is_fine: bool) -> None:
    allowed = allowed_endpoints({"PERSTACK_ALLOW_ENDPOINTS": "localhost:8080,10.0.0.1:443"})
    skill = f"[experts.x]\ninstruction = 'x'\n[experts.x.skills.s]\ntype = 'mcpSseSkill'\nendpoint = '{url}'\n"
    with pytest.raises(DefinitionError):
        load_text(skill, source="x")
    with nullcontext() if is_fine else pytest.raises(DefinitionError):
        load_text(skill, source="x", allowed=allowed)
    with nullcontext() if is_fine else pytest.raises(EndpointError):
        EndpointPolicy(allowed=allowed).check(url)


def test_without_the_setting_nothing_is_allowed_beyond_public_endpoints() -> None:
    assert EndpointPolicy.from_env({"PATH": "/bin"}).describe() == ()


@pytest.mark.parametrize(
    "entry",
    ["localhost", "localhost:", ":80", "localhost:0", "localhost:65536", "http://localhost:80", "*:80", "*.x.com:80",
     "::1:80", "[::1]", "a b:80", "user@host:80", "host:80/x", "127.1:80", "0x7f000001:80", "xn--a.com:80", "[x]:80"],
)  # fmt: skip
def test_an_entry_that_is_no_host_and_port_is_refused_by_name(entry: str) -> None:
    with pytest.raises(UsageError) as caught:
        EndpointPolicy.from_env({"PERSTACK_ALLOW_ENDPOINTS": f"ok.example:1,{entry}"})
    assert repr(entry) in caught.value.message
    assert caught.value.code == "usage.endpoints"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://example.com/mcp", "does not use HTTPS"),
        ("ftp://example.com/mcp", "not an https URL"),
        ("file:///etc/passwd", "not an https URL"),
        ("example.com", "not an https URL"),
        ("", "not an https URL"),
        ("https://", "not an https URL"),
        ("https://[::1", "not a URL"),
        ("https://me:hunter22@example.com", "user name or password"),
        ("https://example.com@10.0.0.1/", "user name or password"),
        ("https://10.0.0.1/", "private or local"),
        ("https://2130706433/", "private or local"),
        ("https://[::ffff:169.254.169.254]/", "private or local"),
        ("https://localhost:8443/", "private or local"),
        ("https://xn--pple-43d.com/", "punycode"),
        ("https://аpple.com/", "punycode"),
    ],
)
def test_an_endpoint_is_refused_by_its_url(url: str, message: str) -> None:
    with pytest.raises(EndpointError, match=message) as caught:
        EMPTY.check(url)
    assert caught.value.code == "skill.endpoint"
    assert "hunter22" not in caught.value.message


def test_a_refusal_of_a_private_endpoint_names_the_setting_that_allows_it() -> None:
    with pytest.raises(EndpointError) as caught:
        EMPTY.check("http://localhost:8080/mcp")
    assert caught.value.hint == "If it is meant, the operator of the worker allows it with " + (
        "PERSTACK_ALLOW_ENDPOINTS=localhost:8080."
    )


def test_a_skill_with_allowed_domains_reaches_no_other_host() -> None:
    EMPTY.check("https://a.example.com/", ["*.example.com"])
    with pytest.raises(EndpointError, match="allowedDomains"):
        EMPTY.check("https://example.org/", ["*.example.com"])
    policy = EndpointPolicy.from_env({"PERSTACK_ALLOW_ENDPOINTS": "localhost:80"})
    with pytest.raises(EndpointError, match="allowedDomains"):
        policy.check("http://localhost:80/", ["*.example.com"])


async def test_a_name_is_resolved_once_for_a_connection_and_stays_the_name_in_tls_and_host(world: Internet) -> None:
    async with world.policy().http_client(headers={"x-mine": "1"}) as client:
        for path in ("/1", "/2"):
            assert (await client.get(f"https://a.example.com{path}")).text == f"a.example.com{path}"
    assert world.asked == ["a.example.com"]
    assert world.connected == [PUBLIC]
    assert [(seen.name, seen.headers["x-mine"]) for seen in world.seen] == [("a.example.com", "1")] * 2


async def test_a_certificate_for_another_name_is_refused(world: Internet) -> None:
    world.names["unknown.example.net"] = [[PUBLIC]]
    async with world.policy().http_client() as client:
        with pytest.raises(httpx2.ConnectError, match=r"(?i)certificate"):
            await client.get("https://unknown.example.net/")
    assert not world.seen


async def test_an_authority_nobody_trusts_is_refused(world: Internet) -> None:
    async with EndpointPolicy(resolve=world.resolve).http_client() as client:
        with pytest.raises(httpx2.ConnectError, match=r"(?i)certificate"):
            await client.get("https://a.example.com/")
    assert not world.seen


@pytest.mark.parametrize(
    "answer",
    [["127.0.0.1"], [PUBLIC, "10.0.0.1"], ["::1", OTHER_PUBLIC], ["fe80::1%eth0"], ["::ffff:10.0.0.1"], ["0x7f.1"],
     ["a.example.com"]],
)  # fmt: skip
async def test_a_name_with_one_address_that_is_not_public_is_not_connected_to(
    world: Internet, answer: list[str]
) -> None:
    world.names["a.example.com"] = [answer]
    async with world.policy().http_client() as client:
        with pytest.raises(EndpointError, match="not a public address"):
            await client.get("https://a.example.com/")
    assert not world.connected


async def test_a_name_that_is_bound_anew_after_the_check_is_not_asked_again(world: Internet) -> None:
    world.names["a.example.com"] = [[PUBLIC], ["127.0.0.1"]]
    async with world.policy().http_client() as client:
        assert (await client.get("https://a.example.com/first")).is_success
        assert world.connected == [PUBLIC]
    async with world.policy().http_client() as client:
        with pytest.raises(EndpointError, match=r"resolves to 127\.0\.0\.1"):
            await client.get("https://a.example.com/second")
    assert world.connected == [PUBLIC]


async def test_the_next_address_is_tried_where_the_first_does_not_answer(
    world: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    route = world.route

    async def broken(address: str, port: int, **more: object) -> object:
        if address == OTHER_PUBLIC:
            raise endpoints.httpcore2.ConnectError("no route")
        return await route(address, port, **more)

    monkeypatch.setattr(world, "route", broken)
    world.names["a.example.com"] = [[OTHER_PUBLIC, PUBLIC]]
    async with world.policy().http_client() as client:
        assert (await client.get("https://a.example.com/")).is_success
    assert world.connected == [PUBLIC]


async def test_a_name_that_nobody_knows_is_a_connection_error(world: Internet) -> None:
    async with world.policy().http_client() as client:
        with pytest.raises(httpx2.ConnectError, match=r"nowhere\.example\.net cannot be resolved"):
            await client.get("https://nowhere.example.net/")


async def test_a_resolver_that_never_answers_is_given_up(world: Internet) -> None:
    async def silent(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    async with EndpointPolicy(resolve=silent).http_client() as client:
        with pytest.raises(httpx2.ConnectTimeout, match=r"a\.example\.com did not answer"):
            await client.get("https://a.example.com/", timeout=0.05)


async def test_an_allowed_endpoint_may_be_private_and_speak_plain_http() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/"
        policy = EndpointPolicy.from_env({"PERSTACK_ALLOW_ENDPOINTS": f"127.0.0.1:{port}"})
        async with policy.http_client() as client:
            assert (await client.get(url)).text == "hi"
        async with EMPTY.http_client() as client:
            with pytest.raises(EndpointError, match="HTTPS"):
                await client.get(url)


async def test_proxies_of_the_environment_are_not_used(world: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with world.policy().http_client() as client:
        assert (await client.get("https://a.example.com/")).is_success
    assert world.connected == [PUBLIC]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_within_the_host_is_followed(world: Internet, status: int) -> None:
    async with world.policy().http_client(headers={"x-mine": "1"}) as client:
        response = await client.post(f"https://a.example.com/to/{status}//there", content=b"x")
    assert response.text == "a.example.com/there"
    assert world.seen[-1].headers["x-mine"] == "1"


async def test_a_redirect_to_a_host_of_the_allowed_domains_is_followed_without_our_headers(world: Internet) -> None:
    headers = {"authorization": "Bearer x", "x-mine": "1"}
    async with world.policy().http_client(["*.example.com"], headers=headers) as client:
        response = await client.get("https://a.example.com/to/307/https://b.example.com/there")
    assert response.text == "b.example.com/there"
    assert [seen.name for seen in world.seen] == ["a.example.com", "b.example.com"]
    assert "x-mine" in world.seen[0].headers
    assert not {"x-mine", "authorization"} & set(world.seen[1].headers)


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize(
    ("target", "domains"),
    [
        ("https://other.example.org/", []),
        ("https://other.example.org/", ["*.example.com"]),
        ("http://a.example.com/", []),
        ("http://b.example.com/", ["*.example.com"]),
        ("https://127.0.0.1/", []),
        ("https://127.0.0.1/", ["*.example.com", "127.0.0.1"]),
        ("https://[::1]/", []),
        ("https://2130706433/", []),
        ("https://localhost/", ["*.example.com", "localhost"]),
        ("https://user:pass@a.example.com/", []),
        ("https://allowed.internal/", []),
        ("http://allowed.internal:80/", []),
        ("//169.254.169.254/latest/meta-data", []),
        ("ftp://a.example.com/", []),
    ],
)
async def test_a_redirect_that_leaves_the_rules_is_not_followed(
    world: Internet, target: str, domains: list[str], by_hand: bool
) -> None:
    allowed = frozenset({("allowed.internal", 443), ("allowed.internal", 80)})
    async with world.policy(allowed=allowed).http_client(domains) as client:
        url = f"https://a.example.com/to/307/{target}"
        request = client.build_request("GET", url)
        if by_hand:  # as the MCP client does it
            redirect = (await client.send(request, follow_redirects=False)).next_request
            assert redirect is not None
            request = redirect
        with pytest.raises((EndpointError, httpx2.UnsupportedProtocol)):
            await client.send(request)
    assert [seen.name for seen in world.seen] == ["a.example.com"]
    assert world.connected == [PUBLIC]


async def test_a_redirect_to_a_name_that_became_private_is_not_followed(world: Internet) -> None:
    world.names["b.example.com"] = [["10.0.0.7"]]
    async with world.policy().http_client(["*.example.com"]) as client:
        with pytest.raises(EndpointError, match=r"resolves to 10\.0\.0\.7"):
            await client.get("https://a.example.com/to/302/https://b.example.com/")
    assert world.connected == [PUBLIC]


async def test_redirects_without_end_are_given_up(world: Internet) -> None:
    world.script = scripted(Answer(302, {"location": "/again"}))
    async with world.policy().http_client() as client:
        with pytest.raises(httpx2.TooManyRedirects):
            await client.get("https://a.example.com/")
    assert len(world.seen) == endpoints.MAX_REDIRECTS + 1


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/json"}])
async def test_a_response_without_end_is_cut_off(
    world: Internet, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    monkeypatch.setattr(endpoints, "MAX_RESPONSE_BYTES", 100_000)
    world.script = scripted(Answer(200, headers, b"x" * 4096, is_endless=True))
    async with world.policy().http_client() as client:
        with pytest.raises(EndpointError, match="more than 100000 bytes"):
            await client.get("https://a.example.com/")


async def test_a_redirect_or_an_error_is_bounded_whatever_type_it_claims(
    world: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "MAX_RESPONSE_BYTES", 100_000)
    for status in (302, 500):
        headers = {"content-type": "text/event-stream", "location": "/next"}
        world.script = scripted(Answer(status, headers, b"x" * 4096, is_endless=True))
        async with world.policy().http_client() as client:
            with pytest.raises(EndpointError, match="more than 100000 bytes"):
                await client.get("https://a.example.com/")


async def test_a_stream_of_events_may_be_longer(world: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "MAX_RESPONSE_BYTES", 1000)
    headers = {"content-type": "text/event-stream; charset=utf-8"}
    world.script = scripted(Answer(200, headers, b"data: x\n\n" * 500))
    async with world.policy().http_client() as client:
        assert len((await client.get("https://a.example.com/")).content) == 4500


async def test_a_compressed_response_is_refused_because_it_could_grow_without_end(world: Internet) -> None:
    world.script = scripted(Answer(200, {"content-encoding": "gzip"}, b"\x1f\x8b"))
    async with world.policy().http_client(headers={"accept-encoding": "gzip"}) as client:
        with pytest.raises(EndpointError, match="encoding 'gzip'"):
            await client.get("https://a.example.com/")
    assert world.seen[0].headers["accept-encoding"] == "identity"
