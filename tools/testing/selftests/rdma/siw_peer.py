#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A hostile peer of siw, for siw_peer.sh: siw_peer.py CASE|--list

siw ends in a TCP socket of the kernel, so its peer can be any TCP socket. One
end is a QP that this process connects by rdma_cm, with pyverbs, the other one a
socket that says what no adapter would: in the MPA handshake, in the headers of
DDP and RDMAP, or by closing at the wrong moment. siw has to refuse it, to tell
its user, and to go on. The exit status is 0 if so, and 4 if there is no pyverbs;
the reason is the last line. A kernel with the bug that a case is about may not
survive it.
"""
import contextlib
import os
import signal
import socket
import struct
import sys
import time
import traceback

try:
    import pyverbs.cm_enums as ce
    import pyverbs.enums as e
    from pyverbs.cmid import CMID, AddrInfo, CMEvent, CMEventChannel, ConnParam
    from pyverbs.cq import CQ
    from pyverbs.mr import MR
    from pyverbs.pyverbs_error import PyverbsRDMAError
    from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
    from pyverbs.wr import SGE, RecvWR, SendWR
except ImportError:
    print("no pyverbs")
    sys.exit(4)

# the QP's, the socket's
OURS, PEERS, PORT = "10.9.0.1", "10.9.1.1", 7480
PATIENCE = 60
SIZE = 1 << 16
ROUNDS = 50

REQUEST, REPLY = b"MPA ID Req Frame", b"MPA ID Rep Frame"
REJECT, ENHANCED, REVISION = 0x2000, 0x1000, 2
P2P, WRITE_RTR = 0x8000, 0x8000
IRD_ORD = struct.pack(">HH", 4, 4)
WRITE, READ, RESPONSE, SEND, TERMINATE = 0, 1, 2, 3, 7
QN_SEND, QN_READ, QN_TERMINATE = 0, 1, 2
ACCESS = e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ


class Failure(Exception):
    pass


def expect(truth, what):
    if not truth:
        raise Failure(what)


# --- what is on the wire ---

def mpa(key, flags, data, length=None):
    """A request or a reply; LENGTH is what it says of DATA."""
    return struct.pack(">16sHH", key, flags, len(data) if length is None else length) + data


def fpdu(ddp, length=None):
    """Without markers and CRC, which siw does not ask for."""
    frame = struct.pack(">H", len(ddp) if length is None else length) + ddp
    return frame + bytes(-len(frame) % 4 + 4)


def control(opcode, tagged, last, ddp=1, rdmap=1):
    return tagged << 15 | last << 14 | ddp << 8 | rdmap << 6 | opcode


def tagged(opcode, stag, offset, data=b"", last=True, **version):
    return fpdu(struct.pack(">HIQ", control(opcode, 1, last, **version), stag, offset) + data)


def untagged(opcode, queue, number, data=b"", offset=0, last=True, **version):
    return fpdu(struct.pack(">HIIII", control(opcode, 0, last, **version), 0, queue, number,
                            offset) + data)


def read_request(number, sink, size, source):
    return untagged(READ, QN_READ, number, struct.pack(">IQIIQ", *sink, size, *source))


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def exactly(sock, size):
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        expect(more, "siw closes the connection")
        data += more
    return data


def receive_mpa(sock):
    """(flags, private data)"""
    _, flags, length = struct.unpack(">16sHH", exactly(sock, 20))
    return flags, exactly(sock, length)


def receive_fpdu(sock):
    length, = struct.unpack(">H", exactly(sock, 2))
    ddp = exactly(sock, length)
    exactly(sock, -(length + 2) % 4 + 4)
    return ddp


def ended(sock):
    """siw has closed its end, or will soon."""
    sock.settimeout(PATIENCE)
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError as error:
        raise Failure("siw does not close the connection") from error


# --- the user of siw ---

class Event:
    def __init__(self, channel, *wanted):
        event = CMEvent(channel)
        self.type = event.event_type
        self.name = event.event_str()
        self.data = bytes(event.private_data or b"")
        self.event = event
        if self.type != ce.RDMA_CM_EVENT_CONNECT_REQUEST:
            event.ack_cm_event()
        expect(not wanted or self.type in wanted, f"event {self.name}")


class User:
    """An rdma_cm ID and a QP."""
    def own(self, cmid, channel, qp=None):
        self.cmid, self.channel = cmid, channel
        if qp:
            self.qp = qp
            return
        self.cq = CQ(cmid.context, 64, None, None, 0)
        cap = QPCap(max_send_wr=16, max_recv_wr=16, max_send_sge=2, max_recv_sge=2)
        self.qp = QP(cmid.pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=self.cq, rcq=self.cq, cap=cap,
                                         sq_sig_all=1), QPAttr())
        self.move(e.IBV_QPS_INIT)
        self.mr = MR(cmid.pd, SIZE, ACCESS)
        self.mr.write("a" * SIZE, SIZE)

    def move(self, state):
        attr = QPAttr()
        attr.qp_state = state
        self.qp.modify(attr, e.IBV_QP_STATE)

    def param(self):
        return ConnParam(resources=4, depth=4, qp_num=self.qp.qp_num)

    def event(self, *wanted):
        return Event(self.channel, *wanted)

    def gone(self):
        self.event(ce.RDMA_CM_EVENT_DISCONNECTED)

    def post(self, opcode, size, remote=(1, 0), wr_id=1):
        wr = SendWR(wr_id=wr_id, opcode=opcode, num_sge=1,
                    sg=[SGE(self.mr.buf, size, self.mr.lkey)])
        if opcode != e.IBV_WR_SEND:
            wr.set_wr_rdma(*remote)
        self.qp.post_send(wr)

    def completion(self):
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            for wc in self.cq.poll(1)[1]:
                return wc.status
        raise Failure("no completion")


class Client(User):
    """Connects to a socket of ours: .sock, when connect() has returned."""
    def __init__(self, qp=None):
        self.listener = socket.create_server((PEERS, PORT), backlog=8)
        self.listener.settimeout(PATIENCE)
        channel = CMEventChannel()
        cmid = CMID(creator=channel, port_space=ce.RDMA_PS_TCP)
        cmid.resolve_addr(AddrInfo(src=OURS, dst=PEERS, dst_service=str(PORT),
                                   port_space=ce.RDMA_PS_TCP))
        Event(channel, ce.RDMA_CM_EVENT_ADDR_RESOLVED)
        cmid.resolve_route()
        Event(channel, ce.RDMA_CM_EVENT_ROUTE_RESOLVED)
        self.own(cmid, channel, qp)

    def connect(self):
        self.cmid.connect(self.param())
        self.sock, _ = self.listener.accept()
        self.sock.settimeout(PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return receive_mpa(self.sock)

    @classmethod
    def connected(cls):
        client = cls()
        client.connect()
        client.sock.sendall(mpa(REPLY, ENHANCED | REVISION, IRD_ORD))
        client.event(ce.RDMA_CM_EVENT_ESTABLISHED)
        return client


class Server:
    """Listens for sockets of ours."""
    def __init__(self):
        self.channel = CMEventChannel()
        self.cmid = CMID(creator=self.channel, port_space=ce.RDMA_PS_TCP)
        self.cmid.bind_addr(AddrInfo(src=OURS, src_service=str(PORT), port_space=ce.RDMA_PS_TCP,
                                     flags=ce.RAI_PASSIVE))
        self.cmid.listen()

    @staticmethod
    def dial():
        sock = socket.create_connection((OURS, PORT), PATIENCE, (PEERS, 0))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def request(self, qp=True):
        """What arrives next: (private data, its user)"""
        event = Event(self.channel, ce.RDMA_CM_EVENT_CONNECT_REQUEST)
        child = CMID(creator=event.event, listen_id=self.cmid)
        event.event.ack_cm_event()
        user = User()
        if qp:
            user.own(child, self.channel)
        else:
            user.cmid = child
        return event.data, user

    def lives(self):
        """A good request is heard, whatever came before."""
        with self.dial() as sock:
            sock.sendall(mpa(REQUEST, ENHANCED | REVISION, IRD_ORD + b"good"))
            data, user = self.request(qp=False)
            expect(data == b"good", f"private data {data}")
            user.cmid.reject()
            expect(receive_mpa(sock)[0] & REJECT, "not rejected")


@contextlib.contextmanager
def no_kworkers():
    """While nothing else gets a CPU, no work of the kernel is done."""
    cpus = sorted(os.sched_getaffinity(0))
    children = []

    def hog(cpu, priority):
        os.sched_setaffinity(0, {cpu})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    try:
        for cpu in cpus[1:]:
            ready, go = os.pipe()
            pid = os.fork()
            if not pid:
                hog(cpu, 10)
                os.write(go, b"x")
                # what is closed meanwhile is to be closed
                os.closerange(3, 1024)
                # the kernel takes the CPU back after 0.95 s, anyway
                end = time.monotonic() + 0.5
                while time.monotonic() < end:
                    pass
                os._exit(0)
            children.append(pid)
            os.read(ready, 1)
            os.close(ready)
            os.close(go)
        hog(cpus[0], 10)
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(0, cpus)
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


# --- the cases ---

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def shut(sock):
    sock.shutdown(socket.SHUT_WR)


def refused_reply(frame, end=None):
    """The user hears of an error, and gets no byte that was not sent as private data."""
    client = Client()
    client.connect()
    client.sock.sendall(frame)
    if end:
        end(client.sock)
    event = client.event(ce.RDMA_CM_EVENT_REJECTED, ce.RDMA_CM_EVENT_CONNECT_ERROR,
                         ce.RDMA_CM_EVENT_UNREACHABLE)
    expect(event.data in frame[20:], f"{len(event.data)} bytes of private data: {event.data[:64]}")
    client.listener.close()


@case
def reply_empty():
    """A reply with the ENHANCED flag, and without the data that goes with it."""
    refused_reply(mpa(REPLY, ENHANCED | REVISION, b""))


@case
def reply_short():
    for size in 1, 2, 3:
        refused_reply(mpa(REPLY, ENHANCED | REVISION, b"x" * size))


@case
def reply_long():
    for flags in ENHANCED | REVISION, REVISION, 1:
        for size in 257, 1024, 65535:
            refused_reply(mpa(REPLY, flags, b"x" * size))
            refused_reply(mpa(REPLY, flags, b"", size))


@case
def reply_plain():
    """An answer of an older revision."""
    for flags in REVISION, 1, 0:
        for size in 0, 1, 3, 4, 5, 255, 256:
            refused_reply(mpa(REPLY, flags, b"x" * size))


@case
def reply_rejects():
    for size in 0, 1, 3, 4, 5, 200:
        refused_reply(mpa(REPLY, REJECT | ENHANCED | REVISION, b"x" * size))


@case
def reply_key():
    for size in 0, 3, 4, 5:
        refused_reply(mpa(REQUEST, ENHANCED | REVISION, b"x" * size))


@case
def reply_half():
    """It ends amid the header, or the private data."""
    for end in shut, reset:
        for frame in (mpa(REPLY, ENHANCED | REVISION, b"x" * 10, 200),
                      mpa(REPLY, ENHANCED | REVISION, b"", 200),
                      mpa(REPLY, REVISION, b"x", 200),
                      mpa(REPLY, ENHANCED | REVISION, IRD_ORD)[:19], b"M", b""):
            refused_reply(frame, end)


@case
def reply_pieces():
    """A good one, byte by byte."""
    client = Client()
    client.connect()
    for byte in mpa(REPLY, ENHANCED | REVISION, IRD_ORD + b"private"):
        client.sock.sendall(bytes([byte]))
        time.sleep(0.01)
    event = client.event(ce.RDMA_CM_EVENT_ESTABLISHED)
    expect(event.data == b"private", f"private data {event.data}")


@case
def listener():
    """Peers that go before they are accepted."""
    server = Server()
    for end in reset, shut:
        with no_kworkers():
            socks = [server.dial() for _ in range(4)]
            for sock in socks:
                end(sock)
        server.lives()
        for sock in socks:
            sock.close()


@case
def request_and_close():
    """A request whose sender is gone when it is looked at."""
    server = Server()
    with no_kworkers():
        sock = server.dial()
        sock.sendall(mpa(REQUEST, ENHANCED | REVISION, IRD_ORD))
        shut(sock)
    _, user = server.request()
    with contextlib.suppress(PyverbsRDMAError):
        user.cmid.accept(user.param())
    ended(sock)
    # with the events that there are if the end is seen too late to refuse
    user.cmid.close()
    server.lives()


@case
def request_bad():
    server = Server()
    for frame in (mpa(REQUEST, ENHANCED | REVISION, b""), mpa(REQUEST, ENHANCED | REVISION, b"x"),
                  mpa(REQUEST, ENHANCED | REVISION, b"xxx"), mpa(REQUEST, REVISION, b"x" * 257),
                  mpa(REQUEST, ENHANCED | REVISION, b"", 65535), mpa(REQUEST, 3, b""),
                  mpa(REPLY, ENHANCED | REVISION, IRD_ORD), b"GET / HTTP/1.0\r\n\r\n"):
        with server.dial() as sock:
            with contextlib.suppress(OSError):
                sock.sendall(frame)
                shut(sock)
            ended(sock)
    server.lives()


@case
def request_plain():
    server = Server()
    for flags in REVISION, 1, 0:
        for size in 1, 3, 4, 5, 255:
            with server.dial() as sock:
                sock.sendall(mpa(REQUEST, flags, b"x" * size))
                data, user = server.request(qp=False)
                expect(data == b"x" * size, f"{len(data)} bytes of private data")
                user.cmid.reject()
    server.lives()


@case
def request_half():
    """Two bytes of a header that keep nobody else waiting."""
    server = Server()
    socks = [server.dial() for _ in range(4)]
    time.sleep(0.2)
    with no_kworkers():
        for sock in socks:
            # two events, and one read has all that came
            sock.sendall(b"M")
            sock.sendall(b"P")
    time.sleep(0.2)
    signal.alarm(30)
    server.lives()


def p2p():
    """Connected, but for the frame that the peer has to send first."""
    server = Server()
    sock = server.dial()
    sock.sendall(mpa(REQUEST, ENHANCED | REVISION,
                     struct.pack(">HH", 4 | P2P, 4 | WRITE_RTR)))
    _, user = server.request()
    user.cmid.accept(user.param())
    receive_mpa(sock)
    user.server, user.sock = server, sock
    return user


@case
def p2p_good():
    user = p2p()
    user.sock.sendall(tagged(WRITE, 1, 0))
    user.event(ce.RDMA_CM_EVENT_ESTABLISHED)
    user.sock.close()
    user.gone()
    user.server.lives()


def p2p_ends(how):
    user = p2p()
    how(user.sock)
    user.event(ce.RDMA_CM_EVENT_ESTABLISHED)
    user.gone()
    user.server.lives()


@case
def p2p_reset():
    p2p_ends(reset)


@case
def p2p_close():
    p2p_ends(shut)


@case
def p2p_bad_frame():
    p2p_ends(lambda sock: sock.sendall(tagged(15, 1, 0)))


@case
def p2p_destroy():
    """The QP goes before the peer has sent."""
    user = p2p()
    user.qp.close()
    user.event(ce.RDMA_CM_EVENT_ESTABLISHED)
    user.gone()
    user.server.lives()


@case
def p2p_silent():
    """A peer that never sends does not keep the user from leaving."""
    user = p2p()
    pid = os.fork()
    if not pid:
        # holds the connection for as long as its parent lives
        os.closerange(3, user.sock.fileno())
        os.closerange(user.sock.fileno() + 1, 1024)
        parent = os.getppid()
        while os.getppid() == parent:
            time.sleep(0.1)
        os._exit(0)


@case
def accept_reset():
    """It is gone when it is accepted, and siw does not know yet."""
    server = Server()
    with server.dial() as sock:
        sock.sendall(mpa(REQUEST, ENHANCED | REVISION, IRD_ORD))
        _, user = server.request()
        with no_kworkers():
            reset(sock)
            with contextlib.suppress(PyverbsRDMAError):
                user.cmid.accept(user.param())
        time.sleep(0.5)
        with contextlib.suppress(PyverbsRDMAError):
            user.post(e.IBV_WR_SEND, 64)
        state = user.qp.query(e.IBV_QP_STATE)[0].qp_state
        expect(state == e.IBV_QPS_ERR, f"the QP is in state {state}")
    server.lives()


def second(client):
    """The same QP once more; it should be refused before the peer hears of it."""
    client.listener.close()
    again = Client(client.qp)
    try:
        again.connect()
    except PyverbsRDMAError:
        return
    # what is said of a wrong key goes through the socket of the QP
    again.sock.sendall(mpa(REQUEST, ENHANCED | REVISION, IRD_ORD))
    again.event()
    raise Failure("a QP is connected twice")


@case
def connect_twice():
    second(Client.connected())


@case
def connect_again():
    client = Client.connected()
    client.move(e.IBV_QPS_ERR)
    client.gone()
    second(client)


@case
def connect_drained():
    client = Client.connected()
    client.move(e.IBV_QPS_SQD)
    client.gone()
    try:
        client.move(e.IBV_QPS_INIT)
    except PyverbsRDMAError:
        second(client)
        return
    second(client)
    raise Failure("a QP is used again")


def response(*segments):
    """Status of a READ of 64 bytes whose answer are these: (data, last)"""
    client = Client.connected()
    client.post(e.IBV_WR_RDMA_READ, 64)
    request = receive_fpdu(client.sock)
    stag, offset = struct.unpack(">IQ", request[18:30])
    expect(stag == client.mr.lkey and offset == client.mr.buf, "no READ request")
    for data, last in segments:
        client.sock.sendall(tagged(RESPONSE, stag, offset, data, last))
        offset += len(data)
    status = client.completion()
    client.listener.close()
    return status


@case
def read_good():
    for segments in [(b"x" * 64, True)], [(b"x" * 32, False), (b"x" * 32, True)], \
                    [(b"x" * 60, False), (b"x" * 4, False), (b"", True)]:
        status = response(*segments)
        expect(status == e.IBV_WC_SUCCESS, f"status {status}")


@case
def read_short():
    """Less than was asked for."""
    for segments in [(b"x" * 60, True)], [(b"", True)], [(b"x" * 4, False), (b"", True)], \
                    [(b"x" * 32, False), (b"x" * 28, True)], [(b"", False), (b"", True)]:
        expect(response(*segments) != e.IBV_WC_SUCCESS,
               f"a READ of 64 bytes succeeds with {sum(len(data) for data, _ in segments)}")


@case
def read_long():
    for segments in [(b"x" * 68, True)], [(b"x" * 32, False), (b"x" * 36, True)]:
        expect(response(*segments) != e.IBV_WC_SUCCESS, "a READ of 64 bytes succeeds with 68")


@case
def read_elsewhere():
    """A segment that says it goes elsewhere."""
    for stag, shift in (1, 0), (0, 4):
        client = Client.connected()
        client.post(e.IBV_WR_RDMA_READ, 64)
        request = receive_fpdu(client.sock)
        sink, offset = struct.unpack(">IQ", request[18:30])
        client.sock.sendall(tagged(RESPONSE, sink, offset, b"x" * 32, False) +
                            tagged(RESPONSE, sink ^ stag, offset + 32 + shift, b"x" * 32))
        expect(client.completion() != e.IBV_WC_SUCCESS, "a segment is taken that goes elsewhere")
        client.listener.close()


def written(*segments):
    """What is in memory after a WRITE, and a READ that is there to wait for it."""
    client = Client.connected()
    offset = client.mr.buf
    for data, last in segments:
        client.sock.sendall(tagged(WRITE, client.mr.rkey, offset, data, last))
        offset += len(data)
    client.sock.sendall(read_request(1, (1, 0), 8, (client.mr.rkey, client.mr.buf)))
    receive_fpdu(client.sock)
    client.listener.close()
    return client.mr.read(64, 0)


@case
def write_empty():
    """A WRITE of segments, some of them empty."""
    for segments in [(b"", True)], [(b"", False), (b"", True)]:
        expect(written(*segments) == b"a" * 64, "a WRITE of nothing writes")
    for segments in [(b"x" * 64, True)], [(b"", False), (b"x" * 64, True)], \
                    [(b"x" * 32, False), (b"", False), (b"x" * 32, True)], \
                    [(b"", False), (b"", False), (b"x" * 64, False), (b"", True)]:
        expect(written(*segments) == b"x" * 64, f"a WRITE of {segments} does not write")


@case
def write_nowhere():
    """The STag and the offset that siw has before it has been told of any."""
    client = Client.connected()
    client.sock.sendall(tagged(WRITE, 0, 0, last=False) + tagged(WRITE, 0, 0, b"x" * 64))
    client.gone()
    ended(client.sock)


@case
def send_empty():
    """The same for a SEND."""
    for segments in [(b"", True)], [(b"", False), (b"x" * 64, True)], \
                    [(b"x" * 32, False), (b"", False), (b"x" * 32, True)], \
                    [(b"x" * 64, False), (b"", True)]:
        client = Client.connected()
        client.qp.post_recv(RecvWR(wr_id=1, num_sge=1,
                                   sg=[SGE(client.mr.buf, 128, client.mr.lkey)]))
        offset = 0
        for data, last in segments:
            client.sock.sendall(untagged(SEND, QN_SEND, 1, data, offset, last))
            offset += len(data)
        status = client.completion()
        expect(status == e.IBV_WC_SUCCESS, f"status {status}")
        expect(client.mr.read(offset, 0) == b"x" * offset, "other bytes")
        client.listener.close()


@case
def dereg_write():
    """A WRITE that holds the last reference to memory."""
    client = Client.connected()
    whole = tagged(WRITE, client.mr.rkey, client.mr.buf, b"x" * 1024)
    client.sock.sendall(whole[:512])
    time.sleep(0.3)
    client.mr.close()
    client.sock.sendall(whole[512:])
    client.gone()
    ended(client.sock)


@case
def frames():
    """Frames that end a connection, each."""
    for name, frame in {
            "DDP version": tagged(WRITE, 1, 0, ddp=3),
            "RDMAP version": tagged(WRITE, 1, 0, rdmap=0),
            "opcode": untagged(15, QN_SEND, 1),
            "short": fpdu(struct.pack(">HIQ", control(WRITE, 1, 1), 1, 0), 4),
            "empty": fpdu(b"\xff" * 14, 0),
            "no such STag": tagged(WRITE, 0x12345678, 0, b"x"),
            "response without request": tagged(RESPONSE, 1, 0, b"x"),
            "empty response": tagged(RESPONSE, 1, 0),
            "send without receive": untagged(SEND, QN_SEND, 1, b"x"),
            "queue": untagged(SEND, 77, 1, b"x"),
            "number": untagged(SEND, QN_SEND, 77, b"x"),
            "read of no STag": read_request(1, (1, 0), 64, (0x12345678, 0)),
            "read number": read_request(7, (1, 0), 64, (1, 0)),
            "reads": b"".join(read_request(n, (1, 0), 1 << 30, (1, 0)) for n in range(1, 64)),
            "terminate": untagged(TERMINATE, QN_TERMINATE, 1, bytes(4)),
            "terminate of a queue": untagged(TERMINATE, QN_SEND, 1, bytes(4)),
            "WRITE amid a response": tagged(WRITE, 1, 0, last=False) + tagged(RESPONSE, 1, 0),
            "noise": bytes(range(256)) * 8,
    }.items():
        client = Client.connected()
        with contextlib.suppress(ConnectionError):
            client.sock.sendall(frame)
            shut(client.sock)
        client.event(ce.RDMA_CM_EVENT_DISCONNECTED)
        try:
            ended(client.sock)
        except Failure as failure:
            raise Failure(f"{name}: {failure}") from failure
        client.listener.close()


@case
def modify():
    """What comes while a QP is modified is read."""
    client = Client.connected()
    for number in range(1, 3):
        client.sock.sendall(read_request(number, (1, 0), 8, (client.mr.rkey, client.mr.buf)))
        receive_fpdu(client.sock)
    pid = os.fork()
    if not pid:
        client.sock.settimeout(10)
        try:
            for number in range(3, 6003):
                client.sock.sendall(read_request(number, (1, 0), 8,
                                                 (client.mr.rkey, client.mr.buf)))
                receive_fpdu(client.sock)
        except TimeoutError:
            os._exit(1)
        os._exit(0)
    attr = QPAttr()
    attr.qp_access_flags = ACCESS
    while True:
        child, status = os.waitpid(pid, os.WNOHANG)
        if child:
            break
        for _ in range(100):
            client.qp.modify(attr, e.IBV_QP_ACCESS_FLAGS)
    expect(not status, "an answer is missing")


@contextlib.contextmanager
def small_send_buffers():
    with open("/proc/sys/net/ipv4/tcp_wmem", "r+", encoding="ascii") as sysctl:
        before = sysctl.read()

        def put(text):
            sysctl.seek(0)
            sysctl.write(text)
            sysctl.flush()
        put("4096 32768 32768")
        try:
            yield
        finally:
            put(before)


@case
def slow_write():
    """WRITEs that wait for their peer to read arrive in order and whole."""
    with small_send_buffers():
        client = Client.connected()
    client.mr.write("".join(chr(97 + n // 4096) for n in range(SIZE)), SIZE)
    want = bytes(97 + n // 4096 for n in range(SIZE))
    pid = os.fork()
    if not pid:
        try:
            for _ in range(4 * ROUNDS):
                got = b""
                while len(got) < SIZE:
                    ddp = receive_fpdu(client.sock)
                    flags, stag, offset = struct.unpack(">HIQ", ddp[:14])
                    expect((flags | 0x4000, stag, offset) ==
                           (control(WRITE, 1, 1), 1, len(got)),
                           f"frame {ddp[:14].hex()} at {len(got)}")
                    got += ddp[14:]
                expect(got == want, "other bytes")
                time.sleep(0.001)
        except BaseException as error:
            print(repr(error), flush=True)
            reset(client.sock)
            os._exit(1)
        os._exit(0)
    why = None
    try:
        for _ in range(ROUNDS):
            for _ in range(4):
                client.post(e.IBV_WR_RDMA_WRITE, SIZE)
            for _ in range(4):
                status = client.completion()
                expect(status == e.IBV_WC_SUCCESS, f"status {status}")
    except Failure as failure:
        why = failure
    _, status = os.waitpid(pid, 0)
    expect(not status and not why, f"the stream is broken, {why}")


def main():
    if sys.argv[1:] == ["--list"]:
        print(*CASES)
        return 0
    pid = os.fork()
    if not pid:
        try:
            CASES[sys.argv[1]]()
        except Failure as failure:
            print(failure, flush=True)
            os._exit(1)
        except BaseException as error:
            traceback.print_exc(file=sys.stdout)
            print(repr(error).replace("\n", " "), flush=True)
            os._exit(1)
        # what hangs when it is closed hangs here
        os._exit(0)
    end = time.monotonic() + 2 * PATIENCE
    killed = False
    while True:
        child, status = os.waitpid(pid, os.WNOHANG)
        if child:
            break
        time.sleep(0.02)
        if time.monotonic() > end:
            if killed:
                print("it cannot be killed")
                return 1
            os.kill(pid, signal.SIGKILL)
            killed = True
            end = time.monotonic() + 20
    if killed or os.WIFSIGNALED(status):
        print("it hangs")
        return 1
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
