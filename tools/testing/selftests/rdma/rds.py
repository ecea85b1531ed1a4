#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What rds.sh does with RDS sockets: rds.py COMMAND [ARG...]

Both ends are sockets of this process. What one sends the other has to receive,
in order, once and unharmed, and what is written to or read from the memory of
one by RDMA is compared. The exit status is 0 if so, and 4 if the kernel or the
device cannot do what is asked; the reason is the last line.
"""
import collections
import ctypes
import errno
import mmap
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib

ADDRESSES = ("10.9.0.1", "10.9.1.1")
PORT = 4000
SOL_RDS = 276
RDS_CANCEL_SENT_TO, RDS_GET_MR, RDS_FREE_MR, SO_RDS_TRANSPORT = 1, 2, 3, 8
RDS_TRANS_IB = 0
CMSG_RDMA_ARGS, CMSG_RDMA_DEST, CMSG_RDMA_MAP, CMSG_RDMA_STATUS = 1, 2, 3, 4
CMSG_FADD, CMSG_CSWP, CMSG_MASKED_FADD, CMSG_MASKED_CSWP = 6, 7, 8, 9
READWRITE, FENCE, INVALIDATE, USE_ONCE, NOTIFY_ME, SILENT = 1, 2, 4, 8, 0x20, 0x40
SUCCESS, REMOTE_ERROR, CANCELED, DROPPED, OTHER_ERROR = 0, 1, 2, 3, 4
RDS_INFO_COUNTERS, RDS_INFO_CONNECTIONS = 10000, 10001
RDS_INFO_SEND_MESSAGES, RDS_INFO_RETRANS_MESSAGES, RDS_INFO_RECV_MESSAGES = 10003, 10004, 10005
CONNECTING, CONNECTED = 2, 4
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33

# Seconds without progress. Who waits for the answer to a message of the CM sends it again
# after 4 s, 15 times before giving up, and takes no other connection until then.
PATIENCE = 180

PAGE = mmap.PAGESIZE
MIB = 1 << 20
POOL = random.randbytes(3 * MIB)
KSFT_SKIP = 4


class Failure(Exception):
    pass


class Skip(Exception):
    pass


def expect(truth, what):
    if not truth:
        raise Failure(what)


class Faults:
    """Inside of it, allocations of the kernel may fail, as set up by rds.sh."""

    file = None

    def on(self):
        self.file = open("/proc/self/make-it-fail", "wb", buffering=0)

    def off(self):
        self.file = None

    def __enter__(self):
        if self.file:
            self.file.write(b"1")

    def __exit__(self, *_):
        if self.file:
            self.file.write(b"0")


FAULTS = Faults()
# try again: no room, congested, no connection yet; or out of memory, by fault injection
BUSY = errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM


def some_bytes(size):
    start = random.randrange(len(POOL) - size + 1)
    return POOL[start:start + size]


class Memory:
    """Bytes at an address with a given offset in its page, with pages to spare around."""

    def __init__(self, size, offset=0):
        self.map = mmap.mmap(-1, (offset + size + PAGE - 1) // PAGE * PAGE + 2 * PAGE)
        self.map[:] = b"\xa5" * len(self.map)
        self.start, self.size = PAGE + offset, size
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.map)) + self.start

    def get(self):
        return self.map[self.start:self.start + self.size]

    def put(self, data):
        self.map[self.start:self.start + self.size] = data

    def u64(self):
        return struct.unpack("=Q", self.get()[:8])[0]

    def around(self):
        """Nothing else than these bytes may change."""
        rest = self.map[:self.start] + self.map[self.start + self.size:]
        return rest.count(0xa5) == len(rest)


class End:
    """A socket on one of the two devices."""

    def __init__(self, which, port=PORT, rcvbuf=8 * MIB):
        self.sock = socket.socket(socket.AF_RDS, socket.SOCK_SEQPACKET)
        self.name = ADDRESSES[which], port
        # never by TCP, nor by the loopback of RDS
        self.sock.setsockopt(SOL_RDS, SO_RDS_TRANSPORT, RDS_TRANS_IB)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 8 * MIB)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, rcvbuf)
        try:
            self.sock.bind(self.name)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            raise Skip(f"RDS has no device for {self.name[0]}") from None
        self.sock.setblocking(False)
        self.peer = None
        self.token = 0
        self.statuses = {}
        self.sent = collections.deque()     # what the peer has still to receive
        self.bytes = 0

    def close(self):
        self.sock.close()

    def introduce(self):
        """Have the kernel know of the connection to the peer, but not set it up yet."""
        try:
            self.sock.sendmsg([b"x"], [(SOL_RDS, CMSG_RDMA_DEST, struct.pack("=Q", 1))], 0,
                              self.peer.name)
        except OSError as error:
            expect(error.errno == errno.EINVAL, f"a cookie of nothing: {error}")
        else:
            raise Failure("a cookie of nothing was sent")

    def wait(self, what, timeout):
        poll = select.poll()
        poll.register(self.sock, what)
        return poll.poll(max(timeout, 0) * 1000)

    def send(self, data, *cmsgs):
        """With cmsgs as (type, data). Waits if there is no room, or no connection yet."""
        end = time.monotonic() + PATIENCE
        ancillary = [(SOL_RDS, kind, value) for kind, value in cmsgs]
        while True:
            try:
                with FAULTS:
                    self.sock.sendmsg([data], ancillary, 0, self.peer.name)
                break
            except OSError as error:
                if error.errno not in BUSY or time.monotonic() > end:
                    raise
            self.wait(select.POLLOUT, 0.1)
            time.sleep(0.01)
        if data:
            self.sent.append((len(data), zlib.crc32(data)))
        self.bytes += len(data)

    def try_send(self, data):
        try:
            with FAULTS:
                self.sock.sendto(data, self.peer.name)
        except OSError as error:
            if error.errno in BUSY:
                return False
            raise
        self.sent.append((len(data), zlib.crc32(data)))
        self.bytes += len(data)
        return True

    def try_receive(self):
        """(data, {type: cmsg}), or None. Notes the status of what has been completed."""
        try:
            data, ancillary, _, name = self.sock.recvmsg(MIB, 1024)
        except BlockingIOError:
            return None
        cmsgs = {}
        for level, kind, value in ancillary:
            if level == SOL_RDS and kind == CMSG_RDMA_STATUS:
                token, status = struct.unpack_from("=Qi", value)
                self.statuses[token] = status
            else:
                cmsgs[kind] = value
        if not data:
            return b"", cmsgs
        expect(name == self.peer.name, f"a message from {name}")
        expect(self.peer.sent, f"{len(data)} bytes that nobody sent")
        want = self.peer.sent.popleft()
        got = len(data), zlib.crc32(data)
        expect(got == want, f"received {got[0]} bytes, checksum {got[1]:#x}; "
                            f"sent {want[0]} bytes, checksum {want[1]:#x}")
        return data, cmsgs

    def receive(self):
        """The next message."""
        end = time.monotonic() + PATIENCE
        while True:
            got = self.try_receive()
            if got and got[0]:
                return got
            if not got:
                expect(self.wait(select.POLLIN, end - time.monotonic()),
                       f"{self.name[0]} receives nothing")

    def status(self, token):
        """How the operation with that token ended."""
        end = time.monotonic() + PATIENCE
        while token not in self.statuses:
            if not self.try_receive():
                expect(self.wait(select.POLLIN, end - time.monotonic()), "no notification")
        return self.statuses.pop(token)

    # memory for the peer

    def map(self, memory, flags=0, data=b"map"):
        """Send a message that maps memory; the cookie as the peer has received it."""
        cookie = ctypes.c_uint64()
        self.send(data, (CMSG_RDMA_MAP, struct.pack("=4Q", memory.address, memory.size,
                                                    ctypes.addressof(cookie), flags)))
        while True:
            cmsgs = self.peer.receive()[1]
            if CMSG_RDMA_DEST in cmsgs:
                break
        got, = struct.unpack("=Q", cmsgs[CMSG_RDMA_DEST])
        expect(got == cookie.value, f"cookie {cookie.value:#x} arrived as {got:#x}")
        return got

    def free(self, cookie, flags=0):
        self.sock.setsockopt(SOL_RDS, RDS_FREE_MR, struct.pack("=2Q", cookie, flags))

    def flush(self):
        self.free(0)

    def rdma(self, cookie, local, flags, offset=0, data=b"rdma", fence=FENCE):
        """Post an RDMA READ, or WRITE with READWRITE, of a list of Memory; a token.

        Without a fence the message can overtake the data of a READ, so that the peer
        may free an MR that is used once too early.
        """
        self.token += 1
        iovecs = b"".join(struct.pack("=2Q", part.address, part.size) for part in local)
        vector = ctypes.create_string_buffer(iovecs)
        size = sum(part.size for part in local)
        self.send(data, (CMSG_RDMA_ARGS, struct.pack(
            "=7Q", cookie, offset, size, ctypes.addressof(vector), len(local),
            flags | fence | NOTIFY_ME, self.token)))
        return self.token

    def atomic(self, kind, cookie, local, *operands, offset=0, data=b""):
        """Post an atomic, without a message if there is no data; a token."""
        self.token += 1
        operands += (0,) * (4 - len(operands))
        flags = NOTIFY_ME if data else NOTIFY_ME | SILENT
        self.send(data, (kind, struct.pack("=9Q", cookie, local.address, offset, *operands,
                                           flags, self.token)))
        return self.token


def pair(**options):
    ends = End(0, **options), End(1, **options)
    ends[0].peer, ends[1].peer = ends[1], ends[0]
    return ends


def ping(ends):
    """Both directions work; one after the other, so that only one end connects."""
    for end in ends:
        end.send(b"ping")
        while end.sent:
            end.peer.receive()


def drain(ends):
    """Receive all that has been sent, as long as some of it arrives."""
    poll = select.poll()
    for end in ends:
        poll.register(end.sock, select.POLLIN)
    left, deadline = None, 0
    while any(end.sent for end in ends):
        if left != [len(end.sent) for end in ends]:
            left = [len(end.sent) for end in ends]
            deadline = time.monotonic() + PATIENCE
        expect(time.monotonic() < deadline, f"{left} messages do not arrive")
        poll.poll(100)
        for end in ends:
            while end.try_receive():
                pass


def wait_for(what, condition):
    """Until condition() is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        expect(time.monotonic() < deadline, f"no {what}")
        time.sleep(0.01)


