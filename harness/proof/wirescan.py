#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Find addresses of a kernel's memory in the address fields of RDMA traffic.

Reads a capture as "tcpdump -w" writes it (classic pcap, Ethernet) and looks
at RoCEv2 and iWARP headers and at the ULP headers that SEND messages begin
with.  Payload is never looked at: random data looks like anything.

The upper half of a 64-bit address space is the kernel's.  A kernel whose
linear map is low (UML) must say where: --range START-END, END included.

A physical address looks like any small number, so these are only looked for
if told by --ram START-END where the memory is that buffers are in. It is not
all of RAM: what is below the end of the kernel's image is none of it, and that
is where offsets into an MR are, which some ULPs have for addresses (RDS).
Other ULPs put 32 bits of their own there (the XID of NFS), and are found if
these happen to be in the range. The iova of an MR, which is random from bit 32
on, is not.

Exit status: 0 address fields seen, none holds such an address; 1 some
found; 2 unreadable, or no address field at all, which proves
nothing.  With --strict also 2 if part of the RDMA traffic was not parsed.
"""

import argparse
import ipaddress
import json
import struct
import sys
from collections import Counter

KERNEL_HALF = 0xff00000000000000
EXAMPLES = 5                      # kept for each field
MAX_AHEAD = 16 << 20              # more than a TCP window: the gap stays a gap
ROCE_PORT = 4791

u16 = struct.Struct(">H").unpack_from
be64 = struct.Struct(">Q").unpack_from
le64 = struct.Struct("<Q").unpack_from
SHORT = (struct.error, IndexError)    # what a read past the end raises


class CaptureError(Exception):
    pass


class Result:
    """What a scan saw. unparsed: {reason: [times, bytes]}."""

    def __init__(self, ranges=(), ram=()):
        self.ranges, self.ram = list(ranges), list(ram)
        self.packets = self.roce_packets = 0
        self.iwarp_streams = self.other_tcp_streams = 0
        self.seen, self.kernel, self.physical = Counter(), Counter(), Counter()
        self.examples = []
        self.unparsed = {}

    def address(self, field, value, where, packet):
        self.seen[field] += 1
        if value >= KERNEL_HALF or inside(value, self.ranges):
            found = self.kernel
        elif inside(value, self.ram):
            found = self.physical
        else:
            return
        found[field] += 1
        if found[field] <= EXAMPLES:
            self.examples.append({"field": field, "address": f"{value:#x}",
                                  "direction": direction(where), "packet": packet})

    def skipped(self, reason, size):
        entry = self.unparsed.setdefault(reason, [0, 0])
        entry[0] += 1
        entry[1] += size

    @property
    def fields_total(self):
        return sum(self.seen.values())

    @property
    def kernel_total(self):
        return sum(self.kernel.values())

    @property
    def physical_total(self):
        return sum(self.physical.values())

    def as_dict(self):
        return {
            "packets": self.packets, "roce_packets": self.roce_packets,
            "iwarp_streams": self.iwarp_streams,
            "other_tcp_streams": self.other_tcp_streams,
            "fields": dict(self.seen), "kernel": dict(self.kernel),
            "physical": dict(self.physical), "fields_total": self.fields_total,
            "kernel_total": self.kernel_total, "physical_total": self.physical_total,
            "examples": self.examples,
            "unparsed": {reason: {"times": times, "bytes": size}
                         for reason, (times, size) in self.unparsed.items()},
        }


def inside(value, ranges):
    return any(low <= value <= high for low, high in ranges)


def direction(where):
    """where: source and destination address, then for TCP the two ports."""
    addresses, ports = where
    half = len(addresses) // 2
    ends = [str(ipaddress.ip_address(a)) for a in (addresses[:half], addresses[half:])]
    if ports:
        return "{} port {} > {} port {}".format(ends[0], u16(ports)[0], ends[1], u16(ports, 2)[0])
    return " > ".join(ends)


# Upper layers. A parser gets the beginning of a SEND message, at least as long
# as its table entry says, and returns [(field, address), ...] or nothing if
# the message is not its own.

def nvme(msg):
    # SQE: PSDT says SGL, nothing reserved set, SGL1 is a keyed data block
    if msg[1] & 0xfc != 0x40 or msg[39] not in (0x40, 0x4f):
        return ()
    return (("NVMe.keyed_sgl", le64(msg, 24)[0]),)


def iser(msg):
    # iSCSI control-type PDU; bits 2 and 3 say which steering tag is valid
    if msg[0] & 0xf3 != 0x10 or msg[1] or msg[2] or msg[3]:
        return ()
    return [(field, value) for field, valid, value in
            (("iSER.write_va", msg[0] & 8, be64(msg, 8)[0]),
             ("iSER.read_va", msg[0] & 4, be64(msg, 20)[0])) if valid or value]


def rtrs(msg):
    # the server's chunks, of which the first stands for all. A client that uses the
    # others shows their addresses.
    if u16(msg)[0] != 0x100 or not any(msg[2:4]) or any(msg[4:8]):
        return ()
    return (("RTRS.chunk", le64(msg, 8)[0]),)


ULPS = ((64, nvme), (28 + 48, iser), (24, rtrs))
ULP_HEAD = max(size for size, _ in ULPS)


def send_message(result, msg, length, where, packet):
    """msg: as much as was captured of a message's first `length` bytes, no more."""
    if len(msg) < min(length, ULP_HEAD):
        result.skipped("SEND header cut short in the capture",
                       min(length, ULP_HEAD) - len(msg))
    for size, parse in ULPS:
        if len(msg) >= size:
            for field, value in parse(msg):
                result.address(field, value, where, packet)


