#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Captures built byte by byte, each scanned for what was put into it."""

import io
import json
import os
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from proof import wirescan  # noqa: E402

UML = (0x60000000, 0x7fffffff)
# a kernel address of each kind, with the ranges that make it one
KERNEL = [
    ("4-level", 0xffff888012345678, ()), ("5-level", 0xff11000012345678, ()),
    ("vmalloc", 0xffffc90000012340, ()), ("UML", 0x63456780, (UML,)),
    ("UML first", UML[0], (UML,)), ("UML last", UML[1], ((0x1000, 0x1fff), UML)),
]
# what UML has behind its image, and what of it is none: an offset into an MR, the
# iova of one, the address of something else
RAM = (0x1c00000, 0x3fffffff)
NOT_RAM = [0, 0xfff, RAM[0] - 1, RAM[1] + 1, 0x2345678900000000 | RAM[0], 0x00007fffdeadb000]
CLEAN = [0, 0x678, 0x12345678, 0x5fffffff, 0x80000000, 0x00007fffdeadb000]
HOST, TARGET = "10.9.0.1", "10.9.1.1"


def pcap(packets, snaplen=1 << 18, link=1, order="<", magic=0xa1b2c3d4):
    out = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, link)]
    for packet in packets:
        captured = packet[:snaplen]
        out += struct.pack(order + "IIII", 0, 0, len(captured), len(packet)), captured
    return b"".join(out)


def ip(protocol, payload, src=HOST, dst=TARGET, fragment=0, vlan=b""):
    mac = b"\2\0\0\0\0\1\2\0\0\0\0\2" + vlan
    if ":" in src:
        return (mac + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64)
                + socket.inet_pton(socket.AF_INET6, src)
                + socket.inet_pton(socket.AF_INET6, dst) + payload)
    return (mac + b"\x08\0" + struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 1,
                                          fragment, 64, protocol, 0)
            + socket.inet_aton(src) + socket.inet_aton(dst) + payload)


def roce(opcode, body, port=4791, pad=0, **where):
    bth = struct.pack(">BBHII", opcode, pad << 4, 0xffff, 0x11, 7)
    data = bth + body + bytes(pad) + b"ICRC"
    return ip(17, struct.pack(">HHHH", 49152, port, 8 + len(data), 0) + data, **where)


def reth(va, length=4096):
    return struct.pack(">QII", va, 0x1234, length)


def nvme(address, kind=0x40, data=b""):
    sqe = bytearray(64)
    sqe[0], sqe[1] = 2, 0x40
    struct.pack_into("<Q", sqe, 24, address)
    sqe[32:39], sqe[39] = b"\0\x10\0\x78\x56\x34\x12", kind
    return bytes(sqe) + data


def iser(write=None, read=None):
    flags = 0x10 | (write is not None) << 3 | (read is not None) << 2
    return struct.pack(">BxxxIQIQ", flags, 0x1234, write or 0, 0x5678, read or 0) + bytes(48)


def rtrs(address, kind=1, count=2, more=0):
    return struct.pack("<HHI", kind, count, more) + struct.pack("<QII", address, 0x1234, 1 << 17) * 2


def mpa(key="Req", flags=0x4000, private=b"hello world"):
    return b"MPA ID " + key.encode() + b" Frame" + struct.pack(">HH", flags | 2, len(private)) + private


def fpdu(ddp, crc=b"\x12\x34\x56\x78"):
    data = struct.pack(">H", len(ddp)) + ddp
    return data + bytes(-len(data) % 4) + crc


def tagged(opcode, to, payload=b"", **kw):
    return fpdu(struct.pack(">HIQ", 0xc140 | opcode, 0x1234, to) + payload, **kw)


def untagged(opcode, payload, queue=0, offset=0, **kw):
    return fpdu(struct.pack(">HIIII", 0x4140 | opcode, 0, queue, 1, offset) + payload, **kw)


def read_request(sink, source, **kw):
    return untagged(1, struct.pack(">IQIIQ", 0x1234, sink, 4096, 0x5678, source), queue=1, **kw)


def tcp(seq, data=b"", flags=0x10, src=HOST, dst=TARGET, sport=33000, dport=4420, **kw):
    return ip(6, struct.pack(">HHIIBBHHH", sport, dport, seq & 0xffffffff, 0, 0x50, flags,
                             0xffff, 0, 0) + data, src=src, dst=dst, **kw)