def wire_bytes(netdev):
    with open(f"/sys/class/net/{netdev}/statistics/tx_bytes", encoding="ascii") as file:
        return int(file.read())


def info(what, layout):
    """What the kernel knows, by one of RDS_INFO_*."""
    size = ctypes.c_uint32(65536)
    buffer = ctypes.create_string_buffer(size.value)
    with socket.socket(socket.AF_RDS, socket.SOCK_SEQPACKET) as sock:
        each = ctypes.CDLL(None, use_errno=True).getsockopt(
            sock.fileno(), SOL_RDS, what, buffer, ctypes.byref(size))
    expect(each == struct.calcsize(layout), f"RDS_INFO {what}: size {each}, "
                                            f"{os.strerror(ctypes.get_errno())}")
    return struct.iter_unpack(layout, buffer.raw[:size.value])


def counters():
    """The kernel's statistics of RDS."""
    return {name.rstrip(b"\0").decode(): value
            for name, value in info(RDS_INFO_COUNTERS, "=32sQ")}


def connections():
    """{(local, remote): its state}"""
    states = {0: "down", CONNECTING: "connecting", CONNECTED: "up"}
    return {(socket.inet_ntoa(local), socket.inet_ntoa(remote)):
            states[flags & (CONNECTING | CONNECTED)]
            for _, _, local, remote, trans, flags, _ in
            info(RDS_INFO_CONNECTIONS, "=QQ4s4s16sBB") if trans.startswith(b"infiniband")}