# RoCEv2: opcode -> (field name, offset of the address), both from the BTH on

def roce_tables():
    fields, sends = {}, {}
    # transport: length of BTH and of what stands before the op's own header
    for transport, base in ((0x00, 12), (0x20, 12), (0x40, 24), (0xa0, 16)):
        for op in (0x06, 0x0a, 0x0b, 0x0c, 0x1d):       # WRITE, READ, ATOMIC WRITE
            fields[transport | op] = ("RETH.va", base)
        fields[transport | 0x1c] = ("RETH.va", base + 4)    # FLUSH: FETH first
        for op in (0x13, 0x14):
            fields[transport | op] = ("AtomicETH.va", base)
        for op, extra in ((0x00, 0), (0x04, 0), (0x05, 4), (0x17, 4)):
            sends[transport | op] = base + extra            # FIRST, ONLY, +imm, +inv
    return fields, sends


ROCE_FIELDS, ROCE_SENDS = roce_tables()


def roce(result, bth, length, where, packet):
    """bth: what was captured of the UDP payload of `length` bytes."""
    result.roce_packets += 1
    try:
        opcode = bth[0]
        if opcode in ROCE_FIELDS:
            field, offset = ROCE_FIELDS[opcode]
            if offset + 8 <= length:
                result.address(field, be64(bth, offset)[0], where, packet)
            else:
                result.skipped("RoCE packet shorter than its headers", length)
        elif opcode in ROCE_SENDS:
            offset = ROCE_SENDS[opcode]
            size = length - offset - 4 - (bth[1] >> 4 & 3)     # ICRC, pad
            send_message(result, bth[offset:offset + max(size, 0)], size, where, packet)
    except SHORT:
        result.skipped("RoCE header cut short in the capture", length)


# iWARP: MPA request or reply, then FPDUs

MPA_KEYS = (b"MPA ID Req Frame", b"MPA ID Rep Frame")
FPDU_HEAD = max(48, 20 + ULP_HEAD)    # an RDMA READ request is 48 bytes long
MPA, FPDU, LOST, OTHER = range(4)


