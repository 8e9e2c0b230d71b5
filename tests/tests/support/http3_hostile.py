"""What no library would say over QUIC, at every point of a connection: CA ADDRESS HOST."""
import os
import random
import socket
import sys
import time

from aioquic.buffer import encode_uint_var
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

CA, ADDRESS, HOST = sys.argv[1:4]
TO = (ADDRESS, 443)
CANCELLED = 0x10C
random.seed(7)


class Line:
    """A connection, driven by hand: nothing is sent or read but when it is told to."""

    def __init__(self, alpn=("h3",), name=HOST):
        configuration = QuicConfiguration(is_client=True, alpn_protocols=list(alpn), server_name=name)
        configuration.load_verify_locations(CA)
        self.quic = QuicConnection(configuration=configuration)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.up, self.over, self.heard = False, None, {}
        self.quic.connect(TO, now=time.monotonic())

    def sends(self):
        for datagram, _ in self.quic.datagrams_to_send(now=time.monotonic()):
            self.socket.sendto(datagram, TO)

    def hears(self, seconds):
        """Takes what comes, and acknowledges it, until nothing comes for so long."""
        self.sends()
        self.socket.settimeout(seconds)
        while self.over is None:
            try:
                datagram = self.socket.recv(4096)
            except socket.timeout:
                return
            self.quic.receive_datagram(datagram, TO, now=time.monotonic())
            while (event := self.quic.next_event()) is not None:
                if isinstance(event, events.HandshakeCompleted):
                    self.up = True
                elif isinstance(event, events.StreamDataReceived):
                    self.heard[event.stream_id] = self.heard.get(event.stream_id, b"") + event.data
            self.sends()
            # The event of the end comes only seconds later.
            self.over = self.quic._close_event

    def opens(self):
        """To its end, or until the other side ends it."""
        until = time.monotonic() + 5
        while not self.up and self.over is None and time.monotonic() < until:
            self.hears(0.02)
        return self

    def control(self, settings=b""):
        self.says(self.quic.get_next_available_stream_id(is_unidirectional=True), b"\0" + frame(4, settings))
        return self

    def asks(self, data, end=True):
        stream = self.quic.get_next_available_stream_id()
        self.says(stream, data, end)
        return stream

    def says(self, stream, data, end=False):
        try:
            self.quic.send_stream_data(stream, data, end)
        except Exception:  # It was closed, by a case before this one.
            pass

    def closes(self):
        self.quic.close()
        self.sends()
        self.socket.close()

    def vanishes(self):
        self.socket.close()


def frame(kind, payload):
    return encode_uint_var(kind) + encode_uint_var(len(payload)) + payload


def text(value, prefix, bits):
    assert len(value) < (1 << bits) - 1
    return bytes([prefix | len(value)]) + value


def field(name, value):
    """A literal with a literal name; names longer than 6 bytes need a second byte of length."""
    length = bytes([0x20 | len(name)]) if len(name) < 7 else bytes([0x27, len(name) - 7])
    return length + name + text(value, 0, 7)


def head(method=b"POST", path=b"/count", more=b""):
    pseudo = field(b":method", method) + field(b":scheme", b"https")
    return b"\0\0" + pseudo + field(b":authority", HOST.encode()) + field(b":path", path) + more


def well(why):
    """Somebody else is served as ever."""
    line = Line().opens().control()
    stream = line.asks(frame(1, head(b"GET", b"/")))
    until = time.monotonic() + 10
    while b"hello" not in line.heard.get(stream, b"") and time.monotonic() < until and line.over is None:
        line.hears(0.02)
    assert b"hello" in line.heard.get(stream, b""), (why, line.over, line.heard)
    line.closes()


def alert(line):
    """The TLS alert that ended a handshake."""
    line.opens()
    assert line.over is not None, "it came up" if line.up else "it was not answered"
    code, line = line.over.error_code, line.closes()
    return code - 0x100