def messages(what):
    """Those of one of the kernel's queues: (number, length, two addresses and ports, ...)"""
    return list(info(what, "=QI4s4sHHBB"))


def state():
    """What a test that stalls says: connections, and the messages of each queue."""
    queues = (("to send", RDS_INFO_SEND_MESSAGES), ("sent", RDS_INFO_RETRANS_MESSAGES),
              ("received", RDS_INFO_RECV_MESSAGES))
    try:
        return (", ".join(f"{a}->{b} {now}" for (a, b), now in connections().items()) or
                "no connections") + "".join(
                    f"; {len(messages(what))} {name}" for name, what in queues)
    except (Failure, OSError) as error:
        return f"nothing by rds_info: {error}"


def pinned():
    """Pages that RDS has pinned; nobody else pins some for long."""
    with open("/proc/vmstat", encoding="ascii") as file:
        count = dict(line.split() for line in file)
    return int(count["nr_foll_pin_acquired"]) - int(count["nr_foll_pin_released"])


def acknowledged(ends):
    """All that has been sent so far, for which more has to be sent the other way."""
    def waiting():
        return {message[:5] for message in messages(RDS_INFO_RETRANS_MESSAGES)}
    before = waiting()
    deadline = time.monotonic() + PATIENCE
    while before & waiting():
        expect(time.monotonic() < deadline, "no acknowledgment")
        ping(ends)


