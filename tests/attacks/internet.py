"""An internet of our own: names with scripted addresses, all of them answered by one HTTPS server on loopback."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, cast

import httpcore2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from perstack.activities.skills.endpoints import EndpointPolicy
from perstack.definitions.hosts import literal_address

PUBLIC = "93.184.215.14"
OTHER_PUBLIC = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
WAIT_SECONDS = 20


@dataclass(frozen=True)
class Seen:
    """One request as the server got it."""

    name: str
    """As in SNI."""
    method: str
    path: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Answer:
    """What the server sends back."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b"ok"
    is_endless: bool = False
    """Whether the body is repeated until the client leaves."""


Script = Callable[[Seen], Answer]


class Internet:
    """Who resolves to what, who was connected to, and what arrived there."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.names: dict[str, list[Sequence[str]]] = {}
        """Each name's answers, one after another; the last one stays."""
        self.asked: list[str] = []
        self.connected: list[str] = []
        """The addresses of all connections, resolved by the system where one was asked for by its name."""
        self.ports: set[int] = set()
        self.seen: list[Seen] = []
        self.port = 0
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """What a resolver answers next."""
        self.asked.append(host)
        answers = self.names.get(host)
        if not answers:
            raise OSError(-2, "Name or service not known")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def policy(self, **more: Any) -> EndpointPolicy:
        """A policy with our names and our authority."""
        return EndpointPolicy(resolve=self.resolve, ssl_context=authority().client_context(), **more)

    async def route(self, address: str, port: int, **more: Any) -> httpcore2.AsyncNetworkStream:
        """Stands for the network: whatever is connected to, our server answers."""
        if literal_address(address) is None:
            address = (await self.resolve(address, port))[0]
        self.connected.append(address)
        self.ports.add(port)
        network = cast("httpcore2.AsyncNetworkBackend", _ANYIO())
        return await _CONNECT(network, "127.0.0.1", self.port, **more)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._serving[task] = writer
        with suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ")
                headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in head[1:] if line)}
                await reader.readexactly(int(headers.get("content-length", 0)))
                name = str(getattr(writer.get_extra_info("ssl_object"), "asked_for", ""))
                seen = Seen(name, method, path, headers)
                self.seen.append(seen)
                await _send(writer, self.script(seen))
        writer.close()

    async def close(self) -> None:
        """End the connections that are left."""
        for writer in self._serving.values():
            writer.transport.abort()
        await asyncio.gather(*self._serving)


async def _send(writer: asyncio.StreamWriter, answer: Answer) -> None:
    headers = {**answer.headers}
    if answer.is_endless:
        headers["connection"] = "close"
    else:
        headers["content-length"] = str(len(answer.body))
    lines = [f"HTTP/1.1 {answer.status} X", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode() + answer.body)
    await writer.drain()
    while answer.is_endless:
        writer.write(answer.body)
        await writer.drain()


@dataclass(frozen=True)
class Authority:
    """A certificate authority that nobody but our client trusts."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def client_context(self) -> ssl.SSLContext:
        """Trusts this authority alone."""
        pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()
        return ssl.create_default_context(cadata=pem)

    def server_context(self, names: Iterable[str], folder: Path) -> ssl.SSLContext:
        """A server's side with a certificate for `names`; tells the name it was asked for."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate("server", key, self.certificate.subject, self.key, names)
        path = folder / "server.pem"
        path.write_bytes(_pem(key) + certificate.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)

        def remember(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            connection.asked_for = name or ""  # pyright: ignore[reportAttributeAccessIssue]

        context.sni_callback = remember
        return context


@cache
def authority() -> Authority:
    """The authority of this test process."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    return Authority(_certificate("tests", key, subject, key, ()), key)


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    names: Iterable[str],
) -> x509.Certificate:
    now = datetime.now(UTC)
    hosts = [x509.DNSName(host) for host in names]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=not hosts, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


_ANYIO: Any = httpcore2.AnyIOBackend
_CONNECT: Any = _ANYIO.connect_tcp


@asynccontextmanager
async def internet(
    script: Script, names: Iterable[str], folder: Path, patch: pytest.MonkeyPatch
) -> AsyncGenerator[Internet]:
    """An internet whose server has a certificate for `names`; no connection of httpx2 leaves it."""
    world = Internet(script)

    async def connect_tcp(network: Any, host: str, port: int, **more: Any) -> httpcore2.AsyncNetworkStream:
        return await world.route(host, port, **more)

    patch.setattr(_ANYIO, "connect_tcp", connect_tcp)
    context = authority().server_context(names, folder)
    server = await asyncio.start_server(world.serve, "127.0.0.1", 0, ssl=context)
    world.port = server.sockets[0].getsockname()[1]
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            yield world
    finally:
        server.close()
        await world.close()
        patch.setattr(_ANYIO, "connect_tcp", _CONNECT)