def stream(data, isn=1000, cut=1448, **kw):
    """A SYN, then data in segments of cut bytes."""
    return [tcp(isn, flags=2, **kw)] + [
        tcp(isn + 1 + i, data[i:i + cut], **kw) for i in range(0, len(data), cut)]


ROCE_FIELDS = {
    "RC WRITE FIRST": ("RETH.va", lambda a: roce(0x06, reth(a) + b"x" * 64)),
    "RC WRITE ONLY": ("RETH.va", lambda a: roce(0x0a, reth(a) + b"x" * 64)),
    "RC WRITE ONLY imm": ("RETH.va", lambda a: roce(0x0b, reth(a) + b"imm!")),
    "RC READ": ("RETH.va", lambda a: roce(0x0c, reth(a))),
    "RC CMP SWAP": ("AtomicETH.va", lambda a: roce(0x13, struct.pack(">QIQQ", a, 1, 2, 3))),
    "RC FETCH ADD": ("AtomicETH.va", lambda a: roce(0x14, struct.pack(">QIQQ", a, 1, 2, 3))),
    "RC FLUSH": ("RETH.va", lambda a: roce(0x1c, b"FETH" + reth(a))),
    "RC ATOMIC WRITE": ("RETH.va", lambda a: roce(0x1d, reth(a, 8) + b"x" * 8)),
    "UC WRITE FIRST": ("RETH.va", lambda a: roce(0x26, reth(a) + b"x" * 64)),
    "UC WRITE ONLY": ("RETH.va", lambda a: roce(0x2a, reth(a) + b"x" * 64)),
    "RD READ": ("RETH.va", lambda a: roce(0x4c, bytes(12) + reth(a))),
    "XRC WRITE ONLY": ("RETH.va", lambda a: roce(0xaa, bytes(4) + reth(a) + b"x" * 64)),
    "IPv6": ("RETH.va", lambda a: roce(0x0a, reth(a), src="fd00::1", dst="fd00::2")),
    "IPv6 options": ("RETH.va", lambda a: ipv6_options(roce(0x0a, reth(a), src="fd00::1", dst="fd00::2"))),
    "IP length 0": ("RETH.va", lambda a: set_bytes(roce(0x0a, reth(a)), 16, b"\0\0")),
    "IPv6 length 0": ("RETH.va", lambda a: set_bytes(
        roce(0x0a, reth(a), src="fd00::1", dst="fd00::2"), 18, b"\0\0")),
    "VLAN": ("RETH.va", lambda a: roce(0x0a, reth(a), vlan=b"\x81\0\0\x05")),
    "NVMe": ("NVMe.keyed_sgl", lambda a: roce(0x04, nvme(a))),
    "NVMe inv": ("NVMe.keyed_sgl", lambda a: roce(0x04, nvme(a, 0x4f))),
    "NVMe FIRST": ("NVMe.keyed_sgl", lambda a: roce(0x00, nvme(a, data=b"x" * 960))),
    "NVMe imm": ("NVMe.keyed_sgl", lambda a: roce(0x05, b"imm!" + nvme(a))),
    "NVMe SEND inv": ("NVMe.keyed_sgl", lambda a: roce(0x17, b"rkey" + nvme(a))),
    "iSER write": ("iSER.write_va", lambda a: roce(0x04, iser(write=a))),
    "iSER read": ("iSER.read_va", lambda a: roce(0x04, iser(read=a))),
    "RTRS": ("RTRS.chunk", lambda a: roce(0x04, rtrs(a))),
}
IWARP_FIELDS = {
    "WRITE": ("DDP.tagged TO", lambda a, **kw: tagged(0, a, b"x" * 99, **kw)),
    "READ RESPONSE": ("DDP.tagged TO", lambda a, **kw: tagged(2, a, b"x" * 1000, **kw)),
    "empty WRITE": ("DDP.tagged TO", lambda a, **kw: tagged(0, a, **kw)),
    "READ sink": ("RDMAP.read sink", lambda a, **kw: read_request(a, 0, **kw)),
    "READ source": ("RDMAP.read source", lambda a, **kw: read_request(0, a, **kw)),
    "NVMe": ("NVMe.keyed_sgl", lambda a, **kw: untagged(3, nvme(a), **kw)),
    "NVMe inv": ("NVMe.keyed_sgl", lambda a, **kw: untagged(4, nvme(a, 0x4f), **kw)),
    "NVMe in capsule": ("NVMe.keyed_sgl",
                        lambda a, **kw: untagged(5, nvme(a, data=b"x" * 511), **kw)),
    "iSER write": ("iSER.write_va", lambda a, **kw: untagged(6, iser(write=a), **kw)),
    "iSER read": ("iSER.read_va", lambda a, **kw: untagged(3, iser(read=a), **kw)),
}


