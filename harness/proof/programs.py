# SPDX-License-Identifier: GPL-2.0
"""The selftests that are programs, which are built before their guest boots."""
import subprocess

from guests import kernel

# a walk at random that is the same each time
WALK = "--random 60 20261130"
SHORT_WALK = "--random 30 20261130"
SCRIPT = """
. "$GUEST_TREE/tools/testing/selftests/rdma/wire.sh"
program=$GUEST_TREE/build-{kind}/selftests/rdma/{program}
{up} && [ -x "$program" ] || echo "not ok 1 {program} cannot run"
for arguments in {arguments}; do
	# 1 is a test that has failed, and has been told
	$program $arguments {device}
	[ $? -le 1 ] || echo "not ok 1 {program} ends early"
done
{down}
"""
RXE = {"up": "wire_up rxe", "device": "r0", "down": "wire_down"}
PROGRAMS = {
    "rxe_ring": RXE,
    "rxe_mr": RXE,
    "rxe_peer": {**RXE, "device": "r0 $A0 $A1"},
    # it makes a device of its own
    "siw_ring": {"up": "true", "device": "", "down": ""},
}
# kind: {guest's test: {program: what it is called with, one run after the other}}
TESTS = {
    "uml": {
        "rings-rxe": {"rxe_ring": f'"" "{WALK}"'},
        "memory-rxe": {"rxe_mr": '""'},
        "peer-rxe": {"rxe_peer": f'"" "{SHORT_WALK}"'},
        "rings-siw": {"siw_ring": f'"" "{WALK}"'},
    },
    # KASAN sees what a step of a walk does beyond its bounds
    "x86": {"walks": {"rxe_ring": f'"{WALK}"', "siw_ring": f'"{WALK}"',
                      "rxe_peer": f'"{SHORT_WALK}"'}},
}
# {selftest that is a script: the program that is its server}
SERVERS = {"9p": "9p_server"}


def script(kind, name):
    return "".join(SCRIPT.format(kind=kind, program=program, arguments=arguments,
                                 **PROGRAMS[program])
                   for program, arguments in TESTS[kind][name].items())


def server(test):
    """How a selftest is told where its server is."""
    return (f'SERVER="$GUEST_TREE_OF_TESTS/build-$GUEST_KIND/selftests/rdma/{SERVERS[test]}"'
            if test in SERVERS else "")


def needed(kind, name, script):
    """What a guest's test is, and what its script starts."""
    return [*TESTS.get(kind, {}).get(name, ()),
            *(program for program in SERVERS.values() if f"/{program}" in (script or ""))]


def build(kern, name, script):
    for program in needed(kern.kind, name, script):
        build_program(kern, program)


def build_program(kern, program):
    """As `make -C tools/testing/selftests TARGETS=rdma` does, on the headers of this tree."""
    headers = kern.out / "headers"
    out = kern.out / "selftests/rdma"
    out.mkdir(parents=True, exist_ok=True)
    log = kern.out / "selftests.log"
    with kern.lock(), open(log, "w", encoding="utf-8") as f:
        for command in (
                # UML has none of its own
                ["make", "-s", "-C", kern.tree, f"O={headers.relative_to(kern.tree)}", "ARCH=x86_64",
                 "headers"],
                ["make", "-s", "-C", kern.tree / "tools/testing/selftests/rdma", f"OUTPUT={out}",
                 f"KHDR_INCLUDES=-isystem {headers}/usr/include", "ARCH=x86_64", "CC=gcc",
                 "USERCFLAGS=-Werror", f"{out}/{program}"]):
            if subprocess.run(command, stdout=f, stderr=subprocess.STDOUT,
                              env=kernel.environment()).returncode:
                said = log.read_text(errors="replace").splitlines()
                wrong = [line for line in said if "rror" in line or "No rule" in line] or said[-1:]
                kernel.die(f"{program} does not build: {(wrong or ['see ' + str(log)])[0]}")