# commands

def c_ping():
    ping(pair())


def c_flush():
    """Unmap the MRs that nobody uses any more."""
    End(0).flush()


def c_up():
    """Both ends are connected."""
    wait_for("connection", lambda: list(connections().values()) == ["up", "up"])


def c_messages(times="8"):
    """Messages of many sizes, both ways, as many under way as there is room for."""
    ends = pair()
    ping(ends)
    for size in (1, 7, 8, 64, 1000, 4047, 4048, 4049, 4095, 4096, 4097, 8192, 10000, 65535,
                 65536, 65537, 300000, MIB - 1, MIB):
        todo = {end: int(times) * (8 if size < 65536 else 1) for end in ends}
        while any(todo.values()):
            for end in ends:
                while todo[end] and end.try_send(some_bytes(size)):
                    todo[end] -= 1
            for end in ends:
                while end.try_receive():
                    pass
        drain(ends)
    print(f"bytes={ends[0].bytes + ends[1].bytes}")


def c_stream(size, times):
    """Messages of one size, one way."""
    ends = pair()
    for _ in range(int(times)):
        ends[0].send(some_bytes(int(size)))
        ends[1].receive()


def rdma_once(initiator, remote, local, flags, mr_flags=USE_ONCE):
    """One READ or WRITE between remote, mapped by the peer, and a list of local Memory."""
    target = initiator.peer
    if flags & READWRITE:
        for part in local:
            part.put(some_bytes(part.size))
    else:
        remote.put(some_bytes(remote.size))
    cookie = target.map(remote, mr_flags)
    status = initiator.status(initiator.rdma(cookie, local, flags))
    expect(status == SUCCESS, f"status {status}")
    target.receive()
    here, there = b"".join(part.get() for part in local), remote.get()
    if here != there:
        wrong = [i for i in range(len(here)) if here[i] != there[i]]
        raise Failure(f"{len(wrong)} of {len(here)} bytes are wrong, from {wrong[0]} "
                      f"to {wrong[-1]}")
    expect(remote.around() and all(part.around() for part in local), "memory around it changed")
    return cookie


def c_load(*options):
    """Messages of all sizes until SIGTERM, then all of them have to have arrived.

    With "rdma" also RDMA, "faults" for allocations that fail.
    """
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    ends = pair()
    ping(ends)
    if "faults" in options:
        FAULTS.on()
    print("ready", flush=True)
    poll = select.poll()
    for end in ends:
        poll.register(end.sock, select.POLLIN)
    messages = operations = 0
    while not stop or messages <= 20:
        for end in ends:
            # many under way, but not so many that one sees the queue only
            while len(end.sent) < 30 and end.try_send(
                    some_bytes(int(random.uniform(1, 450) ** 2))):
                messages += 1
        if "rdma" in options:
            size = int(random.uniform(1, 450) ** 2)
            rdma_once(random.choice(ends), Memory(size, random.randrange(PAGE)),
                      [Memory(size, random.randrange(PAGE))], random.choice((0, READWRITE)))
            operations += 1
        poll.poll(10)
        for end in ends:
            while end.try_receive():
                pass
    FAULTS.off()
    drain(ends)
    ping(ends)
    print(f"{messages} messages, {ends[0].bytes + ends[1].bytes} bytes, {operations} RDMA")


