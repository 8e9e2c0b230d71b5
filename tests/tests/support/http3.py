"""Asks for pages over HTTP/3 with aioquic: CA ADDRESS HOST."""
import asyncio
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration

CA, ADDRESS, HOST = sys.argv[1:4]


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.answers = {}

    def quic_event_received(self, event):
        for told in self.http.handle_event(event):
            if not isinstance(told, (HeadersReceived, DataReceived)):
                continue
            answer = self.answers[told.stream_id]
            if isinstance(told, HeadersReceived):
                answer["head"].update(told.headers)
            else:
                answer["body"] += told.data
            if told.stream_ended:
                answer["over"].set_result(None)

    async def ask(self, method, path, body=b"", fields=()):
        stream = self._quic.get_next_available_stream_id()
        over = asyncio.get_running_loop().create_future()
        answer = self.answers[stream] = {"head": {}, "body": bytearray(), "over": over}
        head = [(b":method", method), (b":scheme", b"https"), (b":authority", HOST.encode()), (b":path", path)]
        self.http.send_headers(stream, head + list(fields), end_stream=not body)
        if body:
            self.http.send_data(stream, body, end_stream=False)
            self.http.send_data(stream, b"", end_stream=True)
        self.transmit()
        await asyncio.wait_for(over, 20)
        return answer["head"][b":status"], bytes(answer["body"]), answer["head"]


async def main():
    quic = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=HOST)
    quic.load_verify_locations(CA)
    async with connect(ADDRESS, 443, configuration=quic, create_protocol=Client) as client:
        status, body, head = await client.ask(b"GET", b"/")
        assert status == b"200" and body and b"x-upstream" in head, (status, body, head)
        sent = bytes(range(256)) * 4000
        status, body, _ = await client.ask(b"POST", b"/echo", sent)
        assert status == b"200" and body == sent, (status, len(body))
        status, body, _ = await client.ask(b"GET", b"/bytes?n=1000000")
        assert status == b"200" and len(body) == 1000000, (status, len(body))
        all = await asyncio.gather(*(client.ask(b"GET", b"/slow?ms=50") for _ in range(50)))
        assert [status for status, _, _ in all] == [b"200"] * 50
        # More fields than a head may have, but not more than are looked at.
        status, _, _ = await client.ask(b"GET", b"/", fields=[(b"x-many-%d" % at, b"a") for at in range(150)])
        assert status == b"431", status
    print("fine")


asyncio.run(main())