class Stream:
    """One direction of a TCP connection, put back into order.

    carry holds the beginning of a header that the next segment completes;
    skip is how much payload is still to come of a header already parsed.
    """

    def __init__(self, result, where, seq):
        self.result, self.where = result, where
        self.start = self.next = seq
        self.ahead = {}
        self.carry, self.skip, self.state = b"", 0, MPA
        self.reason, self.peer = None, None

    def distance(self, seq):
        return (seq - self.next + (1 << 31) & 0xffffffff) - (1 << 31)

    def segment(self, seq, data, length, packet):
        distance = self.distance(seq)
        if distance <= 0:
            self.deliver(seq, data, length, packet)
        else:
            held = self.ahead.get(seq)
            if not held or len(data) > len(held[0]):
                self.ahead[seq] = (data, length, packet)
            if distance > MAX_AHEAD:
                self.close_gap()

    def deliver(self, seq, data, length, packet):
        """Parse what is new in a segment, then what was waiting for it."""
        while True:
            old = -self.distance(seq)
            if old < length:
                self.take(data[old:], length - old, packet)
            if not self.ahead:
                return
            seq = self.next if self.next in self.ahead else min(self.ahead, key=self.distance)
            if self.distance(seq) > 0:
                return
            data, length, packet = self.ahead.pop(seq)

    def close_gap(self):
        """The first gap will not be filled any more: go on behind it."""
        seq = min(self.ahead, key=self.distance)
        held = self.ahead.pop(seq)
        self.hole(self.distance(seq), held[2])
        self.next = seq
        self.deliver(seq, *held)

    def finish(self):
        while self.ahead:
            self.close_gap()
        if self.carry:
            self.result.skipped("TCP stream ending inside a header", len(self.carry))

    def lose(self, reason, size=0):
        """Nothing can be parsed any more; `size` bytes so far could not be."""
        if self.state != LOST:
            self.state, self.reason = LOST, reason
            self.carry, self.skip = b"", 0
            self.result.skipped(reason, 0)
        self.result.unparsed[self.reason][1] += size

    def take(self, data, length, packet):
        self.next = (self.next + length) & 0xffffffff
        if self.state == LOST:
            self.lose(self.reason, length)
        elif self.state != OTHER:
            self.parse(data, packet)
            if length > len(data):
                self.hole(length - len(data), packet)

    def hole(self, missing, packet):
        """`missing` bytes are not in the capture: harmless inside payload."""
        if self.state == OTHER:
            return
        if self.state == FPDU and self.carry:
            size = self.unit(memoryview(self.carry), packet, cut=True)
            if size:
                self.skip, self.carry = size - len(self.carry), b""
        if missing <= self.skip:
            self.skip -= missing
        else:
            self.lose("iWARP or unknown TCP stream with a gap, from there on",
                      len(self.carry) + missing - self.skip)

    def parse(self, data, packet):
        if self.skip >= len(data):
            self.skip -= len(data)
            return
        if self.carry:
            data = memoryview(self.carry + bytes(data))
            self.carry = b""
        position, end = self.skip, len(data)
        self.skip = 0
        while position < end:
            size = self.unit(data[position:], packet)
            if self.state == LOST:
                self.lose(self.reason, end - position)
            if self.state in (LOST, OTHER):
                return
            if not size:
                self.carry = bytes(data[position:])
                return
            position += size
        self.skip = position - end

    def unit(self, data, packet, cut=False):
        """Length of the MPA frame or FPDU at the start of data; 0: more needed."""
        if self.state == MPA:
            return self.mpa(data)
        have = len(data)
        if have < 4:
            return 0
        length, control = struct.unpack_from(">HH", data)
        tagged, opcode = control & 0x8000, control & 0xf
        head = 16 if tagged else 48 if opcode == 1 else 20
        if control & 0x03c0 != 0x0140 or length + 2 < head:     # DDP and RDMAP version 1
            self.lose("iWARP stream without a valid FPDU, from there on")
            return 0
        if have < (head if cut else min(length + 2, FPDU_HEAD)):
            return 0
        if tagged:
            self.address("DDP.tagged TO", be64(data, 8)[0], packet)
        elif opcode == 1:
            self.address("RDMAP.read sink", be64(data, 24)[0], packet)
            self.address("RDMAP.read source", be64(data, 40)[0], packet)
        elif 3 <= opcode <= 6 and data[16:20] == b"\0\0\0\0":   # offset 0: a message begins
            send_message(self.result, data[20:length + 2], length - 18, self.where, packet)
        return (length + 5 & ~3) + 4      # padding; the CRC's place is there even if unused

    def mpa(self, data):
        key = bytes(data[:16])
        if not any(k.startswith(key) for k in MPA_KEYS):
            self.state = OTHER
            self.result.other_tcp_streams += 1
            return 0
        if len(data) < 20:
            return 0
        flags, private = struct.unpack_from(">HH", data, 16)
        self.result.iwarp_streams += 1
        self.state = FPDU
        if flags & 0x8000:
            for stream in (self, self.peer):
                if stream:
                    stream.lose("iWARP stream with MPA markers")
            return 0
        return 20 + private

    def address(self, field, value, packet):
        self.result.address(field, value, self.where, packet)


