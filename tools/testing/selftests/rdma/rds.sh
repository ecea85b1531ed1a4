#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# rds.sh [rxe] [siw] - RDS over a veth pair.
#
# Messages, RDMA and atomics between two sockets, see rds.py; then connections,
# devices and the module go away under load, and mappings, allocations and MRs
# fail. RDS does not run on siw, and that is all that is found there.
#
# FAIL_AT=which mappings fail, ONLY=tests.
# shellcheck disable=SC2015,SC2016,SC2317

# shellcheck source=wire.sh
. "$(dirname "$0")/wire.sh"

# of some 400 of a connection with rings of 64, more if both ends connect at once
FAIL_AT=${FAIL_AT:-1 65 129 200 300 386}
SYSCTL=/proc/sys/net/rds/ib

# rds COMMAND [ARG...]: rds.py, whose last line says what is wrong, or missing
rds()
{
	timeout 600 python3 "$DIR/rds.py" "$@" > "$LOG/rds" 2>&1
	rds_result $? "$LOG/rds"
}

# rds_result STATUS OUTPUT
rds_result()
{
	local last

	last=$(tail -n1 "$2")
	case $1 in
	0) [ -z "$last" ] || say "$last" ;;
	"$KSFT_SKIP") skip "$last" ;;
	*) say "${last:-rds.py hangs}"; return 1 ;;
	esac
}

# rds_wire COMMAND [ARG...]: it says how many bytes, half of them in each direction
rds_wire()
{
	local before bytes

	before=$(wire_bytes)
	rds "$@" || return
	bytes=$(sed -n 's/^bytes=//p' "$LOG/rds")
	[ $((2 * ($(wire_bytes) - before))) -gt "$bytes" ] ||
		{ say "too few bytes on the wire"; return 1; }
}

# load_start [OPTION...]
load_start()
{
	# not what the one before it has left, which can take long to be overwritten
	rm -f "$LOG/load"
	timeout 900 python3 "$DIR/rds.py" load "$@" > "$LOG/load" 2>&1 &
	LOAD=$!
	wait_for 200 eval 'grep -q ready "$LOG/load" || ! kill -0 $LOAD'
	grep -qs ready "$LOG/load" || { say "no load"; load_stop; return 1; }
	# some of it has to be under way
	sleep 0.5
}

load_stop()
{
	kill "$LOAD" 2> /dev/null
	wait "$LOAD"
	rds_result $? "$LOG/load"
}

# On a slow machine an answer can take longer than the two tries of RDS, and an
# RDMA that was under way when a connection is lost is lost as well. With 7, rxe
# never gives up.
load_rds()
{
	modprobe rds_rdma rds_ib_retry_count=5 "$@" || return 1
	[ -d $SYSCTL ]
}

reload()
{
	[ ! -d $SYSCTL ] || modprobe -r rds_rdma || return 1
	load_rds "$@"
}

# pages that are pinned and not yet given back; nobody else pins some for long
pinned()
{
	awk '$1 == "nr_foll_pin_acquired" { n += $2 }
		$1 == "nr_foll_pin_released" { n -= $2 }
		END { print n }' /proc/vmstat
}

# An MR whose last message was still on its way when it was freed is unmapped with
# others.
nothing_pinned()
{
	wait_for 60 eval 'rds flush; [ "$(pinned)" = 0 ]' ||
		{ say "$(pinned) pages stay pinned"; return 1; }
}

# --- the tests ---

t_messages()
{
	rds_wire messages
}

# What receives a message maps each of its fragments. What sends it maps it once.
t_map_calls()
{
	local n

	[ -d "$FAIL_MAP" ] || skip "no CONFIG_FAIL_RDMA_MAP" || return
	rds stream 1048576 1 || return 1
	fail_map probability=100 space=$OFTEN || return 1
	rds stream 1048576 20 || return 1
	n=$((OFTEN - $(cat "$FAIL_MAP/space")))
	fail_map
	say "$n mappings"
	# receives are posted again some time later: those of the message before count,
	# or those of the last one do not
	[ $n -ge $((19 * (1 + 256))) ] && [ $n -lt $((22 * (3 + 256))) ]
}

t_rdma_write()
{
	rds_wire rdma write && nothing_pinned
}

t_rdma_read()
{
	rds_wire rdma read && nothing_pinned
}

t_mr()
{
	rds mr && nothing_pinned
}

t_get_mr()
{
	rds get_mr
}

t_bounds()
{
	rds bounds && nothing_pinned
}

t_atomics()
{
	rds atomics && nothing_pinned
}

t_masked_atomics()
{
	reload && rds masked_atomics "$TYPE" && nothing_pinned
}

t_refused_atomics()
{
	[ "$TYPE" = rxe ] || skip "what is refused depends on the device" || return
	rds refused_atomics && nothing_pinned
}

