# SPDX-License-Identifier: GPL-2.0
"""SGEs of user QPs that the kernel has to refuse; run by run_pyverbs.py.

lkey 0 is the kernel's own: the address beside it is a physical one. User space
writes the WQE rings of rxe and siw itself, so what it posts reaches the kernel
unchecked, and a ring can be changed after the post. A refused WR completes with
an error, whichever, and the peer's memory stays as it was. The first test shows
that the same WRs work with a good SGE.
"""
import ctypes
import itertools
import os
import re
import struct
import time
import unittest

import pyverbs.cm_enums as ce
import pyverbs.enums as e
from pyverbs.cmid import CMID, AddrInfo, CMEvent, CMEventChannel, ConnParam
from pyverbs.cq import CQ
from pyverbs.mr import MR
from pyverbs.pyverbs_error import PyverbsRDMAError
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, RecvWR, SendWR

SRC, DST, PORT = os.environ["A0"], os.environ["A1"], "7471"
SIW = os.environ["DEVICE"] == "siw"
SIZE = 4096
MAX_SGE = 2
ACCESS = e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ
OPCODES = {"send": e.IBV_WR_SEND, "write": e.IBV_WR_RDMA_WRITE, "read": e.IBV_WR_RDMA_READ}
POST_SEND = 28      # IB_USER_VERBS_CMD_POST_SEND
PATIENCE = int(os.environ["PATIENCE"])

# where num_sge is, as seen from the first SGE of a WQE in the ring
NUM_SGE = {"siw send": (-14, "B"), "siw recv": (-6, "B"), "rxe": (-12, "<I")}


def forge(sge, num_sge=None, lkey=None):
    """Change the WQE in this process's rings that holds SGE; it has to be there once."""
    pattern = struct.pack("<QII", *sge)
    found = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            match = re.match(r"(\w+)-(\w+) rw\S* .*/uverbs\d+$", line)
            if match:
                start, end = int(match[1], 16), int(match[2], 16)
                text = ctypes.string_at(start, end - start)
                found += [start + hit.start() for hit in re.finditer(re.escape(pattern), text)]
    where, = found

    def put(offset, form, value):
        data = struct.pack(form, value)
        ctypes.memmove(where + offset, data, len(data))
    if lkey is not None:
        put(12, "<I", lkey)
    if num_sge is not None:
        put(*num_sge)


def doorbells():
    """Ring those of all QPs of this process, which their providers would do only after a post."""
    answer = ctypes.create_string_buffer(8)
    for fd in os.listdir("/proc/self/fd"):
        if "/uverbs" not in os.path.realpath(f"/proc/self/fd/{fd}"):
            continue
        for handle in range(16):
            # struct ib_uverbs_cmd_hdr and ib_uverbs_post_send, without a WR
            call = struct.pack("<IHHQIIII", POST_SEND, 8, 1, ctypes.addressof(answer),
                               handle, 0, 0, 64)
            try:
                os.write(int(fd), call)
            except OSError:
                pass


