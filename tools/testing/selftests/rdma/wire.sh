# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# wire.sh - sourced by the tests of kernel ULPs over software RDMA devices.
#
# Two devices of one type, r0 on d0 (10.9.0.1) and r1 on d1 (10.9.1.1), on the
# two ends of a veth pair. Most ULPs live in the initial network namespace only,
# and there two local addresses talk through lo, or inside the driver. Policy
# routing makes every packet between the two cross the pair. This takes the local
# table out of its place while a test runs: use a machine that has nothing else
# to do.
#
# CAPTURE=FILE keeps what crosses the wire, as tcpdump writes it.

DIR=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=/dev/null
. "$DIR/../kselftest/ktap_helpers.sh"

# shellcheck disable=SC2034
LOG=$(mktemp -d)

A0=10.9.0.1
A1=10.9.1.1

wire_rules()
{
	ip rule "$1" pref 10 iif lo to $A1 lookup 101
	ip rule "$1" pref 11 iif lo to $A0 lookup 102
	# rdma_cm looks up which device a request came in by
	ip rule "$1" pref 12 oif d0 to $A1 lookup 101
	ip rule "$1" pref 13 oif d1 to $A0 lookup 102
}

# wire_up TYPE
wire_up()
{
	local i mac0 mac1

	modprobe "rdma_$1" 2>/dev/null || modprobe "$1" || return 1
	ip link add d0 mtu 9000 type veth peer name d1 mtu 9000 || return 1
	ip addr add $A0/24 dev d0
	ip addr add $A1/24 dev d1
	ip link set d0 up
	ip link set d1 up
	for i in all d0 d1; do
		echo 1 > /proc/sys/net/ipv4/conf/$i/accept_local
		echo 0 > /proc/sys/net/ipv4/conf/$i/rp_filter
	done
	ip route add $A1/32 dev d0 src $A0 table 101
	ip route add $A0/32 dev d1 src $A1 table 102
	wire_rules add
	ip rule add pref 100 lookup local
	ip rule del pref 0
	# the first rdma_resolve_addr() with a cold ARP entry takes half a minute
	read -r mac0 < /sys/class/net/d0/address
	read -r mac1 < /sys/class/net/d1/address
	ip neigh replace $A1 lladdr "$mac1" dev d0 nud permanent
	ip neigh replace $A0 lladdr "$mac0" dev d1 nud permanent
	[ -z "$CAPTURE" ] || capture_start || return 1
	wire_links "$1"
}

# before the first connection, because a reader of TCP needs a stream's start
capture_start()
{
	: > "$CAPTURE.log"
	# a file that it opens itself it would chown(), which not every file system takes
	tcpdump -i d0 -s 0 -B 65536 -Z root -w - tcp or udp port 4791 \
		> "$CAPTURE" 2> "$CAPTURE.log" &
	TCPDUMP=$!
	wait_for 60 grep -q "listening on" "$CAPTURE.log"
}

# wire_links TYPE: also to bring a device back that a test has removed
wire_links()
{
	rdma link show r0/1 > /dev/null 2>&1 ||
		rdma link add r0 type "$1" netdev d0 || return 1
	rdma link show r1/1 > /dev/null 2>&1 ||
		rdma link add r1 type "$1" netdev d1
}

# wire_renew TYPE: rxe's QP for MADs goes into the error state if a packet cannot be
# allocated, and gets nothing from then on. Only a new device helps.
wire_renew()
{
	rdma link delete r0 && rdma link delete r1 && wire_links "$1"
}

wire_down()
{
	rdma link delete r0 2> /dev/null
	rdma link delete r1 2> /dev/null
	[ -e /sys/class/net/d0 ] || return
	# what is still in the buffer belongs to it
	[ -z "$TCPDUMP" ] || { sleep 1; kill "$TCPDUMP"; wait "$TCPDUMP"; }
	TCPDUMP=
	ip rule add pref 0 lookup local
	ip rule del pref 100
	wire_rules del
	ip link del d0
}

# bytes that d0 has sent
wire_bytes()
{
	cat /sys/class/net/d0/statistics/tx_bytes
}

# closed_early FILE: whether the rping that wrote it has failed for no reason but that
# one of its threads closed the event channel while the other one still looked at it
closed_early()
{
	grep -q "^rdma_get_cm_event: Bad file descriptor" "$1" &&
		! grep -qv -e "^rdma_get_cm_event: Bad file" -e "DISCONNECT EVENT" \
			-e "^wait for RDMA_READ_ADV state 10" "$1"
}

# pause SECONDS: a sleep that forks nothing. On a debug kernel that takes long, and
# what is waited for is looked at by built-ins, too.
mkfifo "$LOG/nothing" && exec {NOTHING}<> "$LOG/nothing" || exit 1
pause()
{
	read -rt "$1" -u "$NOTHING" || :
}