def c_rdma(direction):
    """RDMA of many sizes and alignments, by cookies of RDS_CMSG_RDMA_MAP."""
    flags = READWRITE if direction == "write" else 0
    ends = pair()
    ping(ends)
    total = 0
    for initiator in ends:
        for size, remote, local in (
                (1, 0, [(0, 1)]), (8, 16, [(8, 8)]), (PAGE, 0, [(0, PAGE)]),
                (PAGE, 1, [(PAGE - 1, PAGE)]), (PAGE + 1, PAGE - 1, [(3, PAGE + 1)]),
                (3 * PAGE, 100, [(200, 3 * PAGE)]), (64 << 10, 0, [(0, 64 << 10)]),
                (100001, 77, [(4000, 100001)]),
                # as many local pieces as fit, and do not fit, into a work request
                (8 * 100, 5, [(7, 100)] * 8), (9 * 100, 5, [(7, 100)] * 9),
                (50 * 1000, 5, [(3500, 1000)] * 50),
                (MIB - PAGE, 0, [(0, MIB - PAGE)]), (MIB, 0, [(0, MIB)]),
                (MIB, 1, [(PAGE - 1, MIB)])):
            parts = [Memory(length, offset) for offset, length in local]
            rdma_once(initiator, Memory(size, remote), parts, flags)
            total += size
    print(f"bytes={total}")


def c_mr():
    """How long a cookie is good for."""
    ends = pair()
    ping(ends)
    target, initiator = ends
    remote, local = Memory(10000, 50), [Memory(10000, 70)]

    # used once, it is gone
    cookie = rdma_once(initiator, remote, local, READWRITE, USE_ONCE)
    time.sleep(0.1)
    try:
        target.free(cookie)
        raise Failure("an MR with RDS_RDMA_USE_ONCE is still there")
    except OSError as error:
        expect(error.errno == errno.EINVAL, f"RDS_FREE_MR: {error}")
    rdma_once(initiator, remote, local, 0, USE_ONCE | INVALIDATE)

    # else it can be used again, also at an offset, until it is freed
    cookie = rdma_once(initiator, remote, local, READWRITE, 0)
    for _ in range(3):
        local[0].put(some_bytes(10000))
        status = initiator.status(initiator.rdma(cookie, local, READWRITE))
        expect(status == SUCCESS and remote.get() == local[0].get(), "no second RDMA WRITE")
        target.receive()
    part = [Memory(1000, 9)]
    status = initiator.status(initiator.rdma(cookie, part, 0, offset=4321, fence=0))
    expect(status == SUCCESS and part[0].get() == remote.get()[4321:5321],
           "no RDMA READ at an offset")
    target.receive()

    # the owner can tell the peer of it again
    target.send(b"again", (CMSG_RDMA_DEST, struct.pack("=Q", cookie)))
    again = initiator.receive()[1].get(CMSG_RDMA_DEST)
    expect(again == struct.pack("=Q", cookie), "no cookie by RDS_CMSG_RDMA_DEST")
    target.free(cookie, INVALIDATE)
    # a message that told of it keeps it, until something else carries an acknowledgment
    wait_for("end of the MR", lambda: ping(ends) or target.flush() or not pinned())

    # not after that
    before = remote.get()
    local[0].put(some_bytes(10000))
    status = initiator.status(initiator.rdma(cookie, local, READWRITE))
    expect(status != SUCCESS, "RDMA WRITE by a cookie that was freed")
    expect(remote.get() == before, "freed memory changed")
    for end in ends:
        end.sent.clear()


def c_bounds():
    """No RDMA beyond the end of an MR; the connection is set up again."""
    ends = pair()
    ping(ends)
    target, initiator = ends
    remote = Memory(PAGE)
    cookie = target.map(remote)
    acknowledged(ends)
    token = initiator.rdma(cookie, [Memory(64)], READWRITE, offset=PAGE - 32)
    wait_for("end of the connection", lambda: "up" not in connections().values())
    # a connection does not go down before its MRs are gone
    target.free(cookie, INVALIDATE)
    status = initiator.status(token)
    # the target may be the first to hang up
    expect(status in (REMOTE_ERROR, DROPPED), f"status {status} beyond the end of the MR")
    expect(remote.around(), "memory beyond the MR changed")
    for end in ends:
        end.sent.clear()
    ping(ends)


def c_get_mr():
    """RDS_GET_MR knows no connection, which a fast registration needs."""
    ends = pair()
    ping(ends)
    memory, cookie = Memory(PAGE), ctypes.c_uint64()
    try:
        ends[0].sock.setsockopt(SOL_RDS, RDS_GET_MR, struct.pack(
            "=4Q", memory.address, memory.size, ctypes.addressof(cookie), 0))
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise Skip("the kernel has no RDS_GET_MR for fast registration") from None
        raise
    memory.put(some_bytes(PAGE))
    local = [Memory(PAGE)]
    expect(ends[1].status(ends[1].rdma(cookie.value, local, 0)) == SUCCESS and
           local[0].get() == memory.get(), "no RDMA READ by RDS_GET_MR")