def set_bytes(packet, at, data):
    return packet[:at] + data + packet[at + len(data):]


def ipv6_options(packet):
    """Hop-by-hop (16 bytes), then a first fragment's header, put before UDP."""
    options = b"\x2c\1" + bytes(14) + b"\x11\0\0\1" + bytes(4)
    length = struct.pack(">HB", len(packet) - 54 + len(options), 0)
    return set_bytes(packet, 18, length)[:54] + options + packet[54:]


def scan(packets, ranges=(), ram=(), **kw):
    return wirescan.scan(io.BytesIO(pcap(packets, **kw)), ranges, ram)


class Fields(unittest.TestCase):
    def captures(self, address):
        for name, (field, build) in ROCE_FIELDS.items():
            yield "RoCE " + name, field, [build(address)]
        for name, (field, build) in IWARP_FIELDS.items():
            yield "iWARP " + name, field, stream(mpa() + build(address))
            yield "iWARP reply " + name, field, stream(mpa("Rep", 0, b"") + build(address, crc=bytes(4)))
            yield "iWARP IPv6 " + name, field, stream(mpa() + build(address), src="fd00::1", dst="fd00::2")

    def test_kernel_address_in_every_field(self):
        for kind, address, ranges in KERNEL:
            for name, field, packets in self.captures(address):
                with self.subTest(kind=kind, capture=name):
                    result = scan(packets, ranges)
                    self.assertEqual(dict(result.kernel), {field: 1})
                    self.assertEqual(result.unparsed, {})
                    self.assertEqual(result.examples[0]["address"], hex(address))
                    self.assertEqual(result.examples[0]["field"], field)
                    self.assertEqual(result.examples[0]["packet"], len(packets))

    def test_other_address_in_every_field(self):
        for address in CLEAN:
            for name, field, packets in self.captures(address):
                with self.subTest(address=hex(address), capture=name):
                    result = scan(packets, (UML,))
                    self.assertEqual(result.kernel_total, 0)
                    self.assertGreaterEqual(result.seen[field], 1)
                    self.assertEqual((result.examples, result.unparsed), ([], {}))

    def test_a_low_kernel_address_needs_its_range(self):
        packets = [roce(0x0a, reth(UML[0]))]
        self.assertEqual(scan(packets).kernel_total, 0)
        self.assertEqual(scan(packets, (UML,)).kernel_total, 1)

    def test_physical_address_in_every_field(self):
        for address in (RAM[0], 0x12345678, RAM[1]):
            for name, field, packets in self.captures(address):
                with self.subTest(address=hex(address), capture=name):
                    result = scan(packets, (UML,), (RAM,))
                    self.assertEqual((dict(result.physical), dict(result.kernel)), ({field: 1}, {}))
                    self.assertEqual(result.examples[0]["address"], hex(address))
                    self.assertEqual(scan(packets, (UML,)).physical_total, 0)

    def test_what_is_no_physical_address(self):
        for address in NOT_RAM:
            for name, field, packets in self.captures(address):
                with self.subTest(address=hex(address), capture=name):
                    result = scan(packets, (UML,), (RAM,))
                    self.assertEqual((result.physical_total, result.kernel_total), (0, 0))
                    self.assertGreaterEqual(result.seen[field], 1)

    def test_payload_is_not_looked_at(self):
        junk = struct.pack("<Q", KERNEL[0][1]) * 64 + struct.pack(">Q", KERNEL[1][1]) * 64
        sqe = nvme(KERNEL[0][1]) * 8
        for payload in (junk, sqe, struct.pack("<Q", UML[0]) * 64):
            result = scan([roce(0x0a, reth(0) + payload), roce(0x07, payload), roce(0x01, payload),
                           roce(0x02, payload), roce(0x10, b"AETH" + payload), roce(0x0e, payload),
                           roce(0x64, bytes(8) + payload), roce(0x04, nvme(0, data=payload)),
                           *stream(mpa(private=payload[:500]) + tagged(0, 0, payload)
                                   + untagged(3, nvme(0, data=payload))
                                   + untagged(3, payload, offset=64) + untagged(7, payload, queue=2)
                                   + tagged(2, 8, payload), cut=333)], (UML,))
            self.assertEqual(dict(result.seen), {"RETH.va": 1, "DDP.tagged TO": 2, "NVMe.keyed_sgl": 2})
            self.assertEqual((result.kernel_total, result.unparsed), (0, {}))
        self.assertEqual(scan([roce(4, junk)]).seen, {})

    def test_messages_that_only_resemble_a_command(self):
        bad = KERNEL[0][1]
        inline_sgl = nvme(bad, 0x01)                # offset into the capsule
        prp = bytes([2, 0]) + nvme(bad)[2:]
        for message in (inline_sgl, prp, nvme(bad)[:63], bytes(16),
                        iser(bad)[:60], b"\x20" + iser(bad)[1:], b"\x11" + iser(bad)[1:],
                        rtrs(bad, kind=4), rtrs(bad, count=0), rtrs(bad, more=1), rtrs(bad)[:23]):
            result = scan([roce(4, message, pad=-len(message) % 4), *stream(mpa() + untagged(3, message))])
            self.assertEqual((result.seen, result.unparsed), ({}, {}))

    def test_iser_tags_that_are_not_valid(self):
        self.assertEqual(scan([roce(4, iser(write=0))]).seen, {"iSER.write_va": 1})
        result = scan([roce(4, b"\x18" + iser(0, KERNEL[0][1])[1:])])      # a leak all the same
        self.assertEqual(result.kernel, {"iSER.read_va": 1})

    def test_direction(self):
        result = scan([roce(0x0c, reth(KERNEL[0][1]), src=TARGET, dst=HOST),
                       *stream(mpa() + tagged(0, KERNEL[0][1]))])
        self.assertEqual([e["direction"] for e in result.examples],
                         ["10.9.1.1 > 10.9.0.1", "10.9.0.1 port 33000 > 10.9.1.1 port 4420"])

    def test_examples_are_few(self):
        result = scan([roce(0x0a, reth(KERNEL[0][1] + i)) for i in range(100)])
        self.assertEqual((result.kernel_total, len(result.examples)), (100, wirescan.EXAMPLES))