# 1. What is no QUIC, or no connection.
garbage = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
first = Line()
initial = first.quic.datagrams_to_send(now=time.monotonic())[0][0]
for length in range(0, len(initial), 97):
    garbage.sendto(initial[:length], TO)
for at in range(0, 200, 9):
    garbage.sendto(initial[:at] + bytes([initial[at] ^ 0xFF]) + initial[at + 1 :], TO)
for version in (0, 0x0A0A0A0A, 0xFF00001D, 0x6B3343CF):
    garbage.sendto(initial[:1] + version.to_bytes(4, "big") + initial[5:], TO)
for length in (1, 20, 21, 43, 1200, 1472):
    for kind in (0x40, 0xC0, 0xD0, 0xE0, 0xF0, 0x00):
        garbage.sendto(bytes([kind]) + os.urandom(length - 1), TO)
garbage.close()
first.vanishes()
well("garbage")

# 2. Handshakes that end before their end, and those for what isn't there.
for _ in range(20):
    line = Line()
    line.sends()
    line.vanishes()
for _ in range(20):
    # The server has sent all of its own, and never hears of it again.
    line = Line()
    line.sends()
    line.socket.settimeout(5)
    line.socket.recv(4096)
    line.vanishes()
for alpn in (["h2"], ["nonsense"], ["h3-29", "hq-interop"]):
    assert alert(Line(alpn)) == 120, alpn
for name in ("unknown.example", "a" * 63 + ".example", "x" * 300, "a b", "..", "-", None):
    line = Line(name=name).opens()
    line.closes()
well("handshakes")

# 3. A request that is cut off at every point, in every way.
whole = frame(1, head(more=field(b"content-length", b"9"))) + frame(0, b"half") + frame(0, b"whole")
for at in range(0, len(whole) + 1, 5):
    line = Line().opens().control()
    streams = []
    for end in ("fin", "reset", "stop", "both"):
        stream = line.asks(whole[:at], end == "fin")
        streams.append(stream)
        if end in ("reset", "both"):
            line.quic.reset_stream(stream, CANCELLED) if at else line.says(stream, b"", True)
        if end in ("stop", "both") and at:
            line.quic.stop_stream(stream, CANCELLED)
        if at % 8 == 0:
            line.sends()
    line.hears(0.002)
    line.closes() if at % 4 else line.vanishes()
well("cut off")

# 4. Heads that can't be unpacked, or shouldn't be.
good = head(b"GET", b"/")
heads = [
    b"",
    b"\0",
    b"\xff" * 40,
    # A dynamic table that isn't there: counts, a base, references of each kind.
    b"\x05\0" + good[2:],
    b"\0\x85" + good[2:],
    good + b"\x80",
    good + b"\x10",
    good + b"\x00\x01a",
    good + b"\x40\x01a",
    # Beyond the static table; numbers without end.
    good + b"\xff\xff\x7f",
    good + b"\xff" + b"\x80" * 30,
    good + b"\x27" + b"\xff" * 20,
    # Huffman codes that end in the middle, and the one that must not be used.
    good + b"\x29a\x81\xff",
    good + b"\x2a\xff\xff\x01a",
    good + b"\x21a\x84\xff\xff\xff\xff",
    # A name and a value that are longer than what is there.
    good + b"\x26abc",
    good + b"\x21a\x7f" + b"x" * 9,
    # What may be unpacked, and is no request.
    b"\0\0",
    b"\0\0" + field(b":method", b"GET"),
    good + field(b":path", b"/twice"),
    b"\0\0" + field(b"a", b"b") + good[2:],
    good + field(b":status", b"200"),
    good + field(b":odd", b"x"),
    good + field(b"Upper", b"x"),
    good + field(b"a b", b"x"),
    good + field(b"", b"x"),
    good + field(b"a", b"x\r\ny: z"),
    good + field(b"a", b"\0"),
    good + field(b"te", b"gzip"),
    good + field(b"host", b"other.example"),
    good + field(b"connection", b"close"),
    head(b"GET", b""),
    head(b"GET", b"*"),
    head(b"GET", b"/\xff\xfe"),
    head(b"GET", b"/../x"),
    head(b"CONNECT", b"/"),
    head(b"G T", b"/"),
    head(b"", b"/"),
]
# The library overlooks these, and understands the head in one way: a count and a base that nothing refers to, the
# end-of-string code (as padding that is too long), pseudo fields twice or behind others (the last one counts).
overlooked = [
    b"\x05\0" + good[2:],
    b"\0\x85" + good[2:],
    good + b"\x21a\x84\xff\xff\xff\xff",
    good + field(b":path", b"/twice"),
    b"\0\0" + field(b"a", b"b") + good[2:],
    good + field(b":status", b"200"),
]
served = []
for block in heads:
    line = Line().opens().control()
    line.asks(frame(1, block))
    line.asks(frame(1, good) + frame(1, block))
    line.hears(0.01)
    for stream, said in line.heard.items():
        # The second request has a good head, and trailers that may be dropped.
        if stream == 0 and b"hello" in said and block not in overlooked:
            served.append(block)
    line.closes()