class Scan:
    def __init__(self, ranges, ram=()):
        self.result = Result(ranges, ram)
        self.streams = {}

    def packet(self, frame, wire, number):
        """frame: what was captured of the packet of `wire` bytes."""
        kind, at = u16(frame, 12)[0], 14
        while kind in (0x8100, 0x88a8):
            kind, at = u16(frame, at + 2)[0], at + 4
        if kind == 0x0800:
            total, protocol = u16(frame, at + 2)[0], frame[at + 9]
            fragment = u16(frame, at + 6)[0] & 0x1fff
            addresses = bytes(frame[at + 12:at + 20])
            end = at + total if total else wire
            at += (frame[at] & 15) * 4
        elif kind == 0x86dd:
            total, protocol = u16(frame, at + 4)[0], frame[at + 6]
            fragment = 0
            addresses = bytes(frame[at + 8:at + 40])
            end = at + 40 + total if total else wire
            at += 40
            while protocol in (0, 43, 44, 60):
                if protocol == 44:
                    fragment = u16(frame, at + 2)[0] >> 3
                size = 8 if protocol == 44 else frame[at + 1] * 8 + 8
                protocol, at = frame[at], at + size
        else:
            return
        if protocol not in (6, 17):
            return
        if fragment:
            self.result.skipped("IP fragments after the first", wire)
            return
        end = min(end, wire)
        if protocol == 17:
            if u16(frame, at + 2)[0] == ROCE_PORT:
                roce(self.result, frame[at + 8:end], end - at - 8, (addresses, b""), number)
            return
        ports, (seq,) = bytes(frame[at:at + 4]), struct.unpack_from(">I", frame, at + 4)
        flags, start = frame[at + 13], at + (frame[at + 12] >> 4) * 4
        self.tcp(addresses, ports, seq, flags, frame[start:end], end - start, number)

    def tcp(self, addresses, ports, seq, flags, data, length, number):
        key = addresses, ports
        stream = self.streams.get(key)
        if flags & 2:
            seq = (seq + 1) & 0xffffffff
            if not stream or stream.start != seq:
                stream = self.open(key, seq)
        if length <= 0:
            return
        if not stream:
            stream = self.open(key, seq)
            if bytes(data[:16]) not in MPA_KEYS:
                stream.lose("TCP stream whose start was not captured")
        stream.segment(seq, data, length, number)

    def open(self, key, seq):
        addresses, ports = key
        half = len(addresses) // 2
        if key in self.streams:
            self.streams[key].finish()
        stream = self.streams[key] = Stream(self.result, key, seq)
        peer = self.streams.get((addresses[half:] + addresses[:half], ports[2:] + ports[:2]))
        if peer:
            stream.peer, peer.peer = peer, stream
        return stream

    def capture(self, data):
        if len(data) < 24:
            raise CaptureError("not a capture: too short")
        magic = data[:4].hex()
        if magic == "0a0d0d0a":
            raise CaptureError("pcapng is not supported; tcpdump -w writes classic pcap")
        order = {"a1b2c3d4": ">", "a1b23c4d": ">", "d4c3b2a1": "<", "4d3cb2a1": "<"}.get(magic)
        if not order:
            raise CaptureError("not a pcap capture")
        snaplen, link = struct.unpack_from(order + "II", data, 16)
        if link & 0xffff != 1:
            raise CaptureError(f"link type {link & 0xffff}, not Ethernet")
        header = struct.Struct(order + "8xII").unpack_from
        biggest = max(snaplen, 1 << 18)
        result, view = self.result, memoryview(data)
        at, end = 24, len(data)
        while at < end:
            if at + 16 > end:
                result.skipped("last packet cut off", end - at)
                break
            size, wire = header(data, at)
            if size > biggest or size > wire:
                raise CaptureError(f"damaged after packet {result.packets}")
            at += 16
            if at + size > end:
                result.skipped("last packet cut off", wire)
                break
            result.packets += 1
            try:
                self.packet(view[at:at + size], wire, result.packets)
            except SHORT:
                result.skipped("packet cut short in its headers", wire)
            at += size
        for stream in self.streams.values():
            stream.finish()
        return result


