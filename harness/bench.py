#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Compare stock with the series: CPU time of a whole guest for fixed work, and bytes.

    bench.py [--pairs N] [--keep] [--profile] [PART...]

Parts: builder rxe siw nvme-rxe nvme-siw sizes; all of them unless told otherwise.

Both kernels are built from one configuration without debug options, and their
guests run in turn (stock, series, stock, ...) on this machine. CPU time is what the
host counts for the guest's processes, from the moment that the guest says it begins
to the moment that it says it is done; so booting and connecting is not in it. Only
the ratios mean something on a shared machine. The builder is measured against the
code that it replaces in the series' guest, by its clock.

The table goes to out/bench.txt, too, and with --keep to harness/bench/results.txt.
--profile samples the guests by perf (Debian: linux-perf), tells where the time
went in out/bench-profile.txt, and is no measurement.
"""
import argparse
import bisect
import collections
import os
import pathlib
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time

import demo
import guest
import kernel

SOURCE = guest.HARNESS / "bench"
BUILT = kernel.TOP / "build/bench"
PARTS = ["builder", "rxe", "siw", "nvme-rxe", "nvme-siw", "sizes"]
BLOCKS = 10
# with two, a host that takes one away while it holds a lock lets the other spin
ONE_CPU = "ncpus=1"

# name, what rdma_bench.c calls it, bytes, {device: how many}, how many at a time
RDMA_LOADS = [
    ("SEND 64 B", "send", 64, {"rxe": 50000, "siw": 100000}, 32),
    ("READ 4 KiB", "read", 4096, {"rxe": 40000, "siw": 30000}, 16),
    ("READ 64 KiB", "read", 65536, {"rxe": 4000, "siw": 7000}, 8),
    ("READ 1 MiB", "read", 1048576, {"rxe": 250, "siw": 600}, 4),
    ("WRITE 4 KiB", "write", 4096, {"rxe": 40000, "siw": 100000}, 16),
    ("WRITE 64 KiB", "write", 65536, {"rxe": 4000, "siw": 15000}, 8),
    ("WRITE 1 MiB", "write", 1048576, {"rxe": 250, "siw": 1200}, 4),
]

# name, fio's --rw, KiB, {device: how many}
START_OF_FIO = ("fio alone", "randread", 4, {"rxe": 1, "siw": 1})
NVME_LOADS = [
    START_OF_FIO,
    ("4 KiB random reads", "randread", 4, {"rxe": 10000, "siw": 10000}),
    ("128 KiB writes", "write", 128, {"rxe": 1200, "siw": 1200}),
]

SCRIPT = """
tests=$GUEST_TREE_OF_TESTS/tools/testing/selftests/rdma
fail() { echo "bench failed: $*"; exit 1; }
builder() {
	insmod "$BENCH_MODULES/sge_bench.ko" || fail sge_bench
	for ((i = 0; i < $1; i++)); do
		sed 's/^/bench block /' /sys/kernel/debug/sge_bench || fail sge_bench
	done
	rmmod sge_bench
}
connect() {
	. "$tests/wire.sh"
	wire_up "$1" && insmod "$BENCH_MODULES/rdma_bench.ko" src=$A0 dst=$A1 ||
		fail "no connection over $1"
	cp /proc/kallsyms /run/out/kallsyms
}
move() {
	echo "bench begin $1"
	echo "$2" >/sys/kernel/debug/rdma_bench/run || fail "$1"
	echo "bench end $1"
}
disconnect() {
	rmmod rdma_bench
	wire_down
}
nvme() {
	echo "bench fio $2"
	ONLY="connect fio disconnect" FIO=$3 "$tests/nvme.sh" "$1" || fail "$2 over $1"
}
"""

# what a request is made of: its file, for the includes, and the structures
STRUCTS = [
    ("drivers/infiniband/core/rw.c", ["rdma_rw_ctx", "rdma_rw_reg_ctx"]),
    ("drivers/infiniband/sw/rxe/rxe_verbs.c", ["rxe_send_wqe", "rxe_recv_wqe"]),
    ("drivers/infiniband/sw/siw/siw_verbs.c", ["siw_sqe", "siw_rqe", "siw_wqe",
                                               "siw_iwarp_tx"]),
    ("drivers/infiniband/sw/rdmavt/qp.c", ["rvt_swqe", "rvt_rwqe", "rvt_sge",
                                          "rvt_sge_state"]),
    ("drivers/nvme/host/rdma.c", ["nvme_rdma_request", "nvme_rdma_qe"]),
    ("drivers/nvme/target/rdma.c", ["nvmet_rdma_cmd", "nvmet_rdma_rsp"]),
]
# what is built of a folder, or of one file
OBJECTS = [
    "drivers/infiniband/core/",
    "drivers/infiniband/core/sge.c",
    "drivers/infiniband/sw/rxe/",
    "drivers/infiniband/sw/siw/",
    "drivers/infiniband/sw/rdmavt/",
    "drivers/nvme/host/rdma.c",
    "drivers/nvme/target/rdma.c",
]


# --- what the guests are made to do ---

def script(parts, builder):
    lines = [SCRIPT]
    if builder:
        lines.append(f"builder {BLOCKS}")
    for device in ("rxe", "siw"):
        if device in parts:
            lines += ["(", f"connect {device}"]
            lines += [f"move '{device} {name}' '{what} {size} {count[device]} {depth}'"
                      for name, what, size, count, depth in RDMA_LOADS]
            lines += ["disconnect", ") || exit"]
        if f"nvme-{device}" in parts:
            lines += [f"nvme {device} '{name}' '--rw={rw} --bs={kib}k --size=64M "
                      f"--io_size={kib * count[device]}k'"
                      for name, rw, kib, count in NVME_LOADS]
    return "\n".join(lines) + "\n"


def guest_processes():
    """[(pid, CPU seconds)] of the guests that run; of children that have ended, too."""
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        parent, session = int(fields[1]), int(fields[3])
        ticks = sum(int(field) for field in fields[11:15])
        found.append((int(stat.parent.name), parent, session, ticks))
    ours = {pid for pid, parent, session, _ in found
            if parent == os.getpid() and session == pid}
    return [(pid, ticks / os.sysconf("SC_CLK_TCK"))
            for pid, _, session, ticks in found if session in ours]


class Watch:
    """Follows what a guest says, and notes the CPU time that each load took."""
    def __init__(self, profile=None):
        self.seconds = {}
        self.blocks = []
        self.last = ""
        self.load = None
        self.start = 0
        self.profile = profile

    def begin(self):
        if self.profile:
            self.profile.begin(self.load)
        self.start = sum(cpu for _, cpu in guest_processes())

    def end(self):
        self.seconds[self.load] = sum(cpu for _, cpu in guest_processes()) - self.start
        if self.profile:
            self.profile.end()

    def __call__(self, line):
        words = line.split()
        if words[:2] == ["bench", "begin"]:
            self.load = (words[2], " ".join(words[3:]))
            self.begin()
        elif words[:2] == ["bench", "end"]:
            self.end()
        elif words[:2] == ["bench", "fio"]:
            self.load = " ".join(words[2:])
        elif words[:1] == ["ok"] and words[3:] == ["connect"]:
            self.load = (f"nvme-{words[2]}", self.load)
            self.begin()
        elif words[:1] == ["ok"] and words[3:] == ["fio"]:
            self.end()
        elif words[:2] == ["bench", "block"]:
            self.blocks.append((words[2], words[3], int(words[4]), int(words[5])))
        if line.strip():
            self.last = line.strip()


def run_guest(name, kern, parts, profile=None):
    """One guest; returns its Watch."""
    watch = Watch(profile)
    result = guest.run(kern, script(parts, "builder" in parts and name == "series"),
                       timeout=900, out=guest.scratch() / f"bench-{name}",
                       env={"GUEST_TREE_OF_TESTS": kernel.TOP / "build/linux",
                            "BENCH_MODULES": BUILT / name},
                       append=[ONE_CPU], echo=watch)
    if result.problem or result.status:
        kernel.die(f"bench: {name}: {result.problem or watch.last} (see {result.out})")
    return watch


def build_modules(name, kern):
    out = BUILT / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    done = kern.make(f"M={SOURCE}", f"MO={out}", "modules", text=True,
                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if "error" in line.lower()]
        kernel.die(f"bench: the modules do not build for {name}: "
                   f"{(errors or done.stdout.splitlines() or ['?'])[0]}")


# --- numbers ---

def ratio(stock, series):
    """(median of the pairs' ratios, least, greatest)"""
    ratios = [b / a for a, b in zip(stock, series)]
    return statistics.median(ratios), min(ratios), max(ratios)


def costs(runs, part, load, count):
    """us for each operation, run by run; of fio without its start."""
    values = []
    for run in runs:
        spent = run.seconds[part, load]
        if part.startswith("nvme"):
            spent -= run.seconds[part, START_OF_FIO[0]]
        values.append(spent / count * 1e6)
    return values


def row(name, stock, series, digits=1):
    mid, low, high = ratio(stock, series)
    return (name, f"{statistics.median(stock):.{digits}f}",
            f"{statistics.median(series):.{digits}f}", f"{mid:.2f}", f"{low:.2f}-{high:.2f}")


def table(title, columns, rows):
    """Lines; the first column to the left, the others to the right."""
    rows = [(title, *columns), *rows]
    widths = [max(len(line[i]) for line in rows) for i in range(len(rows[0]))]
    return [("  ".join([line[0].ljust(max(widths[0], 30))] +
                       [cell.rjust(width) for cell, width in zip(line[1:], widths[1:])])).rstrip()
            for line in rows] + [""]


def builder_table(runs):
    """A guest's ratio is the median of its blocks."""
    names = {"software": "software device", "direct": "direct mapping",
             "single": "one SGE", "list": "64-entry scatterlist"}
    hand, ours = collections.defaultdict(list), collections.defaultdict(list)
    rows = []
    for run in runs:
        blocks = collections.defaultdict(list)
        for device, what, one, other in run.blocks:
            blocks[device, what].append((one / 1000, other / 1000))
        for key, pairs in blocks.items():
            median = statistics.median(b / a for a, b in pairs)
            hand[key].append(statistics.median(a for a, _ in pairs))
            ours[key].append(hand[key][-1] * median)
    for key in sorted(hand, reverse=True):
        rows.append(row(f"{names[key[0]]}, {names[key[1]]}", hand[key], ours[key]))
    return table("ns for map, fill, unmap", ("by hand", "builder", "ratio", "range"), rows)


def load_tables(stock, series, parts):
    lines = []
    titles = {"rxe": "rxe, in the kernel", "siw": "siw, in the kernel",
              "nvme-rxe": "NVMe-oF over rxe", "nvme-siw": "NVMe-oF over siw"}
    for part in parts:
        device = part.split("-")[-1]
        if part in ("rxe", "siw"):
            loads = [(load[0], load[3][device]) for load in RDMA_LOADS]
        elif part.startswith("nvme-"):
            loads = [(load[0], load[3][device]) for load in NVME_LOADS
                     if load is not START_OF_FIO]
        else:
            continue
        rows = [row(name, costs(stock, part, name, count), costs(series, part, name, count))
                for name, count in loads]
        lines += table(f"{titles[part]}: us of CPU", ("stock", "series", "ratio", "range"), rows)
    return lines


# --- bytes ---

def find_structs(kern):
    """STRUCTS without those that this tree does not have."""
    for source, names in STRUCTS:
        have = [name for name in names if kern.git("grep", "-lE", rf"^\s*struct {name} \{{")]
        if have:
            yield source, have


def struct_sizes(name, kern):
    """{structure: bytes}, from arrays of that size behind the file's own includes."""
    out = BUILT / f"sizes-{name}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    objects = []
    for i, (source, structs) in enumerate(find_structs(kern)):
        arrays = "".join(f"char bench_{struct}[sizeof(struct {struct})];\n" for struct in structs)
        (out / f"bench{i}.c").write_text(f'#include "{kern.tree / source}"\n{arrays}')
        objects.append(f"bench{i}.o")
    (out / "Kbuild").write_text(f"obj-m += {' '.join(objects)}\n"
                                "ccflags-y += -Wno-missing-declarations\n")
    make(kern, f"M={out}", *objects)
    sizes = {}
    for obj in objects:
        nm = subprocess.run(["nm", "-S", out / obj], text=True, capture_output=True, check=True)
        for match in re.finditer(r"^\w+ (\w+) \w bench_(\w+)$", nm.stdout, re.M):
            sizes[match[2]] = int(match[1], 16)
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


def make(kern, *args):
    done = kern.make(*args, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if "error" in line.lower()]
        kernel.die(f"bench: {kern.tree.name}: "
                   f"{(errors or done.stdout.splitlines() or ['?'])[0]}")


def size_tables(trees):
    """x86-64, because rdmavt is not for UML."""
    structs, objects = {}, {}
    for name, tree in trees.items():
        kern = kernel.Kernel("x86", tree, plain=True)
        kern.config()
        make(kern, *sorted({os.path.dirname(what) + "/" for what in OBJECTS}))
        structs[name] = struct_sizes(name, kern)
        objects[name] = object_sizes(kern)
    names = [name for _, group in STRUCTS for name in group]
    return size_rows("bytes of a structure", names, structs) + \
        size_rows("bytes of code and data", OBJECTS, objects)


def size_rows(title, names, sizes):
    rows = []
    for name in names:
        one, other = sizes["stock"].get(name), sizes["series"].get(name)
        rows.append((name, str(one or "-"), str(other or "-"),
                     f"{other - one:+d}" if one and other else "-"))
    return table(title, ("stock", "series", "change"), rows)


# --- where the time goes ---

class Profile:
    """perf, while a load runs. What it sees of a UML guest are addresses of one process."""
    def __init__(self, name):
        if not shutil.which("perf"):
            kernel.die("bench: perf is not installed (Debian: linux-perf)")
        self.data = guest.scratch() / f"bench-{name}.perf"
        self.symbols = guest.scratch() / f"bench-{name}" / "kallsyms"
        self.perf = self.load = None
        self.shares = {}

    def begin(self, load):
        self.load = load
        pids = ",".join(str(pid) for pid, _ in guest_processes())
        self.perf = subprocess.Popen(["perf", "record", "-q", "-e", "cpu-clock", "-F", "997",
                                      "-o", self.data, "-p", pids],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def end(self):
        self.perf.send_signal(signal.SIGINT)
        self.perf.wait()
        done = subprocess.run(["perf", "script", "-i", self.data, "-F", "ip,sym"], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.shares[self.load] = shares(done.stdout, self.symbols.read_text())


def shares(samples, kallsyms):
    """Counter of functions; one entry for all that the host's kernel did."""
    found = sorted({(int(fields[0], 16), fields[2]) for fields in
                    map(str.split, kallsyms.splitlines()) if fields[1] in "tTwW"})
    starts = [address for address, _ in found]
    count = collections.Counter()
    for line in samples.splitlines():
        fields = line.split()
        if not fields:
            continue
        address = int(fields[0], 16)
        at = bisect.bisect_right(starts, address) - 1
        if address >> 63:
            count["(host kernel)"] += 1
        elif at < 0 or address - starts[at] > 1 << 16:
            count["(user space)"] += 1
        else:
            count[found[at][1]] += 1
    return count


def profile_text(stock, series, top=14):
    lines = []
    for load in series.shares:
        totals = [max(sum(one.shares[load].values()), 1) for one in (stock, series)]
        names = sorted(set(stock.shares[load]) | set(series.shares[load]),
                       key=lambda name: -max(stock.shares[load][name] / totals[0],
                                             series.shares[load][name] / totals[1]))
        rows = [(name, *(f"{100 * one.shares[load][name] / total:.1f}"
                         for one, total in zip((stock, series), totals)))
                for name in names[:top]]
        lines += table(f"{' '.join(load)}: % of samples", ("stock", "series"), rows)
    return "\n".join(lines)


# --- all of it ---

def head(kernels, args):
    cpu = re.search(r"^model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    series = kernels["series"]
    version = series.make("kernelversion", stdout=subprocess.PIPE, text=True).stdout.strip()
    patches = series.git("rev-list", "--count", "base..HEAD").decode().strip()
    compiler = subprocess.run(["gcc", "-dumpfullversion"], text=True, capture_output=True,
                              check=True).stdout.strip()
    command = " ".join(["harness/bench.py", f"--pairs {args.pairs}", *args.parts])
    return [
        f"machine: {cpu[1] if cpu else platform.machine()}, {os.cpu_count()} CPUs, "
        f"Linux {platform.release()}",
        f"kernels: UML, no debug options, gcc {compiler}; stock is Linux {version}, series that "
        f"and {patches} patches",
        f"command: {command}",
        f"date:    {time.strftime('%Y-%m-%d')}",
        "",
        "Medians; ratio series/stock, or builder/by hand: median and range of the pairs.",
        "CPU time for each operation is the whole guest's, both ends of the connection.",
        "",
    ]


def measure(kernels, args):
    """{kernel: [Watch]}"""
    runs = {name: [] for name in kernels}
    for pair in range(args.pairs):
        for name, kern in kernels.items():
            runs[name].append(run_guest(name, kern, args.parts))
        print(f"harness: pair {pair + 1} of {args.pairs}", file=sys.stderr, flush=True)
    return runs


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", choices=[*PARTS, []])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    if args.keep and (args.parts or args.pairs < 5 or args.profile):
        parser.error("--keep is for all parts and at least five pairs")
    guests = not args.parts or set(args.parts) != {"sizes"}
    parts = args.parts or PARTS

    trees = {"stock": demo.stock_tree(), "series": kernel.TOP / "build/linux"}
    kernels = {name: kernel.Kernel("uml", tree, plain=True) for name, tree in trees.items()}
    lines = head(kernels, args)
    if guests:
        for name, kern in kernels.items():
            kern.build()
            build_modules(name, kern)
    args.parts = parts
    out = kernel.TOP / "out"
    out.mkdir(exist_ok=True)
    if args.profile:
        profiles = {}
        for name, kern in kernels.items():
            profiles[name] = Profile(name)
            run_guest(name, kern, parts, profiles[name])
        text = profile_text(*profiles.values())
        (out / "bench-profile.txt").write_text(text)
        print("\n" + text, end="")
        return

    if guests:
        runs = measure(kernels, args)
        if "builder" in parts:
            lines += builder_table(runs["series"])
        lines += load_tables(runs["stock"], runs["series"], parts)
    if "sizes" in parts:
        lines += size_tables(trees)
    text = "\n".join(lines).rstrip() + "\n"
    (out / "bench.txt").write_text(text)
    if args.keep:
        (SOURCE / "results.txt").write_text(text)
    print("\n" + text, end="")


if __name__ == "__main__":
    main()