assert not served, served
well("heads")

# 5. Streams that belong to the connection.
one_way = [
    [b"\0" + frame(0, b"x")],
    [b"\0" + frame(1, good)],
    [b"\0" + frame(4, b""), b"\0" + frame(4, b"")],
    [b"\0" + frame(4, b"") + frame(4, b"")],
    [b"\0" + frame(4, b"\x02\x01")],
    [b"\0" + frame(4, b"\x06")],
    [b"\0" + frame(4, b"\x06\x01\x06\x01")],
    [b"\0" + frame(4, b"\x08\x09")],
    [b"\0\x04" + b"\xff" * 8],
    [b"\0\x04\x80\x10\0\0" + b"\x21\x01" * 4000],
    [b"\0" + frame(4, b"") + frame(0xD, b"")],
    [b"\0" + frame(4, b"") + frame(0xD, b"\x05") + frame(0xD, b"\x01")],
    [b"\0" + frame(4, b"") + frame(3, b"\x3f")],
    [b"\0" + frame(4, b"") + frame(7, b"\xc0" + b"\xff" * 7)],
    [b"\0" + frame(4, b"") + frame(0x21, b"x" * 1000) * 60],
    [b"\1\0" + frame(0, b"x")],
    [b"\2\x3f\xe1\xff\xff\xff\x0f", b"\3\xff\xff\x7f"],
    [b"\2" + b"\xc0\x01a" * 1000],
    [b"\2" + b"\xff" * 1000],
    [b"\2", b"\2"],
    [b"\3\x80\x3f\x01"],
    [b"\3" + b"\x01" * 1000],
    [b"\x40\x54\0" + b"x" * 100],
    [encode_uint_var(0x1F * n + 0x21) + b"x" * 50 for n in range(8)],
    [b"", b"\xff", b"\xc0", b"\x40"],
]
for streams in one_way:
    for end in (False, True):
        line = Line().opens()
        for said in streams:
            line.says(line.quic.get_next_available_stream_id(is_unidirectional=True), said, end)
        line.asks(frame(1, good))
        line.hears(0.01)
        line.closes()
for how in ("reset", "end"):
    line = Line().opens().control()
    line.hears(0.01)
    line.quic.reset_stream(2, CANCELLED) if how == "reset" else line.says(2, b"", True)
    line.hears(0.02)
    assert line.over is not None and line.over.error_code == 0x104, ("the control stream is gone", line.over)
    line.closes()
well("one way")

# 6. As many streams as there may be, none of them ever finished; then all of them given up.
line = Line().opens().control()
streams = [line.asks(whole[: 10 + at % 90], False) for at in range(120)]
line.hears(0.05)
well("many streams")
for stream in streams:
    line.quic.reset_stream(stream, CANCELLED)
line.hears(0.05)
line.vanishes()
well("all")
print("fine")