def scan(source, ranges=(), ram=()):
    """Scan a capture (a path or a file open for reading bytes) into a Result.

    ranges: (first, last) pairs of kernel addresses outside the upper half;
    ram: such pairs of physical addresses.
    """
    if hasattr(source, "read"):
        return Scan(ranges, ram).capture(source.read())
    with open(source, "rb") as file:
        return Scan(ranges, ram).capture(file.read())


def address_range(text):
    try:
        low, high = (int(part, 16) for part in text.split("-"))
    except ValueError:
        low, high = 1, 0
    if low > high:
        raise argparse.ArgumentTypeError(f"not START-END in hex: {text}")
    return low, high


def report(result):
    print(f"{'field':20} {'seen':>10} {'kernel':>10} {'physical':>10}")
    for field in sorted(result.seen):
        print(f"{field:20} {result.seen[field]:10} {result.kernel[field]:10} "
              f"{result.physical[field]:10}")
    print(f"{result.packets} packets ({result.roce_packets} RoCE), "
          f"{result.iwarp_streams} iWARP streams, {result.other_tcp_streams} other TCP streams")
    for reason, (times, size) in result.unparsed.items():
        print(f"not parsed: {reason}: {times} times, {size} bytes")
    for example in result.examples:
        print("packet {packet}, {direction}: {field} {address}".format(**example))
    print(f"kernel virtual addresses: {result.kernel_total}")
    if result.ram:
        print(f"physical addresses: {result.physical_total}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture")
    parser.add_argument("--range", "--linear-map", dest="ranges", type=address_range,
                        action="append", default=[], metavar="START-END",
                        help="kernel addresses outside the upper half, hex; can be repeated")
    parser.add_argument("--ram", type=address_range, action="append", default=[],
                        metavar="START-END",
                        help="physical addresses of buffers, hex; can be repeated")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--strict", action="store_true")
    args = parser.parse_args()
    try:
        result = scan(args.capture, args.ranges, args.ram)
    except (OSError, CaptureError) as error:
        text = error.strerror if isinstance(error, OSError) else error
        print(f"harness: {args.capture}: {text}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(result.as_dict(), indent=1))
    else:
        report(result)
    if result.kernel_total or result.physical_total:
        return 1
    if not result.fields_total:
        print(f"harness: {args.capture}: no RDMA address field seen, this proves nothing",
              file=sys.stderr)
        return 2
    if args.strict and result.unparsed:
        print(f"harness: {args.capture}: part of the traffic was not parsed", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
