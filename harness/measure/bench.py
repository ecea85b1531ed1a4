#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Compare stock with the series: CPU time of a whole guest for fixed work, and bytes.

    bench.py [--pairs N] [--keep] [--profile] [PART...]

Parts: builder rxe siw user-rxe user-siw nvme-rxe nvme-siw srp-rxe rnbd-rxe crc-rxe
crc-nvme-rxe sizes; all of them unless told otherwise. In those of crc, both kernels do
crc32_le() by the CPU's carry-less multiplication, as x86 does: by a table, as UML does, it
is most of what rxe costs.

Both kernels are built from one configuration without debug options, and boot side by
side. Then they take turns (stock, series, stock, ...): one does a load, and what the
host counts as CPU time of its processes meanwhile is what the load costs; the other
waits. Booting and connecting is not in it. Only the ratios mean something on a shared
machine. The builder is measured against the code that it replaces in the series'
guest, by its clock.

The table goes to out/bench.txt, too, and with --keep to harness/measure/results.txt.
--profile samples the guests by perf (Debian: linux-perf), tells where the time
went in out/bench-profile.txt, and is no measurement.
"""
import argparse
import bisect
import collections
import os
import pathlib
import platform
import queue
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from guests import guest, kernel  # noqa: E402
from proof import check, demo  # noqa: E402

SOURCE = pathlib.Path(__file__).resolve().parent
BUILT = kernel.TOP / "build/bench"
PARTS = ["builder", "rxe", "siw", "user-rxe", "user-siw", "nvme-rxe", "nvme-siw", "srp-rxe",
         "rnbd-rxe", "crc-rxe", "crc-nvme-rxe", "sizes"]
# the selftest that a part's loads are run by
DISKS = {"nvme-rxe": "nvme", "nvme-siw": "nvme", "srp-rxe": "srp", "rnbd-rxe": "rnbd",
         "crc-nvme-rxe": "nvme"}
# how often the guests of a pair take turns with each load
ROUNDS = 5
# with two, a host that takes one away while it holds a lock lets the other spin
ONE_CPU = "ncpus=1"

# name, what rdma_bench.c calls it, bytes, {device: how many}, how many at a time
RDMA_LOADS = [
    ("SEND 64 B", "send", 64, {"rxe": 40000, "siw": 60000}, 32),
    ("READ 4 KiB", "read", 4096, {"rxe": 12000, "siw": 30000}, 16),
    ("READ 64 KiB", "read", 65536, {"rxe": 1000, "siw": 5000}, 8),
    ("READ 1 MiB", "read", 1048576, {"rxe": 60, "siw": 300}, 4),
    ("WRITE 4 KiB", "write", 4096, {"rxe": 12000, "siw": 70000}, 16),
    ("WRITE 64 KiB", "write", 65536, {"rxe": 1000, "siw": 9000}, 8),
    ("WRITE 1 MiB", "write", 1048576, {"rxe": 60, "siw": 600}, 4),
]

# what sge_bench.c calls them
BUILDER_DEVICES = {"software": "software device", "direct": "direct mapping"}
BUILDER_MAPS = {"single": "one SGE", "bvec": "one bio_vec", "list": "64-entry scatterlist",
                "bvecs": "64 bio_vecs", "mr": "64 entries in an MR",
                "tried": "64 entries, SGEs tried"}

# what a load costs before its first operation is a load of its own, the first of its part
ALONE = "alone"

# name, perftest's program and bytes, {device: how many}: by the rings that user space fills
USER_LOADS = [
    (ALONE, "ib_read_bw", 64, {"rxe": 5, "siw": 5}),
    # iWARP has no RNR NAKs: a receiver that still sleeps loses the connection
    ("SEND 64 B", "ib_send_bw", 64, {"rxe": 20000}),
    ("SEND 4 KiB", "ib_send_bw", 4096, {"rxe": 10000}),
    ("READ 64 B", "ib_read_bw", 64, {"rxe": 20000, "siw": 20000}),
    ("READ 4 KiB", "ib_read_bw", 4096, {"rxe": 10000, "siw": 20000}),
]

# name, fio's --rw, KiB, {device: how many}
DISK_LOADS = [
    (ALONE, "randread", 4, {"rxe": 1, "siw": 1}),
    ("4 KiB random reads", "randread", 4, {"rxe": 8000, "siw": 10000}),
    ("128 KiB writes", "write", 128, {"rxe": 500, "siw": 1500}),
]

SCRIPT = """
export tests=$GUEST_TREE_OF_TESTS/tools/testing/selftests/rdma
mkfifo /tmp/never
fail() {
	echo "bench failed: $*"
	exit 1
}
# turn NAME COMMAND...: when the host says so. A process that sleeps would cost more.
turn() {
	local name=$1

	shift
	echo "bench ready $name"
	until [ -e "/run/out/go.$name" ]; do
		[ ! -e /run/out/stop ] || exit 1
		read -r -t 0.05 <>/tmp/never
	done
	"$@" || fail "$name"
	echo "bench done $name"
}
export -f fail turn
builder() {
	for _ in {1..16}; do
		sed 's/^/bench block /' /sys/kernel/debug/sge_bench || return
	done
}
connect() {
	. "$tests/wire.sh"
	wire_up "$1" && insmod "$BENCH_MODULES/rdma_bench.ko" src=$A0 dst=$A1 ||
		fail "no connection over $1"
	cat /proc/kallsyms >/run/out/kallsyms
}
move() {
	echo "$*" >/sys/kernel/debug/rdma_bench/run
}
# perftest TOOL SIZE COUNT: both ends sleep until something has completed. A server has
# crashed in librdmacm while it connected: once more, which the median leaves out.
perftest() {
	once "$@" || once "$@"
}
once() {
	local server

	set -- "$1" -R -e -F -s "$2" -n "$3"
	"$@" -d r1 >"/run/out/server" 2>&1 &
	server=$!
	if wait_for 60 eval "rdma resource show cm_id link r1 | grep -q LISTEN" &&
		"$@" -d r0 "$A1" >"/run/out/client" 2>&1; then
		wait $server
	else
		kill $server
		wait $server
		false
	fi
}
disconnect() {
	rmmod rdma_bench
	wire_down
}
"""

# what a request is made of: its file, for the includes, and the structures
STRUCTS = [
    ("drivers/infiniband/core/rw.c", ["rdma_rw_ctx", "rdma_rw_reg_ctx"]),
    ("drivers/infiniband/core/mad.c", ["ib_mad_private", "ib_mad_send_wr_private"]),
    ("drivers/infiniband/sw/rxe/rxe_verbs.c", ["rxe_send_wqe", "rxe_recv_wqe"]),
    ("drivers/infiniband/sw/siw/siw_verbs.c", ["siw_sqe", "siw_rqe", "siw_wqe",
                                               "siw_iwarp_tx"]),
    ("drivers/infiniband/sw/rdmavt/qp.c", ["rvt_swqe", "rvt_rwqe", "rvt_sge",
                                          "rvt_sge_state"]),
    ("drivers/infiniband/ulp/iser/iser_memory.c", ["iser_tx_desc", "iser_rx_desc",
                                                   "iscsi_iser_task"]),
    ("drivers/infiniband/ulp/isert/ib_isert.c", ["iser_tx_desc", "iser_rx_desc", "isert_cmd"]),
    ("drivers/infiniband/ulp/srp/ib_srp.c", ["srp_request", "srp_iu"]),
    ("drivers/infiniband/ulp/srpt/ib_srpt.c", ["srpt_recv_ioctx", "srpt_send_ioctx"]),
    ("drivers/infiniband/ulp/rtrs/rtrs-clt.c", ["rtrs_clt_io_req", "rtrs_iu"]),
    ("drivers/infiniband/ulp/rtrs/rtrs-srv.c", ["rtrs_srv_op", "rtrs_srv_mr"]),
    ("drivers/nvme/host/rdma.c", ["nvme_rdma_request", "nvme_rdma_qe"]),
    ("drivers/nvme/target/rdma.c", ["nvmet_rdma_cmd", "nvmet_rdma_rsp"]),
    ("net/rds/ib_send.c", ["rds_ib_send_work", "rds_ib_recv_work"]),
]
# what is built of a folder, or of one file
OBJECTS = [
    "drivers/infiniband/core/",
    "drivers/infiniband/core/sge.c",
    "drivers/infiniband/sw/rxe/",
    "drivers/infiniband/sw/siw/",
    "drivers/infiniband/sw/rdmavt/",
    "drivers/infiniband/ulp/iser/",
    "drivers/infiniband/ulp/isert/",
    "drivers/infiniband/ulp/srp/",
    "drivers/infiniband/ulp/srpt/",
    "drivers/infiniband/ulp/rtrs/",
    "drivers/nvme/host/rdma.c",
    "drivers/nvme/target/rdma.c",
    "net/rds/",
    "net/9p/trans_rdma.c",
]


# --- what the guests are made to do ---

def part_loads(part):
    """[(load, count, the guest's command)]"""
    device = part.split("-")[-1]
    if part in ("rxe", "siw", "crc-rxe"):
        return [(name, count[device], f"turn {{}} move {what} {size} {count[device]} {depth}")
                for name, what, size, count, depth in RDMA_LOADS]
    if part.startswith("user-"):
        return [(name, count[device], f"turn {{}} perftest {tool} {size} {count[device]}")
                for name, tool, size, count in USER_LOADS if device in count]
    if part in DISKS:
        return [(name, count[device],
                 f"FIO='--rw={rw} --bs={kib}k --size=64M --io_size={kib * count[device]}k' "
                 "turn {} t_fio")
                for name, rw, kib, count in DISK_LOADS]
    return [("builder", 1, "turn {} builder")] if part == "builder" else []


def steps(parts):
    """[(part, load, name of the turn, the guest's command)]; the series alone has a builder."""
    return [(part, load, f"{part}.{i}.{turn}", command.format(f"{part}.{i}.{turn}"))
            for part in parts for turn in range(ROUNDS)
            for i, (load, _, command) in enumerate(part_loads(part))]


def script(parts):
    lines = [SCRIPT]
    for part in parts:
        device = part.split("-")[-1]
        turns = [command for where, _, _, command in steps([part])]
        if part == "builder":
            lines += ['insmod "$BENCH_MODULES/sge_bench.ko" || fail sge_bench', *turns,
                      "rmmod sge_bench"]
        elif part.startswith("user-"):
            lines += ["(", '. "$tests/wire.sh"', f"wire_up {device} || fail {part}", *turns,
                      "wire_down", ") || exit"]
        elif part in DISKS:
            # one of the selftest's tests, for once
            lines += ["t_bench() {", *turns, "}", "export -f t_bench",
                      f'ONLY="connect bench disconnect" "$tests/{DISKS[part]}.sh" {device} ||',
                      f"\tfail {part}"]
        elif turns:
            lines += ["(", f"connect {device}", *turns, "disconnect", ") || exit"]
    return "\n".join(lines) + "\n"


def processes():
    """[(pid, parent, session, CPU seconds of children that have ended)]"""
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        yield (int(stat.parent.name), int(fields[1]), int(fields[3]),
               (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK"))


def cpu_of(pid):
    """Its CPU seconds, to the nanosecond."""
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0


class BenchError(Exception):
    pass


class Guest:
    """A guest that waits for its turns."""
    def __init__(self, name, kern, parts):
        self.name = name
        self.out = guest.scratch() / f"bench-{name}"
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()
        self.said = queue.Queue()
        self.last = ""
        self.blocks = []
        self.seconds = collections.defaultdict(list)
        self.result = None
        parts = [part for part in parts if part != "builder" or name == "series"]
        self.thread = threading.Thread(target=self.run, args=(kern, script(parts)))
        self.thread.start()

    def run(self, kern, text):
        self.result = guest.run(kern, text, timeout=1200, out=self.out,
                                env=demo.ENV | {"BENCH_MODULES": BUILT / self.name},
                                append=[ONE_CPU], echo=self.hear)
        self.said.put(None)

    def hear(self, line):
        words = line.split()
        if words[:2] == ["bench", "block"]:
            self.blocks.append((words[2], words[3], int(words[4]), int(words[5])))
        elif words[:1] == ["bench"] and words[1] in ("ready", "done"):
            self.said.put(tuple(words[1:]))
        if line.strip():
            self.last = line.strip()

    def expect(self, *what):
        try:
            said = self.said.get(timeout=300)
        except queue.Empty:
            said = None
        if said != what:
            raise BenchError(f"{self.name}: {self.problem() or self.last} (see {self.out})")

    def problem(self):
        return self.result and self.result.problem

    def leader(self):
        for pid, parent, session, _ in processes():
            if parent == os.getpid() and session == pid and self.is_ours(pid):
                return pid
        raise BenchError(f"{self.name}: the guest died (see {self.out})")

    def is_ours(self, pid):
        try:
            command = pathlib.Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
        except OSError:
            return False
        return f"GUEST_DIR={self.out}" in command.split("\0")

    def cpu(self, leader):
        """CPU seconds of the guest: the kernel is the leader, its user space are children."""
        found = [(pid, ended) for pid, _, session, ended in processes() if session == leader]
        return sum(cpu_of(pid) + ended for pid, ended in found)

    def turn(self, key, name, watch=None):
        """Does what is called NAME, of which it said that it is ready."""
        leader = self.leader()
        if watch:
            watch.begin(leader)
        before = self.cpu(leader)
        (self.out / f"go.{name}").touch()
        self.expect("done", name)
        self.seconds[key].append(self.cpu(leader) - before)
        if watch:
            watch.end(key)

    def stop(self):
        (self.out / "stop").touch()
        self.thread.join()


def run_pair(kernels, parts, watches=None):
    """{name: Guest}, when both have done everything."""
    guests = {name: Guest(name, kern, parts) for name, kern in kernels.items()}
    turn = ()
    try:
        for part, load, name, _ in steps(parts):
            turn = part, load
            who = [one for one in guests.values() if part != "builder" or one.name == "series"]
            for one in who:
                one.expect("ready", name)
            for one in who:
                one.turn(turn, name, watches and watches[one.name])
        turn = ("the end",)
        for one in guests.values():
            one.thread.join()
            if one.result.problem or one.result.status:
                raise BenchError(f"{one.name}: {one.problem() or one.last} (see {one.out})")
    except BenchError as error:
        kernel.die(f"bench: {' '.join(turn)}: {error}")
    finally:
        for one in guests.values():
            one.stop()
    return guests


def make(kern, *args):
    done = kern.make(*args, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        lines = done.stdout.splitlines() or ["?"]
        errors = [line for line in lines if "error" in line.lower()]
        kernel.die(f"bench: {kern.tree.name} does not build: {(errors or lines)[0]}")


def build_modules(name, kern):
    out = BUILT / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    make(kern, f"M={SOURCE}", f"MO={out}", "modules")


# --- numbers ---

def costs(run, part, load, count):
    """us for each operation, round by round, without the start."""
    start = statistics.median(run.seconds.get((part, ALONE), [0]))
    return [(spent - start) / count * 1e6 for spent in run.seconds[part, load]]


def row(name, one, other, digits=1):
    """Of [[round's cost]] for each pair; what counts of a pair is the median."""
    pairs = [statistics.median(b / a for a, b in zip(*rounds)) for rounds in zip(one, other)]
    return (name, *(f"{statistics.median(map(statistics.median, cost)):.{digits}f}"
                    for cost in (one, other)),
            f"{statistics.median(pairs):.2f}", f"{min(pairs):.2f}-{max(pairs):.2f}")


def table(title, columns, rows):
    """Lines; the first column to the left, the others to the right."""
    rows = [(title, *columns), *rows]
    widths = [max(len(line[i]) for line in rows) for i in range(len(rows[0]))]
    return [("  ".join([line[0].ljust(max(widths[0], 30))] +
                       [cell.rjust(width) for cell, width in zip(line[1:], widths[1:])])).rstrip()
            for line in rows] + [""]


def builder_table(runs):
    rows = []
    for device in BUILDER_DEVICES:
        for what in BUILDER_MAPS:
            blocks = [[block for block in run.blocks if block[:2] == (device, what)]
                      for run in runs]
            rows.append(row(f"{BUILDER_DEVICES[device]}, {BUILDER_MAPS[what]}",
                            *([[block[i] / 1000 for block in of_run] for of_run in blocks]
                              for i in (2, 3))))
    return table("ns for map, fill, unmap", ("by hand", "builder", "ratio", "range"), rows)


def load_tables(stock, series, parts):
    lines = []
    titles = {"rxe": "rxe, in the kernel", "siw": "siw, in the kernel",
              "user-rxe": "rxe, user space", "user-siw": "siw, user space",
              "nvme-rxe": "NVMe-oF over rxe", "nvme-siw": "NVMe-oF over siw",
              "srp-rxe": "SRP over rxe", "rnbd-rxe": "RNBD over rxe",
              "crc-rxe": "rxe, quick crc32", "crc-nvme-rxe": "NVMe-oF over rxe, quick crc32"}
    for part in parts:
        if part in titles:
            rows = [row(load, *([costs(run, part, load, count) for run in runs]
                                for runs in (stock, series)))
                    for load, count, _ in part_loads(part) if load != ALONE]
            lines += table(f"{titles[part]}: us of CPU", ("stock", "series", "ratio", "range"),
                           rows)
    return lines


# --- bytes ---

def struct_name(source, struct):
    """Two ULPs have structures of the same name."""
    return f"{pathlib.Path(source).parent.name}: {struct}"


def find_structs(kern):
    """STRUCTS without those that this tree does not have."""
    for source, names in STRUCTS:
        where = [os.path.dirname(source), "include/rdma", "include/uapi/rdma"]
        have = [name for name in names
                if kern.git("grep", "-lE", rf"^\s*struct {name} \{{", "--", *where,
                                missing=b"")]
        if have:
            yield source, have


def struct_sizes(name, kern):
    """{folder and structure: bytes}, from arrays of that size behind the file itself."""
    out = BUILT / f"sizes-{name}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    objects = {}
    for i, (source, structs) in enumerate(find_structs(kern)):
        arrays = "".join(f"char bench_{struct}[sizeof(struct {struct})];\n" for struct in structs)
        (out / f"bench{i}.c").write_text(f'#include "{kern.tree / source}"\n{arrays}')
        objects[f"bench{i}.o"] = source
    (out / "Kbuild").write_text(f"obj-m += {' '.join(objects)}\n"
                                "ccflags-y += -Wno-missing-declarations\n")
    make(kern, f"M={out}", *objects)
    sizes = {}
    for obj, source in objects.items():
        nm = subprocess.run(["nm", "-S", out / obj], text=True, capture_output=True, check=True)
        for match in re.finditer(r"^\w+ (\w+) \w bench_(\w+)$", nm.stdout, re.M):
            sizes[struct_name(source, match[2])] = int(match[1], 16)
    return sizes


def object_sizes(kern):
    """{folder or file: bytes of text, data and bss}, of what has a C file and is no test."""
    sizes = {}
    for what in OBJECTS:
        sources = (kern.tree / what).glob("*.c") if what.endswith("/") else [kern.tree / what]
        objects = [kern.out / source.relative_to(kern.tree).with_suffix(".o")
                   for source in sources if not source.stem.endswith("_test")]
        objects = [obj for obj in objects if obj.exists()]
        if objects:
            size = subprocess.run(["size", *objects], text=True, capture_output=True, check=True)
            sizes[what] = sum(int(line.split()[3]) for line in size.stdout.splitlines()[1:])
    return sizes


def parts_of_series():
    return check.series_words((kernel.TOP / "patches/series").read_text())


def commit_before(first):
    """The last commit of the part that comes before this one in the series."""
    names = parts_of_series()
    count = sum(1 for part in names[:names.index(first)]
                for _ in (kernel.TOP / "patches" / part).glob("*.patch"))
    return kernel.git(kernel.TOP / "build/linux", "rev-list", "--reverse",
                      "base..HEAD").decode().split()[count - 1]


def fixed():
    """The commit that the conversions start from: all parts before it are of fixes."""
    return commit_before(next(name for name in parts_of_series() if not name.startswith("fixes-")))


def size_tables(trees):
    """x86-64, because rdmavt is not for UML."""
    trees = {"stock": trees["stock"], "fixed": demo.work_tree("fixed", fixed()),
             "series": trees["series"]}
    structs, objects = {}, {}
    for name, tree in trees.items():
        kern = kernel.Kernel("x86", tree, plain=True)
        print(f"harness: building x86 objects in {kern.tree.name}/{kern.out.name}",
              file=sys.stderr, flush=True)
        kern.config()
        make(kern, *sorted({os.path.dirname(what) + "/" for what in OBJECTS}))
        structs[name] = struct_sizes(name, kern)
        objects[name] = object_sizes(kern)
    names = [struct_name(source, struct) for source, structs in STRUCTS for struct in structs]
    return size_rows("bytes of a structure", names, structs) + \
        size_rows("bytes of code and data", OBJECTS, objects)


def size_rows(title, names, sizes):
    rows = []
    for name in names:
        stock, before, after = (sizes[tree].get(name) for tree in ("stock", "fixed", "series"))
        rows.append((name, *(str(size or "-") for size in (stock, before, after)),
                     f"{after - before:+d}" if before and after else "-"))
    return table(title, ("stock", "fixed", "series", "change"), rows)


# --- where the time goes ---

class Profile:
    """perf, while a load runs. What it sees of a UML guest are addresses of one process."""
    def __init__(self, name):
        if not shutil.which("perf"):
            kernel.die("bench: perf is not installed (Debian: linux-perf)")
        self.data = guest.scratch() / f"bench-{name}.perf"
        self.symbols = guest.scratch() / f"bench-{name}" / "kallsyms"
        self.perf = None
        self.samples = collections.defaultdict(collections.Counter)

    def begin(self, leader):
        # the guest's user space are its children, which inherit it
        self.data.unlink(missing_ok=True)
        self.perf = subprocess.Popen(["perf", "record", "-q", "-e", "cpu-clock", "-F", "1997",
                                      "-o", self.data, "-p", str(leader)],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while self.perf.poll() is None and not self.data.exists():
            time.sleep(0.01)
        time.sleep(0.2)

    def end(self, load):
        self.perf.send_signal(signal.SIGINT)
        self.perf.wait()
        done = subprocess.run(["perf", "script", "-i", self.data, "-F", "ip"], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if done.returncode or not done.stdout.strip():
            raise BenchError(f"perf has no sample of {' '.join(load)}")
        self.samples[load] += where(done.stdout, self.symbols.read_text())


def where(samples, kallsyms):
    """Counter of the guest's modules and other functions, and of what is not the guest's."""
    found = sorted({(int(fields[0], 16), fields[3] if len(fields) > 3 else fields[2])
                    for fields in map(str.split, kallsyms.splitlines()) if fields[1] in "tTwW"})
    starts = [address for address, _ in found]
    count = collections.Counter()
    for address in (int(line, 16) for line in samples.split()):
        at = bisect.bisect_right(starts, address) - 1
        if address >> 63:
            count["host's kernel"] += 1
        elif at < 0 or address - starts[at] > 1 << 16:
            count["libc and user space"] += 1
        else:
            count[found[at][1]] += 1
    return count


def profile_text(stock, series):
    """Tables; what is under 2% is one line."""
    lines = []
    for load in stock.samples:
        if load[1] == ALONE:
            continue
        percent = []
        for samples in (stock.samples[load], series.samples[load]):
            total = sum(samples.values())
            percent.append({what: 100 * number / total for what, number in samples.items()})
        named = sorted((what for what in percent[0] if percent[0][what] >= 2),
                       key=lambda what: -percent[0][what])
        rows = [(what, *(f"{one.get(what, 0):.1f}" for one in percent)) for what in named]
        rest = [sum(value for what, value in one.items() if what not in named)
                for one in percent]
        rows.append(("the rest", *(f"{value:.1f}" for value in rest)))
        lines += table(f"{' '.join(load)}: % of samples", ("stock", "series"), rows)
    return "\n".join(lines)


# --- all of it ---

def head(kernels, args):
    cpu = re.search(r"^model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    series = kernels["series"]
    version = series.make("kernelversion", stdout=subprocess.PIPE, text=True).stdout.strip()
    patches = series.git("rev-list", "--count", "base..HEAD").decode().strip()
    dirty = " and uncommitted changes" if series.git("status", "--porcelain", "-uno") else ""
    compiler = subprocess.run(["gcc", "-dumpfullversion"], text=True, capture_output=True,
                              check=True).stdout.strip()
    return [
        f"machine: {cpu[1] if cpu else platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, "
        f"Linux {platform.release()}",
        f"kernels: gcc {compiler}, no debug options; stock is Linux {version}, series that and "
        f"{patches} patches{dirty}",
        "guests:  UML, one CPU; bytes are those of x86-64",
        f"command: {' '.join(['harness/measure/bench.py', f'--pairs {args.pairs}', *args.parts])}",
        f"date:    {time.strftime('%Y-%m-%d')}",
        "",
        "Medians; ratio series/stock, or builder/by hand: median and range of the pairs, each",
        f"of which is the median of {ROUNDS} turns.",
        "CPU time for each operation is the whole guest's: both ends and what is between them.",
        "Bytes: stock, the parts of fixes on top of it, the conversions on top of those; the",
        "change is that of the conversions.",
        "",
    ]


def of_kernel(parts, crc):
    """Those of the usual pair of kernels, or of the one with a quick crc32."""
    return [part for part in parts if part != "sizes" and part.startswith("crc-") == crc]


def measure(kernels, pairs, parts):
    """{kernel: [Guest]}"""
    for name, kern in kernels.items():
        build_modules(name, kern)
    runs = {name: [] for name in kernels}
    for pair in range(pairs):
        for name, run in run_pair(kernels, parts).items():
            runs[name].append(run)
        print(f"harness: pair {pair + 1} of {pairs}", file=sys.stderr, flush=True)
    return runs


def profile(kernels, parts):
    for name, kern in kernels.items():
        build_modules(name, kern)
    profiles = {name: Profile(name) for name in kernels}
    run_pair(kernels, [part for part in parts if part != "builder"], profiles)
    return profile_text(*profiles.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    for unknown in set(args.parts) - set(PARTS):
        parser.error(f"no such part: {unknown}")
    if args.pairs < 1:
        parser.error("at least one pair")
    if args.keep and (args.parts or args.pairs < 5 or args.profile):
        parser.error("--keep is for all parts and at least five pairs")
    parts = [part for part in PARTS if part in (args.parts or PARTS)]
    trees = {"stock": demo.stock_tree(), "series": kernel.TOP / "build/linux"}
    # the pairs of kernels that have something to do, and what
    pairs = [({name: kernel.Kernel("uml", tree, plain=True, crc=crc)
               for name, tree in trees.items()}, of_kernel(parts, bool(crc)))
             for crc in (None, SOURCE / "crc")]
    kernels = pairs[0][0]
    pairs = [pair for pair in pairs if pair[1]]
    out = kernel.TOP / "out"
    out.mkdir(exist_ok=True)
    for pair, _ in pairs:
        for kern in pair.values():
            kern.build()
    lines = head(kernels, args)
    if args.profile:
        text = "\n".join(profile(*pair) for pair in pairs)
        (out / "bench-profile.txt").write_text(text)
        print("\n" + text, end="")
        return

    for pair, what in pairs:
        runs = measure(pair, args.pairs, what)
        if "builder" in what:
            lines += builder_table(runs["series"])
        lines += load_tables(runs["stock"], runs["series"], what)
    if "sizes" in parts:
        lines += size_tables(trees)
    text = "\n".join(lines).rstrip() + "\n"
    (out / "bench.txt").write_text(text)
    if args.keep:
        (SOURCE / "results.txt").write_text(text)
    print("\n" + text, end="")


if __name__ == "__main__":
    kernel.run_main(main)