def atomic(initiator, kind, old, new, *operands, data=b""):
    """One of memory that is mapped for it alone.

    A device need not see what is written after memory was mapped, nor the CPU what the
    device writes before it is unmapped.
    """
    remote, local = Memory(8, 128), Memory(8)
    remote.put(struct.pack("=Q", old))
    cookie = initiator.peer.map(remote)
    status = initiator.status(initiator.atomic(kind, cookie, local, *operands, data=data))
    if data:
        initiator.peer.receive()
    # the message with the cookie has a reference to the MR
    acknowledged((initiator, initiator.peer))
    initiator.peer.free(cookie, INVALIDATE)
    expect(status == SUCCESS, f"status {status}")
    expect(local.u64() == old, f"returned {local.u64():#x}, not {old:#x}")
    expect(remote.u64() == new, f"made {remote.u64():#x} of {old:#x}, not {new:#x}")


def c_atomics():
    big = 0xfedcba9876543210
    ends = pair()
    ping(ends)
    for initiator in ends:
        atomic(initiator, CMSG_FADD, 41, 42, 1)
        atomic(initiator, CMSG_FADD, big, 0, (1 << 64) - big)
        atomic(initiator, CMSG_CSWP, big, 77, big, 77)
        atomic(initiator, CMSG_CSWP, 5, 5, 6, 7)
        # the notification is not lost if the message is acknowledged first
        for n in range(10):
            atomic(initiator, CMSG_FADD, n, n + 1, 1, data=b"atomic")


def c_refused_atomics():
    """An atomic that the device refuses fails, and does not stop what comes after it."""
    ends = pair()
    ping(ends)
    for initiator in ends:
        remote = Memory(16, 128)
        cookie = initiator.peer.map(remote)
        status = initiator.status(initiator.atomic(CMSG_FADD, cookie, Memory(8), 1, offset=4))
        expect(status == OTHER_ERROR, f"status {status} of an atomic that is not aligned")
        ping(ends)
        expect("up" in connections().values(), "the connection is lost")
        initiator.peer.free(cookie, INVALIDATE)


def c_masked_atomics(kind):
    everything = (1 << 64) - 1
    ends = pair()
    if kind == "rxe":
        # which device it will be is not known before there is a connection
        status = ends[1].status(ends[1].atomic(CMSG_MASKED_FADD, 0, Memory(8), 1, 1))
        expect(status == OTHER_ERROR, f"status {status} of a masked atomic on rxe")
    ping(ends)
    # a mask that does nothing is none
    atomic(ends[1], CMSG_MASKED_FADD, 41, 42, 1, 0)
    atomic(ends[1], CMSG_MASKED_CSWP, 5, 9, 5, 9, everything, everything)
    if kind == "rxe":
        cookie = ends[0].map(Memory(8))
        try:
            ends[1].atomic(CMSG_MASKED_FADD, cookie, Memory(8), 1, 1)
        except OSError as error:
            expect(error.errno == errno.EOPNOTSUPP, f"a masked atomic on rxe: {error}")
        else:
            raise Failure("a masked atomic was sent by rxe, which has none")
        ends[0].free(cookie, INVALIDATE)
    else:
        # bits 0-31 and 32-63 are two numbers; then only the lower half is compared, and
        # swapped
        atomic(ends[1], CMSG_MASKED_FADD, 0x1ffffffff, 0x200000000, 0x100000001, 1 << 31)
        atomic(ends[1], CMSG_MASKED_CSWP, 0x100000005, 0x100000009,
               5, 9, 0xffffffff, 0xffffffff)