class Streams(unittest.TestCase):
    """200 FPDUs of all kinds and lengths in each stream."""

    def setUp(self):
        self.address = KERNEL[1][1]
        build = [b for _, b in IWARP_FIELDS.values()]
        data = [build[i % len(build)](self.address + i) for i in range(100)]
        data += [tagged(0, self.address, b"x" * i) for i in range(100)]
        self.data = mpa() + b"".join(data)
        whole = scan(stream(self.data, cut=len(self.data)))
        self.whole = whole.seen, whole.kernel
        self.assertEqual(whole.packets, 2)
        self.assertEqual(whole.kernel_total, 200)

    def check(self, packets, **kw):
        result = scan(packets, **kw)
        self.assertEqual((result.seen, result.kernel), self.whole)
        self.assertEqual((result.iwarp_streams, result.unparsed), (1, {}))
        return result

    def test_any_segment_length(self):
        for cut in (1, 2, 3, 7, 16, 20, 47, 100, 536, 1448, 9000, 60000):
            with self.subTest(cut=cut):
                self.check(stream(self.data, cut=cut))

    def test_order(self):
        syn, *segments = stream(self.data, cut=200)
        swapped = [s for i in range(0, len(segments), 2) for s in segments[i:i + 2][::-1]]
        for order in (segments[::-1], swapped, segments[50:] + segments[:50]):
            self.check([syn] + order)

    def test_retransmission(self):
        syn, *segments = stream(self.data, cut=200)
        self.check([syn, syn] + [s for pair in zip(segments, segments) for s in pair])
        self.check([syn] + segments + segments[5:10])
        # other boundaries: old and new bytes in one segment, in order or ahead
        other = [tcp(1001 + i, self.data[i:i + 700]) for i in range(0, len(self.data), 150)]
        self.check([syn] + other)
        self.check([syn] + other[::-1] + segments)
        longer = [tcp(1001 + i, self.data[i:i + 400]) for i in range(0, len(self.data), 200)]
        self.check([syn] + segments[1::2] + longer[1::2] + segments[:1])

    def test_sequence_wraps(self):
        for order in (1, -1):
            syn, *segments = stream(self.data, isn=(1 << 32) - 5000, cut=500)
            self.check([syn] + segments[::order])

    def test_thousands_of_segments_behind_a_gap(self):
        syn, first, *rest = stream(self.data, cut=5)
        self.assertGreater(len(rest), 4000)
        self.check([syn] + rest + [first])

    def test_no_syn_but_the_first_data(self):
        self.check(stream(self.data)[1:])

    def test_ethernet_padding(self):
        self.check([p.ljust(60, b"\xff") for p in stream(self.data, cut=3)])

    def test_both_directions_and_reused_ports(self):
        back = dict(src=TARGET, dst=HOST, sport=4420, dport=33000)
        reply = mpa("Rep", 0) + tagged(2, self.address)
        result = scan(stream(self.data) + stream(reply, isn=77, **back)
                      + stream(self.data, isn=0x90000000) + stream(reply, isn=0x80000000, **back))
        self.assertEqual((result.kernel_total, result.iwarp_streams), (402, 4))
        self.assertEqual(result.unparsed, {})

    def test_start_not_captured(self):
        data = stream(self.data)[2:]
        result = scan(data)
        self.assertEqual((result.fields_total, result.iwarp_streams), (0, 0))
        self.assertEqual(result.unparsed, {"TCP stream whose start was not captured":
                                           [1, len(self.data) - 1448]})

    def test_gap(self):
        syn, *segments = stream(self.data, cut=100)
        result = scan([syn] + segments[:40] + segments[55:])     # longer than any FPDU
        (times, size), = result.unparsed.values()
        self.assertEqual(times, 1)
        self.assertTrue(len(self.data) - 5500 < size < len(self.data) - 4000)
        before = scan([syn] + segments[:40])
        self.assertGreater(before.kernel_total, 0)
        self.assertEqual(result.kernel, before.kernel)

    def test_gap_inside_payload_is_harmless(self):
        data = mpa() + tagged(0, self.address, b"x" * 4000) + tagged(0, self.address)
        packets = stream(data, cut=1000)
        del packets[3]
        result = scan(packets)
        self.assertEqual((result.kernel_total, result.unparsed), (2, {}))

    def test_a_gap_wider_than_any_window(self):
        far = wirescan.MAX_AHEAD + 5000
        result = scan([*stream(mpa() + tagged(0, self.address)), tcp(1000 + far, b"x" * 99),
                       tcp(1099 + far, b"x" * 99)])
        self.assertEqual(result.kernel_total, 1)
        (times, size), = result.unparsed.values()
        self.assertEqual(times, 1)
        self.assertGreater(size, far)

    def test_a_gap_is_given_up(self):
        data = mpa() + tagged(0, self.address) + b"".join(
            tagged(0, self.address, bytes(60000)) for _ in range(300))
        syn, *segments = stream(data, cut=60000)
        late = scan([syn] + segments[:1] + segments[2:] + segments[1:2])
        self.assertTrue(0 < late.kernel_total < 10)
        self.assertEqual(scan([syn] + segments[:1] + segments[2:50] + segments[1:2]
                              + segments[50:]).kernel_total, 301)

    def test_a_gap_open_when_ports_are_reused(self):
        data = mpa() + tagged(0, self.address, bytes(4000)) + tagged(0, self.address)
        first = stream(data, cut=1000)
        del first[2]
        result = scan(first + stream(data, isn=0x70000000))
        self.assertEqual((result.kernel_total, result.unparsed), (4, {}))

    def test_snaplen(self):
        one_each = [mpa()] + [tagged(0, self.address, b"x" * 1400) for _ in range(10)]
        seq, packets = 1001, [tcp(1000, flags=2)]
        for data in one_each:
            packets.append(tcp(seq, data))
            seq += len(data)
        result = scan(packets, snaplen=128)
        self.assertEqual((result.kernel_total, result.unparsed), (10, {}))
        result = scan(packets, snaplen=69)      # 54 to the data, 20 of them needed
        self.assertEqual(result.kernel_total, 0)
        (times, size), = result.unparsed.values()
        self.assertEqual((times, size), (1, seq - 1001))
        request = read_request(self.address, self.address)
        result = scan(packets[:2] + [tcp(1001 + len(mpa()), request)], snaplen=101)
        self.assertEqual(result.fields_total, 0)
        self.assertEqual([size for _, size in result.unparsed.values()], [len(request)])
        result = scan(packets[:1] + [tcp(1001, mpa() + untagged(3, nvme(self.address))
                                         + tagged(0, self.address))], snaplen=54 + 31 + 50)
        self.assertEqual(list(result.unparsed), ["SEND header cut short in the capture",
                                                 "iWARP or unknown TCP stream with a gap, from there on"])

    def test_capture_ends_inside_a_header(self):
        result = scan(stream(mpa() + tagged(0, self.address) + tagged(0, self.address)[:9]))
        self.assertEqual(result.kernel_total, 1)
        self.assertEqual(result.unparsed, {"TCP stream ending inside a header": [1, 9]})

    def test_markers_are_refused(self):
        data = tagged(0, self.address)
        back = dict(src=TARGET, dst=HOST, sport=4420, dport=33000)
        result = scan([tcp(1000, flags=2), tcp(50, flags=0x12, **back),
                       tcp(1001, mpa() + data), tcp(51, mpa("Rep", 0x8000) + data, **back),
                       tcp(1001 + len(mpa() + data), data)])
        self.assertEqual(result.kernel_total, 1)        # what went before the reply
        self.assertEqual(result.unparsed, {"iWARP stream with MPA markers":
                                           [2, len(mpa() + data) + len(data)]})

    def test_nonsense_after_mpa(self):
        for junk in (b"\xff" * 100, fpdu(struct.pack(">HIQ", 0xc180, 1, self.address)), fpdu(b"\xc1\x40")):
            result = scan(stream(mpa() + junk))
            self.assertEqual(result.fields_total, 0)
            self.assertEqual(result.unparsed, {"iWARP stream without a valid FPDU, from there on":
                                               [1, len(junk)]})

    def test_other_tcp(self):
        result = scan(stream(b"MPA is not what this is", cut=3))
        self.assertEqual((result.other_tcp_streams, result.iwarp_streams), (1, 0))
        self.assertEqual((result.fields_total, result.unparsed), (0, {}))


