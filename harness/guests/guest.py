#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Run a script in a guest on the host's own root file system, read-only.

    guest.py [--tree DIR] [--timeout S] [--out DIR] uml|x86 SCRIPT [ARG...]
    guest.py [--tree DIR] [--timeout S] [--out DIR] i386 kunit|siw
    guest.py --shell uml|x86

The i386 guest has no root file system, and runs in-guest/i386-init.c only.

The script runs as root, its output is passed on, its exit status is ours. --out
keeps what the guest left: console, dmesg, files that the script put into
/run/out. A splat in the kernel's log is a failure, and so is a guest that hangs
or dies. No root and no KVM is needed; ACCEL=kvm asks for KVM on x86.
"""
import argparse
import collections
import contextlib
import os
import pathlib
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from guests import kernel  # noqa: E402

IN_GUEST = kernel.TOP / "harness/in-guest"

SPLAT = re.compile(
    r"WARNING: |BUG: |BUG!|KASAN: |UBSAN: |DMA-API: .*(error|device driver)|\bOops\b|"
    r"Kernel panic|general protection fault|Unable to handle kernel|"
    r"INFO: (possible|inconsistent|suspicious|trying|task .* blocked|rcu)|"
    r"possible (circular|recursive) locking|suspicious RCU usage|"
    r"list_(add|del) corruption|ODEBUG: |kmemleak: .*new suspected|"
    r"scheduling while atomic|sleeping function called from|refcount_t: |"
    # of twin.c: what an adapter would have failed
    r": twin: ")
# printed at boot by kernels that carry these options
HARMLESS = re.compile(r"WARNING: .*(degraded performance|debugging kernel)|"
                      r"DMA-API: (preallocated|debugging)")
# rdma_loop.c repeats a complaint of a twin that it has expected
ON_PURPOSE = re.compile(r" on purpose: (.*: twin: .*)")


def suspicious(text):
    """The lines of a kernel log, without complaints that were made on purpose."""
    expected = collections.Counter(match[1] for match in map(ON_PURPOSE.search, text.splitlines())
                                   if match)
    for line in text.splitlines():
        message = re.sub(r"^\[ *[\d.]+\] ", "", line)
        if expected[message]:
            expected[message] -= 1
        elif not ON_PURPOSE.search(line):
            yield line


def splats(text):
    """The lines of a kernel log that tell of a bug."""
    return [line for line in suspicious(text)
            if SPLAT.search(line) and not HARMLESS.search(line)]


def splats_by_test(dmesg):
    """{test's name or None: its first splat}, by the marks of wire.sh in the log."""
    found, name = {}, None
    for line in suspicious(dmesg):
        mark = re.search(r"\] selftest: (.*)", line)
        if mark:
            name = mark[1]
        elif splats(line):
            found.setdefault(name, line.strip())
    return found


def last_words(console):
    """The line of a console that tells why there are no more."""
    lines = [line.strip() for line in console.splitlines() if line.strip()]
    panics = [line for line in lines if "Kernel panic" in line]
    return (panics or splats(console) or lines[-1:] or ["no word on its console"])[0].strip()


class Result:
    """What a run left: status is None if the guest died or hung."""
    def __init__(self, status, output, console, out, why, cpu):
        self.status = status
        self.output = output
        self.console = console
        self.out = out
        self.why = why
        self.cpu = cpu
        log = out / "dmesg"
        self.dmesg = log.read_text(errors="replace") if log.exists() else console
        self.splats = splats(self.dmesg if status is not None else console)
        leaks = out / "kmemleak"
        self.leaks = leaks.read_text(errors="replace").splitlines() if leaks.exists() else []

    @property
    def problem(self):
        """One line on what is wrong with the run itself, or None."""
        if self.status is None:
            return self.why
        if self.splats or self.leaks:
            return f"splat: {(self.splats + self.leaks)[0].strip()}"
        return None


# MiB of the UML guests that run now
promised = []
promises = threading.Lock()


@contextlib.contextmanager
def memory_folder(kern, memory):
    """Where UML keeps the guest's memory: in RAM, or on the disk that has the output."""
    if kern.kind != "uml":
        yield None
        return
    with promises:
        # a file has no blocks before the guest has written to it
        need, looked_at = sum(promised) + memory, []
        for folder in ("/dev/shm", scratch()):
            with contextlib.suppress(OSError):
                stat = os.statvfs(folder)
                free = stat.f_bavail * stat.f_frsize >> 20
                usable = os.access(folder, os.W_OK | os.X_OK) and not stat.f_flag & os.ST_NOEXEC
                if usable and free >= need:
                    break
                looked_at.append(f"{folder} has {free}" if usable else f"{folder} is not usable")
        else:
            kernel.die(f"no room for {need} MiB of guests' memory: {', '.join(looked_at)}")
        promised.append(memory)
    try:
        yield folder
    finally:
        with promises:
            promised.remove(memory)


def surroundings(out, folder):
    """What every guest finds on the host, whoever starts it."""
    for name in ("AS", "DATA", "FSIZE", "NOFILE", "NPROC", "STACK", "CORE"):
        limit = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(limit)
        # UML opens each file that its guest does; without a limit of the stack, or
        # with one in excess of this, libraries are mapped elsewhere
        soft = {"CORE": 0, "STACK": 8 << 20}.get(name, hard)
        resource.setrlimit(limit, (soft if hard == resource.RLIM_INFINITY else min(soft, hard),
                                   hard))
    return {"cwd": out, "env": kernel.environment(**({"TMPDIR": str(folder)} if folder else {}))}


# TCG is an eighth faster with four levels of page tables
CPU = {"tcg": "max,la57=off", "kvm": "host"}
# and again if it does not read the time from the HPET
CLOCK = "tsc=reliable"
# the device that KUnit maps memory for, and that software devices can be twins of
ADAPTER = "0000:00:05.0"


def qemu(kern, out, memory):
    """What the guests under QEMU have in common: a console, a tty on stdio."""
    accel = os.environ.get("ACCEL") or "tcg"
    return ["qemu-system-x86_64", "-machine", "q35", "-nodefaults", "-no-reboot",
            "-display", "none", "-accel", accel, "-cpu", CPU.get(accel, "max"),
            # without ACPI only the first CPU of a socket is found
            "-smp", "2,sockets=2", "-m", str(memory), "-kernel", str(kern.image),
            "-serial", f"file:{out}/console", "-chardev", "stdio,id=tty,signal=off"]


def command(kern, out, memory, append):
    """The command line that boots the guest, and where its console goes."""
    if kern.initramfs:
        return [*qemu(kern, out, memory), "-serial", "chardev:tty", "-initrd", str(kern.initramfs),
                "-append", shlex.join(["console=ttyS0", CLOCK, "panic=-1", "oops=panic",
                                       "printk.time=1",
                                       "ip=10.9.0.1:::255.255.255.0:guest:dummy0:off", *append])]
    args = [f"init={IN_GUEST}/init", "panic=-1", "ro", "printk.time=1",
            # splats are looked for in all of it, when the test has ended
            "log_buf_len=8M", f"GUEST_KIND={kern.kind}",
            f"GUEST_TOP={kernel.TOP}", f"GUEST_DIR={out}", *append]
    if kern.kind == "uml":
        # no symbol is looked up in a signal handler; not to write to the user's home
        return ["env", "LD_BIND_NOW=1", f"LD_PRELOAD={kern.preload}", str(kern.image),
                f"mem={memory}M", "uml_dir=.", "seccomp=on", "ncpus=2",
                "root=/dev/root", "rootfstype=hostfs", "rootflags=/",
                "con=null", "con0=null,fd:1", "con1=fd:0,fd:2", "ssl=null", *args]
    # the IOMMU is for the device behind it: virtio does not ask for it
    return [*qemu(kern, out, memory), "-device", "intel-iommu",
            "-device", f"pci-testdev,addr={ADAPTER[8:10]}",
            "-device", "virtio-serial", "-device", "virtconsole,chardev=tty",
            "-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,"
                       "multidevs=remap",
            "-virtfs", f"local,path={out},mount_tag=out,security_model=none",
            "-append", shlex.join(["console=ttyS0", CLOCK, "root=root", "rootfstype=9p",
                                   "rootflags=trans=virtio,version=9p2000.L,cache=loose,"
                                   "msize=512000", *args])]


def prepare(kern, out, script, timeout, env):
    """What the guest's init reads: environment and script."""
    for name in ("status", "started", "dmesg", "kmemleak", "console", "wire.pcap"):
        (out / name).unlink(missing_ok=True)
    env = dict(env, GUEST_HARNESS=IN_GUEST, GUEST_KIND=kern.kind, GUEST_TIMEOUT=timeout,
               GUEST_MODULES=kern.modules, GUEST_TREE=kern.tree)
    (out / "env").write_text("".join(f"export {name}={shlex.quote(str(value))}\n"
                                     for name, value in env.items()))
    (out / "run").write_text(script)


def boot(kern, out, folder, timeout, memory, append, echo):
    """One boot; returns (script's output, why it ended early or None, CPU seconds)."""
    # whatever ends us ends the guest, too
    argv = ["setpriv", "--pdeathsig", "KILL", *command(kern, out, memory, append)]
    uml = kern.kind == "uml"
    with open(out / "console", "wb") as console:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True,
                                 stdout=console if uml else subprocess.PIPE,
                                 stderr=subprocess.PIPE if uml else console,
                                 **surroundings(out, folder))
    timed_out = threading.Event()

    def kill():
        timed_out.set()
        os.killpg(child.pid, signal.SIGKILL)

    # init ends the script at its own limit; this one is for a guest that hangs
    timer = threading.Timer(timeout + {"uml": 30, "x86": 180, "i386": 0}[kern.kind], kill)
    timer.start()
    output = []
    try:
        with child.stderr if uml else child.stdout as lines:
            for raw in lines:
                line = raw.decode(errors="replace").replace("\r", "")
                output.append(line)
                if echo:
                    echo(line)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        cpu = usage.ru_utime + usage.ru_stime
    finally:
        timer.cancel()
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    why = None
    if timed_out.is_set():
        why = "the guest hung"
    elif child.returncode < 0 and not (out / "status").exists() and \
            child.returncode != -signal.SIGABRT:    # how UML ends when it panics
        why = f"the guest died of {signal.Signals(-child.returncode).name}"
    return "".join(output), why, cpu


