#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Configure and build the guest kernels.

    kernel.py config|build uml|x86|i386 [--tree DIR] [--plain]

--tree is build/linux unless told otherwise, --plain is without the debug options
(for make bench). The output folder lies inside the tree, so that kbuild
uses relative paths and ccache hits across trees and clones.
"""
import argparse
import contextlib
import fcntl
import hashlib
import os
import pathlib
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from guests import alone  # noqa: E402

TOP = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = TOP / "harness/guests/configs"

# kind: (ARCH, image, fragments, debug fragments)
KINDS = {
    "uml": ("um", "linux", ["rdma", "guest-uml"], ["debug"]),
    "x86": ("x86_64", "arch/x86/boot/bzImage", ["rdma", "guest-x86"],
            ["debug", "kasan"]),
    "i386": ("i386", "arch/x86/boot/bzImage", ["guest-i386"], ["debug", "highmem"]),
}

# What KASAN instruments, where it is on: the code under test. With all of the kernel
# the x86 guest takes half as long again.
KASAN = [f"{path}/%" for path in ("drivers/block/rnbd", "drivers/infiniband", "drivers/nvme",
                                  "drivers/scsi", "drivers/target", "net/9p", "net/rds",
                                  "net/smc")]

# Options that only one of stock and series knows. Two configurations that differ in
# nothing else must not share a ccache.
OURS = re.compile(r"CONFIG_(FAIL_RDMA_MAP|INFINIBAND_(VIRT_DMA|LOOP_TEST|RDMAVT_TEST|"
                  r"RW_KUNIT_TEST|SGE_KUNIT_TEST|TWIN))\b")

# user space of the i386 guest, as usr/gen_init_cpio reads it
INITRAMFS = """
dir /dev 0755 0 0
nod /dev/console 0600 0 0 c 5 1
nod /dev/ttyS1 0600 0 0 c 4 65
dir /debug 0755 0 0
file /init {out}/i386-init 0755 0 0
file /sge_kunit.ko {out}/drivers/infiniband/core/tests/sge_kunit.ko 0644 0 0
file /rw_kunit.ko {out}/drivers/infiniband/core/tests/rw_kunit.ko 0644 0 0
file /rdma_loop.ko {out}/drivers/infiniband/core/tests/rdma_loop.ko 0644 0 0
"""


# What a build and a guest see of the shell's environment. The rest would make them
# differ from user to user: KCFLAGS, LLVM, CROSS_COMPILE, GIT_DIR, LD_PRELOAD, a locale.
KEPT = re.compile(r"(PATH|HOME|USER|LOGNAME|TMPDIR|XDG_\w+_HOME|CCACHE_\w+)$")

# kbuild takes no spaces or colons, a guest's mount options no commas; the kernel keeps
# the path of its modprobe in 256 bytes
PLACE = re.compile(r"[\w./+@~=-]{1,200}")


def die(message):
    sys.exit(f"harness: {message}")


def environment(**more):
    """The environment of what the harness starts."""
    env = {name: value for name, value in os.environ.items() if KEPT.match(name)}
    if not os.access(env.get("TMPDIR", ""), os.W_OK | os.X_OK):
        env.pop("TMPDIR", None)
    # ccache writes there
    if not os.access(env.get("HOME", ""), os.W_OK | os.X_OK):
        env["HOME"] = str(TOP / "build")
    # depmod is not where users look
    path = f"{env.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"
    return env | {"PATH": path, "LC_ALL": "C"} | more


def run_main(main):
    """What the machine refuses, such as space on a disk, is told in a line."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        # a terminal of some locale may not have a letter of a guest's output
        stream.reconfigure(errors="backslashreplace")
    try:
        with alone.alone(TOP):
            main()
    except OSError as error:
        # what fails to be written has lost its name
        die(f"{error.strerror or error}: {error.filename or TOP / 'build'}")
    except KeyboardInterrupt:
        die("interrupted")


def git(tree, *args, missing=None):
    """What git says of TREE, whoever owns it; MISSING if there is no such thing."""
    done = subprocess.run(["git", "-c", "safe.directory=*", "-C", tree, *args], capture_output=True,
                          # that of a folder further up is another one
                          env=environment(GIT_CEILING_DIRECTORIES=str(pathlib.Path(tree).parent)))
    if done.returncode and missing is None:
        why = done.stderr.decode(errors="replace").strip().splitlines() or ["?"]
        die(f"git {args[0]} in {tree}: {why[-1]}")
    return missing if done.returncode else done.stdout