class Captures(unittest.TestCase):
    packets = [roce(0x0a, reth(KERNEL[0][1])), roce(4, nvme(KERNEL[0][1]))]

    def test_headers(self):
        for order in "<>":
            for magic in (0xa1b2c3d4, 0xa1b23c4d):
                self.assertEqual(scan(self.packets, order=order, magic=magic).kernel_total, 2)

    def test_not_a_capture(self):
        good = pcap(self.packets)
        for data in (b"", good[:23], b"x" * 99,
                     pcap(self.packets, link=113), good + b"\xff" * 16,
                     good + struct.pack("<IIII", 0, 0, 60, 59) + bytes(60)):
            with self.assertRaises(wirescan.CaptureError):
                wirescan.scan(io.BytesIO(data))
        with self.assertRaisesRegex(wirescan.CaptureError, "pcapng"):
            wirescan.scan(io.BytesIO(b"\x0a\x0d\x0d\x0a" + bytes(99)))

    def test_last_packet_cut_off(self):
        data = pcap(self.packets)
        last = 16 + len(self.packets[1])
        for cut in range(1, last):
            result = wirescan.scan(io.BytesIO(data[:-cut]))
            self.assertEqual((result.packets, result.kernel_total), (1, 1))
            self.assertEqual(list(result.unparsed), ["last packet cut off"])

    def test_snaplen_on_roce(self):
        self.assertEqual(scan(self.packets, snaplen=118).kernel_total, 2)
        result = scan(self.packets, snaplen=117)
        self.assertEqual(result.kernel_total, 1)
        self.assertEqual(result.unparsed, {"SEND header cut short in the capture": [1, 1]})
        result = scan(self.packets, snaplen=60)
        self.assertEqual(result.fields_total, 0)
        self.assertEqual(list(result.unparsed), ["RoCE header cut short in the capture",
                                                 "SEND header cut short in the capture"])
        result = scan(self.packets, snaplen=30)
        self.assertEqual(result.unparsed, {"packet cut short in its headers":
                                           [2, sum(map(len, self.packets))]})

    def test_a_write_shorter_than_its_header(self):
        result = scan([roce(0x0a, b"")])
        self.assertEqual(list(result.unparsed), ["RoCE packet shorter than its headers"])

    def test_fragments(self):
        result = scan([self.packets[0], roce(0x0a, reth(KERNEL[0][1]), fragment=185)])
        self.assertEqual(result.kernel_total, 1)
        self.assertEqual(list(result.unparsed), ["IP fragments after the first"])

    def test_another_port(self):
        result = scan([roce(0x0a, reth(KERNEL[0][1]), port=4790)])
        self.assertEqual((result.fields_total, result.unparsed), (0, {}))


