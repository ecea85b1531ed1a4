#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# rnbd.sh [rxe] [siw] - rnbd on RTRS over a veth pair.
#
# What is written is read back and compared (fio), with chunks that are invalidated
# after each use and without, and of several sizes. Then sessions, one of two paths,
# the server, modules and devices go away under I/O, and mappings and allocations
# fail. siw has no WRITE WITH IMM, which is all that RTRS sends.
#
# SIZE=bytes to write at each block size, CYCLES=connects under I/O, ONLY=tests,
# DEPTH=requests that a session has memory for, of up to 1 MiB: not more than 256.
# shellcheck disable=SC2015,SC2016,SC2119,SC2317

# shellcheck source=wire.sh
. "$(dirname "$0")/wire.sh"
# shellcheck source=disk.sh
. "$(dirname "$0")/disk.sh"

SIZE=${SIZE:-16M}
CYCLES=${CYCLES:-20}
DEPTH=${DEPTH:-64}
# which mappings fail, in thousandths of those of a connect and a disconnect
FAIL_AT=${FAIL_AT:-0 300 638 639 640 645 660 680 700 850 955 960 970 980 982 984 987 990 995}
SESSION=/sys/class/rtrs-client/selftest
THERE=ip:$A0@ip:$A1
# the other way round: a client on r1, a server on r0
BACK=ip:$A1@ip:$A0

# --- the server: /dev/ram0 on r1 ---

# target_up [PARAMETER=VALUE...] of rtrs_server
target_up()
{
	modprobe rtrs_server sess_queue_depth="$DEPTH" "$@" && modprobe rnbd_server &&
		modprobe brd rd_nr=1 rd_size=65536 && [ -b /dev/ram0 ]
}

target_down()
{
	modprobe -r rnbd_server && modprobe -r rtrs_server
}

# target_again [PARAMETER=VALUE...]
target_again()
{
	target_down && target_up "$@" || { say "no server"; return 1; }
}

# --- the client on r0 ---