class Side:
    """One end of a connection."""
    def __init__(self, fill):
        self.channel = CMEventChannel()
        self.fill = fill

    def own(self, cmid):
        """All that hangs on the device, which CMID is bound to by now."""
        self.cmid = cmid
        self.cq = CQ(cmid.context, 16, None, None, 0)
        cap = QPCap(max_send_wr=8, max_recv_wr=8, max_send_sge=MAX_SGE, max_recv_sge=MAX_SGE)
        self.qp = QP(cmid.pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=self.cq, rcq=self.cq, cap=cap,
                                         sq_sig_all=1), QPAttr())
        self.move(e.IBV_QPS_INIT)
        self.mr = MR(cmid.pd, SIZE, ACCESS)
        self.mr.write(self.fill * SIZE, SIZE)

    def move(self, *states):
        for state in states:
            self.qp.modify(*self.cmid.init_qp_attr(state))

    def ready(self):
        # siw goes there by itself when the connection stands
        if not SIW:
            self.move(e.IBV_QPS_RTR, e.IBV_QPS_RTS)

    def event(self, *wanted):
        event = CMEvent(self.channel)
        if event.event_type not in wanted:
            raise AssertionError(f"CM event {event.event_str()}")
        return event

    def good(self):
        return self.mr.buf, SIZE, self.mr.lkey

    def send(self, kind, sge, peer=None, wr_id=1):
        wr = SendWR(wr_id=wr_id, opcode=OPCODES[kind], num_sge=1, sg=[SGE(*sge)])
        if kind != "send":
            wr.set_wr_rdma(peer.mr.rkey, peer.mr.buf)
        self.qp.post_send(wr)

    def recv(self, sge, wr_id=1):
        self.qp.post_recv(RecvWR(wr_id=wr_id, num_sge=1, sg=[SGE(*sge)]))

    def completion(self, wr_id=1):
        """Status of this WR."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            for wc in self.cq.poll(1)[1]:
                if wc.wr_id == wr_id:
                    return wc.status
        raise AssertionError(f"no completion in {PATIENCE} s")

    def content(self):
        return set(self.mr.read(SIZE, 0).decode(errors="replace"))


class Pair:
    """Two QPs; post_first() is called when both exist and neither can send yet."""
    def __init__(self, post_first=lambda pair: None):
        listener, self.a, self.b = CMEventChannel(), Side("a"), Side("b")
        listen = CMID(creator=listener, port_space=ce.RDMA_PS_TCP)
        listen.bind_addr(AddrInfo(src=DST, src_service=PORT, port_space=ce.RDMA_PS_TCP,
                                  flags=ce.RAI_PASSIVE))
        listen.listen()
        cmid = CMID(creator=self.a.channel, port_space=ce.RDMA_PS_TCP)
        cmid.resolve_addr(AddrInfo(src=SRC, dst=DST, dst_service=PORT,
                                   port_space=ce.RDMA_PS_TCP))
        self.a.event(ce.RDMA_CM_EVENT_ADDR_RESOLVED).ack_cm_event()
        cmid.resolve_route()
        self.a.event(ce.RDMA_CM_EVENT_ROUTE_RESOLVED).ack_cm_event()
        self.a.own(cmid)
        cmid.connect(ConnParam(resources=4, depth=4, qp_num=self.a.qp.qp_num))

        self.b.channel = listener
        request = self.b.event(ce.RDMA_CM_EVENT_CONNECT_REQUEST)
        child = CMID(creator=request, listen_id=listen)
        request.ack_cm_event()
        self.b.own(child)
        post_first(self)
        self.b.ready()
        child.accept(ConnParam(resources=4, depth=4, qp_num=self.b.qp.qp_num))
        answer = self.a.event(ce.RDMA_CM_EVENT_CONNECT_RESPONSE, ce.RDMA_CM_EVENT_ESTABLISHED)
        establish = answer.event_type == ce.RDMA_CM_EVENT_CONNECT_RESPONSE
        answer.ack_cm_event()
        self.a.ready()
        if establish:
            cmid.establish()
        self.b.event(ce.RDMA_CM_EVENT_ESTABLISHED).ack_cm_event()
        self.listen = listen


class UserSge(unittest.TestCase):
    def good(self, kind):
        pair = Pair()
        if kind == "send":
            pair.b.recv(pair.b.good())
        pair.a.send(kind, pair.a.good(), pair.b)
        self.assertEqual(pair.a.completion(), e.IBV_WC_SUCCESS)
        if kind == "send":
            self.assertEqual(pair.b.completion(), e.IBV_WC_SUCCESS)
        self.assertEqual((pair.a.content(), pair.b.content()),
                         ({"b"}, {"b"}) if kind == "read" else ({"a"}, {"a"}))

    def refused(self, pair, side):
        status = side.completion()
        print(f"{self.id()}: {e.ibv_wc_status(status).name}")
        self.assertNotEqual(status, e.IBV_WC_SUCCESS)
        self.assertEqual((pair.a.content(), pair.b.content()), ({"a"}, {"b"}))

    def unseen(self, pair):
        """A READ of siw has one SGE, whatever the ring says."""
        self.assertEqual(pair.a.completion(), e.IBV_WC_SUCCESS)
        self.assertEqual((pair.a.content(), pair.b.content()), ({"b"}, {"b"}))

    def at_post(self, kind, sge):
        """The SGE is bad when it is posted."""
        pair = Pair()
        if kind == "recv":
            pair.b.recv(sge)
            pair.a.send("send", pair.a.good(), wr_id=2)
            return self.refused(pair, pair.b)
        if kind == "send":
            pair.b.recv(pair.b.good(), wr_id=2)
        pair.a.send(kind, sge, pair.b)
        return self.refused(pair, pair.a)

    def in_ring(self, kind, **change):
        """The WQE goes bad after a good post, before the kernel looks at it."""
        def post(pair):
            side = pair.b if kind == "recv" else pair.a
            if kind == "recv":
                side.recv(side.good())
            else:
                # the doorbell is refused as yet, the WQE is in the ring
                try:
                    side.send(kind, side.good(), pair.b)
                except PyverbsRDMAError:
                    pass
            forge(side.good(), **change)
        pair = Pair(post)
        if kind == "recv":
            pair.a.send("send", pair.a.good(), wr_id=2)
            return self.refused(pair, pair.b)
        if kind == "send":
            pair.b.recv(pair.b.good(), wr_id=2)
        doorbells()
        if SIW and kind == "read" and "num_sge" in change:
            return self.unseen(pair)
        return self.refused(pair, pair.a)


def add(name, method, *args, **kwargs):
    setattr(UserSge, f"test_{name}", lambda self: getattr(self, method)(*args, **kwargs))


for _kind in OPCODES:
    add(f"good_{_kind}", "good", _kind)
# RAM in every guest, and what is none in any
for _kind, (_what, _addr) in itertools.product(
        ("send", "recv", "write", "read"), (("ram", 32 << 20), ("no_ram", 1 << 45))):
    add(f"{_kind}_lkey0_{_what}", "at_post", _kind, (_addr, SIZE, 0))
for _kind in ("send", "recv", "write", "read"):
    add(f"{_kind}_lkey0_in_ring", "in_ring", _kind, lkey=0)
    _side = "recv" if _kind == "recv" else "send"
    add(f"{_kind}_long_list_in_ring", "in_ring", _kind,
        num_sge=(*NUM_SGE[f"siw {_side}" if SIW else "rxe"], 200))