def read_status(out, output):
    """From its last line, where there is no file system to leave files in."""
    if output:
        (out / "started").touch()
    if match := re.search(r"^status (\d+)$", output, re.M):
        (out / "status").write_text(match[1])


def run(kern, script, *, timeout=300, out=None, env=(), memory=None, append=(), echo=None):
    """Boot KERN, run SCRIPT (text) in it, collect what it left."""
    out = pathlib.Path(out or tempfile.mkdtemp(prefix="guest.", dir=scratch())).resolve()
    out.mkdir(parents=True, exist_ok=True)
    # i386: the most lowmem there can be is 896M
    memory = memory or {"uml": 1024, "x86": 3072, "i386": 2048}[kern.kind]
    if kern.initramfs:
        append = ["--", script]
    for attempt in (1, 2):
        prepare(kern, out, script, timeout, dict(env))
        with memory_folder(kern, memory) as folder:
            output, why, cpu = boot(kern, out, folder, timeout, memory, append, echo)
        if kern.initramfs:
            read_status(out, output)
        (out / "output").write_text(output)
        console = (out / "console").read_text(errors="replace")
        early = splats(console.partition(" as init process")[0])
        if (out / "started").exists() and not early:
            break
        # seen once in 25 boots under TCG, on stock kernels, too
        print(f"harness: the {kern.kind} guest {'splats' if early else 'died'} before its init ran"
              f"{', booting it again' if attempt == 1 else ''}", file=sys.stderr, flush=True)
    status = None
    if (out / "status").exists():
        status = int((out / "status").read_text())
    elif shutil.disk_usage(out).free < 1 << 20:
        why = f"no space left in {out}"
    else:
        why = f"{why or 'the guest died'}: {last_words(console)} (see {out}/console)"
    return Result(status, output, console, out, why, cpu)