class Kernel:
    def __init__(self, kind, tree=None, plain=False, crc=None):
        """CRC is a folder with a crc32.h that takes the place of the architecture's."""
        arch, image, fragments, debug = KINDS[kind]
        self.kind = kind
        self.arch = arch
        self.tree = pathlib.Path(tree or TOP / "build/linux").resolve()
        self.out = self.tree / f"build-{kind}{'-plain' if plain else ''}{'-crc' if crc else ''}"
        self.image = self.out / image
        self.modules = self.out / "modules"
        # the others have the host's root file system
        self.initramfs = self.out / "initramfs" if kind == "i386" else None
        self.flags = [f"CFLAGS_crc32-main.o=-DCONFIG_CRC32_ARCH -I{crc}"] if crc else []
        self.preload = self.out / "uml-ipi.so" if kind == "uml" else None
        names = fragments + (["plain"] if plain else debug)
        self.fragments = [CONFIGS / f"{name}.config" for name in names]
        # For ccache, instead of autoconf.h, which nearly all files include: the options
        # without OURS. So stock and series find what the other has compiled.
        self.shared = self.out / ".ccache-config"
        # depend mode: a file that is new to ccache is not run through cpp for it
        self.env = environment(
            ARCH=arch, CCACHE_NOHASHDIR="1", CCACHE_DEPEND="1",
            CCACHE_EXTRAFILES=str(self.shared), CCACHE_IGNOREHEADERS="include/generated/autoconf.h",
            KBUILD_BUILD_TIMESTAMP="1970-01-01",
            KBUILD_BUILD_USER="harness", KBUILD_BUILD_HOST="harness")

    def make(self, *args, **kwargs):
        cmd = ["make", "-s", "-C", self.tree, f"O={self.out.name}",
               f"-j{len(os.sched_getaffinity(0)) + 1}", "CC=ccache gcc",
               f"KASAN_SANITIZE=$(if $(filter {' '.join(KASAN)},$(obj)/),y,n)", *self.flags, *args]
        return subprocess.run(cmd, env=self.env, **kwargs)

    def config(self):
        """Write .config if the fragments or the tree's Kconfig defaults moved."""
        for place in (TOP, self.tree):
            if not PLACE.fullmatch(str(place)):
                die(f"no kernel can be built or run in {place}: a path of up to 200 letters, "
                    "digits and . / + @ ~ = - _ is needed")
        if not (self.tree / "scripts/kconfig").is_dir():
            die(f"there is no kernel in {self.tree}: make tree")
        stamp = self.out / ".harness-config"
        want = hashlib.sha256(self.git("ls-files", "-s", "*Kconfig*") +
                              self.git("diff", "--", "*Kconfig*") +
                              b"".join(f.read_bytes() for f in self.fragments)).hexdigest()
        if stamp.exists() and stamp.read_text() == want and (self.out / ".config").exists():
            return
        self.out.mkdir(exist_ok=True)
        merge = subprocess.run(
            ["scripts/kconfig/merge_config.sh", "-n", "-O", self.out.name, *self.fragments],
            cwd=self.tree, env=self.env, text=True, capture_output=True)
        lost = [line.split()[4] for line in merge.stdout.splitlines()
                if line.startswith("WARNING: Value requested for")]
        # options of the series are unknown to the stock tree, and to its early commits
        lost = [name for name in lost if self.knows(name)]
        if merge.returncode or lost:
            die(f"no configuration for {self.kind}: "
                f"{', '.join(lost) or merge.stderr.strip()[-200:]}")
        stamp.write_text(want)

    def git(self, *args, **kwargs):
        return git(self.tree, *args, **kwargs)

    def knows(self, option):
        return self.git("grep", "-E", rf"^\s*(menu)?config {option[7:]}$", "--", "*Kconfig*",
                        missing=b"")

    def make_initramfs(self, log):
        """One static program, on the kernel's own C library, and the modules under test."""
        self.make("headers", stdout=log, stderr=subprocess.STDOUT, check=True)
        subprocess.run(
            ["gcc", "-m32", "-Os", "-Wall", "-Werror", "-ffreestanding", "-static", "-nostdlib",
             "-nostdinc", "-isystem", self.tree / "tools/include/nolibc",
             "-isystem", self.out / "usr/include", "-include", "nolibc.h",
             "-o", self.out / "i386-init", TOP / "harness/in-guest/i386-init.c"],
            env=self.env, stdout=log, stderr=subprocess.STDOUT, check=True)
        with open(self.initramfs, "wb") as cpio:
            subprocess.run([self.out / "usr/gen_init_cpio", "-"], stdout=cpio, stderr=log,
                           input=INITRAMFS.format(out=self.out).encode(), check=True)

    def make_preload(self, log):
        subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-fPIC", "-shared",
                        "-ftls-model=initial-exec", "-o", self.preload,
                        TOP / "harness/guests/uml-ipi.c"],
                       env=self.env, stdout=log, stderr=subprocess.STDOUT, check=True)

    @contextlib.contextmanager
    def lock(self):
        """Who comes while another one builds here waits, and finds nothing left to do."""
        if not self.tree.is_dir():
            die(f"there is no kernel in {self.tree}: make tree")
        self.out.mkdir(exist_ok=True)
        with open(self.out / ".harness-lock", "w", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def build(self):
        """Build image and modules; without a change this takes seconds."""
        with self.lock():
            self.build_locked()

    def build_locked(self):
        start = time.monotonic()
        self.config()
        config = (self.out / ".config").read_text().splitlines(keepends=True)
        self.shared.write_text("".join(line for line in config if not OURS.search(line)))
        print(f"harness: building {self.kind} kernel in {self.tree.name}/{self.out.name}",
              file=sys.stderr, flush=True)
        log = self.out / "build.log"
        with open(log, "w", encoding="utf-8") as f:
            done = self.make(stdout=f, stderr=subprocess.STDOUT)
            if not done.returncode:
                done = self.make("modules_install", f"INSTALL_MOD_PATH={self.modules}",
                                 stdout=f, stderr=subprocess.STDOUT)
            try:
                if self.initramfs and not done.returncode:
                    self.make_initramfs(f)
                if self.preload and not done.returncode:
                    self.make_preload(f)
            except subprocess.CalledProcessError as failed:
                done = failed
        if done.returncode:
            errors = [line for line in log.read_text(errors="replace").splitlines()
                      if "error" in line.lower() or "No space" in line]
            die(f"{self.kind} kernel does not build: {(errors or ['see ' + str(log)])[0]}")
        print(f"harness: {self.kind} kernel ready ({time.monotonic() - start:.0f} s)",
              file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["config", "build"])
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("--tree")
    parser.add_argument("--plain", action="store_true")
    args = parser.parse_args()
    getattr(Kernel(args.kind, args.tree, args.plain), args.what)()


if __name__ == "__main__":
    run_main(main)