def c_pool(size):
    """More MRs than there are: an error, and all is well when they are freed."""
    ends = pair()
    ping(ends)
    for _ in range(2):
        memory, cookies = [], []
        while len(cookies) <= 2 * int(size):
            part = Memory(100)
            cookie = ctypes.c_uint64()
            try:
                ends[0].sock.sendmsg([b"mr"], [(SOL_RDS, CMSG_RDMA_MAP, struct.pack(
                    "=4Q", part.address, part.size, ctypes.addressof(cookie), 0))],
                    0, ends[1].name)
            except BlockingIOError:
                break
            ends[0].sent.append((2, zlib.crc32(b"mr")))
            memory.append(part)
            cookies.append(cookie.value)
        print(f"{len(cookies)} MRs", flush=True)
        expect(len(cookies) == int(size), f"{len(cookies)} MRs out of a pool of {size}")
        drain(ends)
        for part, cookie in zip(memory, cookies):
            local = [Memory(100)]
            part.put(some_bytes(100))
            expect(ends[1].status(ends[1].rdma(cookie, local, 0)) == SUCCESS and
                   local[0].get() == part.get(), "RDMA READ of one of many MRs")
        for cookie in cookies:
            ends[0].free(cookie)
        ends[0].flush()
        drain(ends)


def c_cancel():
    """What the sender takes back while nothing gets through."""
    target, sender = ends = pair()
    ping(ends)
    remote, local = Memory(100000), [Memory(100000, 11)]
    cookie = target.map(remote)
    acknowledged(ends)
    subprocess.run("tc qdisc add dev d1 root netem loss 100%".split(), check=True)
    try:
        token = sender.rdma(cookie, local, READWRITE)
        for _ in range(20):
            sender.try_send(some_bytes(30000))
        sender.sock.setsockopt(SOL_RDS, RDS_CANCEL_SENT_TO, struct.pack(
            "=HH4s8x", socket.AF_INET, socket.htons(PORT), socket.inet_aton(ADDRESSES[0])))
    finally:
        subprocess.run("tc qdisc del dev d1 root".split(), check=True)
    status = sender.status(token)
    expect(status == CANCELED, f"status {status}")
    target.free(cookie, INVALIDATE)
    # the first ones may have got as far as the wire
    sender.sent.clear()
    sender.send(b"after")
    for count in range(100):
        expect(target.wait(select.POLLIN, PATIENCE), "nothing after that arrives")
        try:
            if target.sock.recv(MIB) == b"after":
                break
        except BlockingIOError:
            pass
    print(f"{count} of 20 messages arrive all the same")
    sender.sent.clear()
    ping(ends)


def c_congestion(kind):
    """A receiver that does not read stops the sender, and lets it go on.

    Its congestion map crosses the wire only if it does not know that the peer is on
    the same host, so there is no device for the peer when it first hears of it.
    """
    sender, receiver = ends = End(0), End(1, rcvbuf=64 << 10)
    sender.peer, receiver.peer = receiver, sender
    sender.introduce()
    subprocess.run(["rdma", "link", "delete", "r0"], check=True)
    receiver.introduce()
    subprocess.run(["rdma", "link", "add", "r0", "type", kind, "netdev", "d0"], check=True)
    ping(ends)
    other = End(1, PORT + 1)

    def count_of(what):
        return counters()[what]

    rounds, before, wire = 10, count_of("cong_update_queued"), wire_bytes("d1")
    for _ in range(rounds):
        maps = count_of("cong_update_received")
        for count in range(1000):
            got = count_of("recv_queued")
            if not sender.try_send(some_bytes(4000)):
                break
            wait_for("message", lambda: count_of("recv_queued") > got)
        expect(10 < count < 100, f"congested after {count} messages")
        # the map is under way, and the next one is another one
        wait_for("congestion map", lambda: count_of("cong_update_received") > maps)
        # the port next to it is not
        sender.peer, other.peer = other, sender
        sender.sent, sent = collections.deque(), sender.sent
        sender.send(b"other")
        other.receive()
        sender.peer, sender.sent = receiver, sent
        maps = count_of("cong_update_received")
        drain(ends)
        wait_for("congestion map", lambda: count_of("cong_update_received") > maps)
        ping(ends)
    queued, wire = count_of("cong_update_queued"), wire_bytes("d1") - wire
    queued -= before
    print(f"{queued} updates, {wire} bytes")
    expect(queued >= 2 * rounds, f"{queued} updates of the congestion map")
    expect(wire > 2 * rounds * 8192, f"{wire} bytes on the wire, too few for {queued} maps")


def main():
    commands = {name[2:]: value for name, value in globals().items() if name.startswith("c_")}
    try:
        commands[sys.argv[1]](*sys.argv[2:])
    except Skip as reason:
        print(reason)
        return KSFT_SKIP
    except (Failure, OSError) as error:
        print(f"{sys.argv[1]}: {error}; {state()}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