def scratch():
    path = kernel.TOP / "build/run"
    path.mkdir(parents=True, exist_ok=True)
    return path


def shell(kern):
    out = pathlib.Path(tempfile.mkdtemp(prefix="shell.", dir=scratch()))
    prepare(kern, out, "", 0, {"GUEST_SHELL": 1, "TERM": os.environ.get("TERM", "linux")})
    argv = command(kern, out, 2048, [])
    with open(out / "console", "wb") as console, memory_folder(kern, 2048) as folder:
        found = surroundings(out, folder)
        if kern.kind == "uml":
            return subprocess.call(argv, stdout=console, **found)
        saved = subprocess.run(["stty", "-g"], capture_output=True, text=True).stdout.strip()
        subprocess.run(["stty", "raw", "-echo"])
        try:
            return subprocess.call(argv, stderr=console, **found)
        finally:
            subprocess.run(["stty", saved])


def host_script(args):
    """What runs the script that the command line names, where the guest can see it."""
    script = [str(pathlib.Path(args.script[0]).resolve()), *args.script[1:]]
    if not os.path.exists(script[0]):
        kernel.die(f"no such script: {script[0]}")
    if not script[0].startswith(f"{kernel.TOP}/"):
        # the guest may have a tmpfs there
        args.out = args.out or tempfile.mkdtemp(prefix="guest.", dir=scratch())
        os.makedirs(args.out, exist_ok=True)
        script[0] = shutil.copy(script[0], f"{args.out}/script").replace(args.out, "/run/out")
    return f"exec {shlex.join(script)}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=sorted(kernel.KINDS))
    parser.add_argument("script", nargs=argparse.REMAINDER)
    parser.add_argument("--shell", action="store_true")
    parser.add_argument("--tree")
    parser.add_argument("--timeout", type=int, default=600)
    parser.add_argument("--out")
    args = parser.parse_args()
    if bool(args.script) == args.shell or args.shell and args.kind == "i386":
        parser.error("a script or --shell")
    kern = kernel.Kernel(args.kind, args.tree)
    kern.build()
    if args.shell:
        sys.exit(shell(kern))
    script = args.script[0] if kern.initramfs else host_script(args)
    result = run(kern, script, timeout=args.timeout, out=args.out,
                 echo=lambda line: print(line, end="", flush=True))
    if result.problem:
        kernel.die(result.problem)
    if not args.out:
        shutil.rmtree(result.out)
    sys.exit(result.status)


if __name__ == "__main__":
    kernel.run_main(main)