# wait_for SECONDS COMMAND...
wait_for()
{
	local end=$((SECONDS + $1))

	shift
	until "$@" > /dev/null 2>&1; do
		[ $SECONDS -lt $end ] || return 1
		pause 0.1
	done
}

say()
{
	ktap_print_msg "$@"
}

# skip REASON: what a test returns that cannot be run
skip()
{
	SKIPPED=$1
	return "$KSFT_SKIP"
}

# run NAME COMMAND...: one test; the kernel log shows where it began
run()
{
	local name=$1

	shift
	echo "selftest: $name" > /dev/kmsg
	"$@"
	case $? in
	0) ktap_test_pass "$name" ;;
	"$KSFT_SKIP")
		__ktap_test ok "$name" "SKIP $SKIPPED"
		KTAP_CNT_SKIP=$((KTAP_CNT_SKIP + 1))
		;;
	*)
		ktap_test_fail "$name"
		# what it has left on would be the failure of those after it
		{
			fail_map probability=0
			fail_slab probability=0
			fail_tasks . 0
			load_stop
		} > /dev/null 2>&1
		;;
	esac
}

# begin TOOL...: who starts a test is root, and has these
begin()
{
	local tool

	ktap_print_header
	[ "$(id -u)" = 0 ] || { ktap_skip_all "must be root"; exit "$KSFT_SKIP"; }
	for tool; do
		command -v "$tool" > /dev/null ||
			{ ktap_skip_all "no $tool"; exit "$KSFT_SKIP"; }
	done
}

# why_not TEST: a script's own prints why a test cannot run on devices of TYPE
why_not()
{
	:
}

# run_tests [TYPE...]: those of ONLY, or TESTS, on each type of device, between up()
# and cleanup(), which are the script's
run_tests()
{
	local t why

	[ $# -gt 0 ] || set -- rxe siw
	ONLY=${ONLY:-$TESTS}
	# shellcheck disable=SC2086
	ktap_set_plan $(($# * $(echo $ONLY | wc -w)))
	trap cleanup EXIT
	for TYPE; do
		up || ktap_exit_fail_msg "cannot start on $TYPE"
		for t in $ONLY; do
			why=$(why_not "$t")
			if [ "$why" ]; then
				run "$TYPE $t" skip "$why"
			else
				run "$TYPE $t" "t_$t"
			fi
		done
		cleanup
	done
	ktap_finished
}

# what a fault may do until it is asked how often it did
OFTEN=1000000

# fail_map ATTR=VALUE...: make calls of the SGE builder fail, or no more
FAIL_MAP=/sys/kernel/debug/fail_rdma_map
fail_map()
{
	local set

	for set in probability=0 interval=1 times=$OFTEN space=0 verbose=0 "$@"; do
		echo "${set#*=}" > $FAIL_MAP/"${set%=*}" || return 1
	done
}

# failed FOLDER: something has, since the fault was set up
failed()
{
	local n

	n=$((OFTEN - $(cat "$1"/times)))
	say "${1##*/}: $n"
	[ $n -gt 0 ]
}

# fail_slab ATTR=VALUE...: the same for allocations, of the tasks that fail_tasks names
FAIL_SLAB=/sys/kernel/debug/failslab
fail_slab()
{
	local set

	for set in probability=0 interval=1 times=$OFTEN space=0 verbose=0 \
		   task-filter=Y ignore-gfp-wait=N "$@"; do
		echo "${set#*=}" > $FAIL_SLAB/"${set%=*}" || return 1
	done
}

# fail_tasks PATTERN 0|1. A kworker starts modprobe, which must not fail: not all
# architectures survive an exec() without memory.
fail_tasks()
{
	local p

	[ "$MODPROBE" ] || read -r MODPROBE < /proc/sys/kernel/modprobe
	case $2 in
	0) echo "$MODPROBE" ;;
	1) echo ;;
	esac > /proc/sys/kernel/modprobe
	for p in $(pgrep "$1"); do
		echo "$2" > /proc/"$p"/make-it-fail
	done 2> /dev/null
}

# fail_in FOLDER PATTERN: under these modules alone, where the kernel can tell. A file
# system reads in kworkers, too.
fail_in()
{
	local name size addr start='' end=''

	[ -e "$1"/require-start ] || return 0
	while read -r name size _ _ _ addr _; do
		[[ $name =~ ^($2) ]] || continue
		[[ $start && $start < $addr ]] || start=$addr
		addr=$(printf '0x%x' $((addr + size)))
		[[ $end > $addr ]] || end=$addr
	done < /proc/modules
	echo "$start" > "$1"/require-start
	echo "$end" > "$1"/require-end
}
