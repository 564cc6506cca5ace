"""One QUIC exchange between aioquic and itself: quic.py ADDRESS PORT CERTIFICATE KEY NAME."""

import asyncio
import ssl
import sys

from aioquic.asyncio import connect, serve
from aioquic.quic.configuration import QuicConfiguration


async def answer(reader, writer):
    writer.write(await reader.read())
    writer.write_eof()


async def main(address, port, certificate, key, name):
    server = QuicConfiguration(is_client=False, alpn_protocols=["h3"])
    server.load_cert_chain(certificate, key)
    await serve(
        address,
        port,
        configuration=server,
        stream_handler=lambda *ends: asyncio.ensure_future(answer(*ends)),
    )
    client = QuicConfiguration(
        alpn_protocols=["h3"], server_name=name, verify_mode=ssl.CERT_NONE
    )
    async with connect(address, port, configuration=client) as connection:
        reader, writer = await connection.create_stream()
        writer.write(b"Hello.")
        writer.write_eof()
        assert await reader.read() == b"Hello."


asyncio.run(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