t_pool()
{
	reload rds_ib_mr_8k_pool_size=20 && rds pool 20 && nothing_pinned
}

t_congestion()
{
	reload && rds congestion "$TYPE"
}

t_lost()
{
	command -v tc > /dev/null || skip "no tc" || return
	modprobe -q sch_netem || skip "no CONFIG_NET_SCH_NETEM" || return
	reload rds_ib_retry_count=1 && load_start || return 1
	tc qdisc add dev d0 root netem loss 100%
	# of either end; what is flushed may be seen before what has failed
	wait_for 60 eval 'log_of_test | grep -q "disconnecting and reconnecting"'
	local ret=$?

	tc qdisc del dev d0 root
	load_stop && reload || return 1
	[ $ret = 0 ] || { say "no connection was lost"; return 1; }
}

t_cancel()
{
	command -v tc > /dev/null || skip "no tc" || return
	modprobe -q sch_netem || skip "no CONFIG_NET_SCH_NETEM" || return
	# what the wire has taken is taken back when the connection is lost
	reload rds_ib_retry_count=1 && rds cancel && nothing_pinned && reload
}

t_device_gone()
{
	local i

	load_start || return 1
	for i in 0 1; do
		rdma link delete r$i && wire_links "$TYPE" && rds up ||
			{ say "after r$i has gone"; load_stop; return 1; }
	done
	load_stop
}

# With rings of this size two connections have 32 MiB of fragments
t_unload()
{
	local before i

	for ((i = 0; i < 3; i++)); do
		reload && echo 4096 > $SYSCTL/max_recv_wr && rds ping || return 1
		modprobe -r rds_rdma || { say "cannot unload rds_rdma"; return 1; }
		# what the first one leaves behind is not counted
		[ $i != 0 ] || before=$(free_kb)
	done
	i=$((before - $(free_kb)))
	say "$i KiB less"
	[ $i -lt 25000 ] && load_rds
}

# the kernel's log since this test began
log_of_test()
{
	dmesg | awk '/selftest: / { text = "" } { text = text $0 "\n" } END { printf "%s", text }'
}

free_kb()
{
	sync
	echo 3 > /proc/sys/vm/drop_caches
	sleep 0.5
	awk '$1 == "MemFree:" { print $2 }' /proc/meminfo
}

# The n-th mapping fails, of headers or fragments of either side
t_fail_connect()
{
	local n hit=0 tried=0

	[ -d "$FAIL_MAP" ] || skip "no CONFIG_FAIL_RDMA_MAP" || return
	for n in $FAIL_AT; do
		reload || return 1
		echo 64 > $SYSCTL/max_send_wr
		echo 64 > $SYSCTL/max_recv_wr
		tried=$((tried + 1))
		fail_map probability=100 times=1 space="$n" || return 1
		rds ping || { say "no connection (n=$n)"; return 1; }
		[ "$(cat "$FAIL_MAP/times")" != 0 ] || hit=$((hit + 1))
		fail_map
	done
	say "$hit mappings of $tried failed"
	reload && [ $((2 * hit)) -gt $tried ]
}

t_fail_io()
{
	[ -d "$FAIL_MAP" ] || skip "no CONFIG_FAIL_RDMA_MAP" || return
	load_start rdma || return 1
	fail_map probability=5 times=200
	wait_for 60 eval '[ "$(cat "$FAIL_MAP/times")" = 0 ]' ||
		{ say "too few mappings failed"; load_stop; return 1; }
	fail_map
	load_stop && rds messages 1 && rds rdma write && nothing_pinned
}

# allocations of the sender and of all kworkers
t_fail_alloc()
{
	local n ret=0 hit=0

	[ -d $FAIL_SLAB ] || skip "no CONFIG_FAILSLAB" || return
	fail_in $FAIL_SLAB 'rds|rdma_rxe'
	load_start faults || return 1
	fail_tasks kworker 1
	for n in 1 3 10; do
		fail_slab probability="$n" || return 1
		sleep 2
		! failed $FAIL_SLAB || hit=$((hit + 1))
	done
	fail_slab
	fail_tasks kworker 0
	wire_renew "$TYPE" || ret=1
	load_stop && rds messages 1 && nothing_pinned && [ $ret = 0 ] && [ $hit -ge 2 ]
}

up()
{
	wire_up "$TYPE" && load_rds
}

why_not()
{
	[ "$TYPE" != siw ] || echo "RDS takes no iWARP devices"
}

cleanup()
{
	fail_map 2> /dev/null
	modprobe -r rds_rdma 2> /dev/null
	wire_down
}

TESTS="messages map_calls rdma_write rdma_read mr get_mr bounds atomics
	masked_atomics refused_atomics pool congestion lost cancel device_gone unload fail_connect
	fail_io fail_alloc"

begin python3 rdma
run_tests "$@"