# options [PATH...] of what is mapped
options()
{
	[ $# -gt 0 ] || set -- "$THERE"
	echo "sessname=selftest device_path=/dev/ram0 ${*/#/path=}"
}

# map [PATH...]
map()
{
	options "$@" > /sys/class/rnbd-client/ctl/map_device
}

# host_connect [PATH...]. The server may still have the session before, which had the
# same name.
host_connect()
{
	[ -d /sys/module/rnbd_client ] || modprobe rnbd_client || return 1
	wait_for "${TRY:-20}" map "$@"
}

# host_disconnect [force]
host_disconnect()
{
	local dev

	for dev in /sys/block/rnbd*/rnbd/unmap_device; do
		[ ! -e "$dev" ] || echo "${1:-normal}" > "$dev"
	done 2> /dev/null
}

# disk [TENTHS]: prints our block device, waits for it to show up
# shellcheck disable=SC2120
disk()
{
	local i dev

	for ((i = 0; i < ${1:-100}; i++)); do
		for dev in /sys/block/rnbd*; do
			dev=/dev/${dev##*/}
			[ ! -b "$dev" ] || { echo "$dev"; return 0; }
		done
		pause 0.1
	done
	return 1
}

# path_is PATH STATE
path_is()
{
	local state

	read -r state < "$SESSION/paths/$1/state" && [ "$state" = "$2" ]
} 2> /dev/null

# the first path is connected, and the server has opened the disk again
is_live()
{
	local state

	path_is "$THERE" connected &&
		read -r state < "$(echo /sys/block/rnbd*/rnbd/state)" && [ "$state" = open ]
} 2> /dev/null

gone()
{
	[ ! -e $SESSION ]
}

# reconnects: prints how many times the first path has been connected
reconnects()
{
	local n

	read -r n _ < "$SESSION/paths/$THERE/stats/reconnects" && echo "$n"
}

# now, not in half a minute
reconnect()
{
	echo 1 > "$SESSION/paths/$THERE/reconnect"
} 2> /dev/null

# --- the tests ---

# odd numbers of sectors, too
t_verify()
{
	verify_on_wire 4k 16k 64k 1m && SIZE=1023K verify 1536 11k 93k
}

t_disconnect()
{
	host_disconnect && wait_for 60 gone
}

# check_alive: after what happened the data still has to be right
check_alive()
{
	host_connect || { say "cannot connect afterwards"; return 1; }
	SIZE=512K verify 4k 64k && t_disconnect
}

# What the peer writes to: invalidated after each use, or registered for good. A chunk
# of 128 KiB is the default, and an MR's page is as large.
t_chunks()
{
	local invalidate size ret=0

	for invalidate in Y N; do
		for size in 8192 131072 1048576; do
			target_again always_invalidate=$invalidate max_chunk_size=$size &&
				host_connect && SIZE=64K verify 512 && SIZE=1M verify 16k 1m &&
				t_disconnect ||
				{ say "$invalidate $size"; ret=1; break 2; }
		done
	done
	host_disconnect force
	wait_for 60 gone && target_again && return $ret
}

t_cycle()
{
	local i dev

	for ((i = 0; i < CYCLES; i++)); do
		host_connect && dev=$(disk) || { say "connect $i failed"; return 1; }
		short_load "$dev" || return 1
		host_disconnect force
		wait_for 60 short_loads_over || { say "I/O hangs"; return 1; }
		wait_for 60 gone || { say "disconnect $i failed"; return 1; }
	done
}

# No byte gets lost when one of two paths goes: a request of it is sent on the other.
t_multipath()
{
	local policy side

	for policy in round-robin min-inflight; do
		host_connect "$THERE" "$BACK" && load_start "$(disk)" || return 1
		echo $policy > $SESSION/mpath_policy
		for side in client server; do
			( SIZE=4M verify 4k 64k ) &
			pause 0.5
			[ $side = server ] || echo 1 > "$SESSION/paths/$THERE/disconnect"
			[ $side = client ] ||
				echo 1 > "/sys/class/rtrs-server/selftest/paths/$THERE/disconnect"
			wait $! || { say "lost by the $side, $policy"; return 1; }
			path_is "$BACK" connected || { say "no path is left"; return 1; }
			reconnect
			live 60 || { say "no recovery"; return 1; }
		done
		echo 1 > "$SESSION/paths/$BACK/remove_path"
		[ ! -e "$SESSION/paths/$BACK" ] && SIZE=512K verify 64k && load_stop &&
			t_disconnect || return 1
	done
	check_alive
}

# What gets lost is sent again, and with it nothing that was done between.
t_loss()
{
	local dev before ret

	command -v tc > /dev/null || skip "no tc" || return
	host_connect && before=$(reconnects) || return 1
	for dev in d0 d1; do
		tc qdisc add dev $dev root netem loss 1% || skip "no netem" || return
	done
	SIZE=2M verify 4k 64k
	ret=$?
	tc qdisc del dev d0 root
	tc qdisc del dev d1 root
	[ $ret = 0 ] || return 1
	[ "$before" = "$(reconnects)" ] || { say "the connection was lost"; return 1; }
	t_disconnect && check_alive
}

t_unload_host()
{
	host_connect && load_start "$(disk)" || return 1
	# the disk is in use, and so is the module
	! modprobe -r rnbd_client 2> /dev/null || { say "unloaded under I/O"; return 1; }
	# it is gone when fio has closed it
	host_disconnect force
	load_stop && wait_for 60 gone && modprobe -r rnbd_client ||
		{ say "cannot unload rnbd_client"; return 1; }
	# of a disk that nobody has open
	host_connect && disk > /dev/null && modprobe -r rnbd_client && gone ||
		{ say "cannot unload rnbd_client"; return 1; }
	check_alive
}

t_unload_target()
{
	host_connect && load_start "$(disk)" || return 1
	target_down || { say "cannot unload rtrs_server"; return 1; }
	wait_for 60 lost || { say "no connection was lost"; return 1; }
	# by itself
	target_up && live 120 || { say "no recovery"; return 1; }
	SIZE=512K verify 64k && load_stop && t_disconnect && check_alive
}

t_reconnect()
{
	local i

	host_connect && load_start "$(disk)" || return 1
	for i in 1 2 3 4 5; do
		reconnect && live 60 || { say "no recovery"; return 1; }
	done
	SIZE=512K verify 64k && load_stop && t_disconnect && check_alive
}

t_device_gone_host()
{
	host_connect && load_start "$(disk)" || return 1
	rdma link delete r0 || return 1
	wait_for 60 lost || { say "no connection was lost"; return 1; }
	wire_links "$TYPE" && reconnect && live 60 || { say "no recovery"; return 1; }
	SIZE=512K verify 64k && load_stop && t_disconnect && check_alive
}

t_device_gone_target()
{
	host_connect && load_start "$(disk)" || return 1
	rdma link delete r1 || return 1
	wait_for 60 lost || { say "no connection was lost"; return 1; }
	wire_links "$TYPE" && reconnect && live 60 || { say "no recovery"; return 1; }
	SIZE=512K verify 64k && load_stop && t_disconnect && check_alive
}

# A connect of which something fails works out, or not.
connect_or_not()
{
	TRY=0 host_connect && disk 10 > /dev/null
	host_disconnect force
	wait_for 150 gone || { say "a session stays"; return 1; }
}

# The n-th mapping fails, for an n in each of the places that map: receives of either
# side, chunks and their keys, requests, data.
t_fail_connect()
{
	local n all hit=0 tried=0

	[ -d $FAIL_MAP ] || skip "no CONFIG_FAIL_RDMA_MAP" || return
	fail_map probability=100 times=1 space=$OFTEN && host_connect && t_disconnect || return 1
	all=$((OFTEN - $(cat $FAIL_MAP/space)))
	say "$all mappings"
	for n in $FAIL_AT; do
		tried=$((tried + 1))
		fail_map probability=100 times=1 space=$((all * n / 1000)) && connect_or_not ||
			return 1
		[ "$(cat $FAIL_MAP/times)" != 0 ] || hit=$((hit + 1))
		fail_map
	done
	say "$hit mappings of $tried failed"
	[ $((2 * hit)) -gt $tried ] && check_alive
}

# What fails is tried again, and has to have been undone: no I/O fails, and the same
# connection still works.
t_fail_io()
{
	local before

	[ -d $FAIL_MAP ] || skip "no CONFIG_FAIL_RDMA_MAP" || return
	host_connect && load_start "$(disk)" && before=$(reconnects) || return 1
	fail_map probability=5
	SIZE=2M verify 4k 64k && failed $FAIL_MAP && fail_map && load_stop || return 1
	[ "$before" = "$(reconnects)" ] || { say "the connection was lost"; return 1; }
	t_disconnect && check_alive
}

# allocations of all kworkers, which do the server's work and manage the connections of
# both sides
t_fail_alloc()
{
	local n ret hit=0

	[ -d $FAIL_SLAB ] || skip "no CONFIG_FAILSLAB" || return
	modprobe rnbd_client && fail_in $FAIL_SLAB 'rnbd_|rtrs_|rdma_rxe' || return 1
	for n in 1 3 10; do
		fail_tasks kworker 1
		fail_slab probability=$n && connect_or_not
		ret=$?
		! failed $FAIL_SLAB || hit=$((hit + 1))
		fail_slab
		fail_tasks kworker 0
		[ $ret = 0 ] && wire_renew "$TYPE" || return 1
	done
	[ $hit -ge 2 ] && check_alive
}

# Nearly all that the client allocates for a session is allocated for who maps a disk,
# and one of these fails.
t_fail_alloc_host()
{
	local n all left=0

	[ -d $FAIL_SLAB ] || skip "no CONFIG_FAILSLAB" || return
	[ -e /proc/self/fail-nth ] || skip "no fail-nth" || return
	modprobe rnbd_client && fail_slab || return 1
	all=$(nth_connect $OFTEN) || return 1
	all=$((OFTEN - all))
	say "$all allocations"
	host_disconnect && wait_for 60 gone || return 1
	for n in 1 2 3 5 10 15 20 25 30 50 70 90 95 96 97 98 99; do
		left=$(nth_connect $((all * n / 100 + 1)))
		host_disconnect force
		wait_for 150 gone || { say "a session stays"; return 1; }
		[ "$left" = 0 ] || { say "nothing failed of $n %"; return 1; }
	done
	check_alive
}

# nth_connect N: a connect of which the N-th allocation fails, in a process of its own.
# Prints what is left to count.
nth_connect()
(
	# what is written is there before it counts
	text=$(options)
	exec 2> /dev/null 3> /sys/class/rnbd-client/ctl/map_device
	echo "$1" > "/proc/$BASHPID/fail-nth"
	echo "$text" >&3
	read -r left < "/proc/$BASHPID/fail-nth"
	echo 0 > "/proc/$BASHPID/fail-nth"
	echo "$left"
)

# allocations under I/O, of the server and of fio
t_fail_alloc_io()
{
	[ -d $FAIL_SLAB ] || skip "no CONFIG_FAILSLAB" || return
	host_connect && load_start "$(disk)" || return 1
	fail_in $FAIL_SLAB 'rnbd_|rtrs_|rdma_rxe' && fail_tasks 'kworker|fio' 1 &&
		fail_slab probability=2
	pause 3
	failed $FAIL_SLAB || return 1
	fail_slab
	fail_tasks 'kworker|fio' 0
	load_stop && host_disconnect force && wait_for 150 gone ||
		{ say "a session stays"; return 1; }
	wire_renew "$TYPE" && check_alive
}

up()
{
	[ "$TYPE" = siw ] || { wire_up "$TYPE" && target_up; }
}

why_not()
{
	[ "$TYPE" != siw ] || echo "siw has no WRITE WITH IMM"
}

cleanup()
{
	fail_map
	host_disconnect force
	modprobe -r rnbd_client
	target_down
	wire_down
} 2> /dev/null

TESTS="connect verify_small verify disconnect chunks cycle loss multipath
	unload_host unload_target reconnect device_gone_host device_gone_target
	fail_connect fail_io fail_alloc fail_alloc_host fail_alloc_io"

begin fio rdma
run_tests "$@"