class CommandLine(unittest.TestCase):
    def run_on(self, packets, *options, data=None):
        with tempfile.NamedTemporaryFile(suffix=".pcap") as file:
            file.write(pcap(packets) if data is None else data)
            file.flush()
            return subprocess.run([sys.executable, wirescan.__file__, file.name, *options],
                                  capture_output=True, text=True, check=False)

    def test_exit_status(self):
        clean, dirty = roce(0x0a, reth(0x678)), roce(0x0a, reth(0x60000000))
        udp = ip(17, struct.pack(">HHHH", 1, 53, 108, 0) + bytes(100))
        option = "--range=60000000-7fffffff"
        for packets, options, status, text in (
                ([clean], [option], 0, "kernel virtual addresses: 0"),
                ([dirty], [], 0, "kernel virtual addresses: 0"),
                ([clean, dirty], [option], 1, "kernel virtual addresses: 1"),
                ([dirty], ["--linear-map", "0x60000000-0x60000000"], 1, "RETH.va"),
                ([dirty], ["--range=1-2", option], 1, "0x60000000"),
                ([clean, dirty], ["--ram=60000000-7fffffff"], 1, "physical addresses: 1"),
                ([clean], ["--ram=60000000-7fffffff"], 0, "physical addresses: 0"),
                ([udp], [], 2, "1 packets"), ([], [], 2, "0 packets"),
                ([roce(0x11, b"AETH")], [], 2, "1 RoCE"),
                ([clean, *stream(b"x")[1:]], [], 0, "start was not captured: 1 times, 1 bytes"),
                ([clean, *stream(b"x")[1:]], ["--strict"], 2, "not parsed"),
                ([clean], ["--strict"], 0, "addresses: 0")):
            run = self.run_on(packets, *options)
            self.assertEqual(run.returncode, status, run)
            self.assertIn(text, run.stdout)
            self.assertEqual(run.stderr.count("\n"), status == 2)
            if status == 2:
                self.assertTrue(run.stderr.startswith("harness: "), run.stderr)

    def test_unreadable(self):
        run = self.run_on([], data=b"no capture at all, only text")
        self.assertEqual((run.returncode, run.stdout), (2, ""))
        self.assertRegex(run.stderr, r"\Aharness: .*: not a pcap capture\n\Z")
        run = subprocess.run([sys.executable, wirescan.__file__, "/nonexistent"],
                             capture_output=True, text=True, check=False)
        self.assertEqual((run.returncode, run.stderr),
                         (2, "harness: /nonexistent: No such file or directory\n"))

    def test_bad_range(self):
        for text in ("1", "2-1", "x-y", "1-2-3", "-5"):
            run = self.run_on([roce(0x0a, reth(0))], "--range=" + text)
            self.assertEqual(run.returncode, 2)
            self.assertIn("not START-END in hex", run.stderr)

    def test_json(self):
        run = self.run_on([roce(0x0a, reth(0)), roce(0x0a, reth(KERNEL[0][1]))], "--json")
        out = json.loads(run.stdout)
        self.assertEqual((run.returncode, out["fields"], out["kernel"], out["kernel_total"]),
                         (1, {"RETH.va": 2}, {"RETH.va": 1}, 1))
        self.assertEqual((out["examples"][0]["packet"], out["physical_total"]), (2, 0))


if __name__ == "__main__":
    unittest.main()
