#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# mad.sh [rxe] [siw] - management datagrams over a veth pair.
#
# RoCE connects by MADs on QP 1, and rping, which lives in user space, maps
# nothing else by the SGE builder. What it sends is compared.
#
# CYCLES=connects, CONNECTS=those that are to leave no memory behind, on iWARP, too,
# ONLY=tests.
# shellcheck disable=SC2015,SC2016,SC2317

# shellcheck source=wire.sh
. "$(dirname "$0")/wire.sh"

CYCLES=${CYCLES:-20}
CONNECTS=${CONNECTS:-2000}

listening()
{
	rdma resource show cm_id link r1 | grep -q LISTEN
}

DEAF="the server does not listen"

# pair SECONDS COMMAND...: on both ends, which have to end well; $ends says how
# they did
pair()
{
	local server seconds=$1 client=0 status=0

	shift
	# shellcheck disable=SC2086
	timeout $((seconds + 10)) "$@" $LISTENER > "$LOG/server" 2>&1 &
	server=$!
	wait_for 60 listening || { ends=$DEAF; return 1; }
	# shellcheck disable=SC2086
	timeout "$seconds" "$@" $CALLER > "$LOG/client" 2>&1 || client=$?
	! closed_early "$LOG/client" || client=0
	# it listens on if nobody came
	[ $client = 0 ] || kill $server 2> /dev/null
	wait $server 2> /dev/null || status=$?
	! closed_early "$LOG/server" || status=0
	ends="client $client ($(tail -n1 "$LOG/client"))"
	ends="$ends, server $status ($(tail -n1 "$LOG/server"))"
	[ $client = 0 ] && [ $status = 0 ]
}

# connect [SECONDS]: connects, moves data there and back, disconnects
connect()
{
	LISTENER="-s -a $A1" CALLER="-c -a $A1 -I $A0" \
		pair "${1:-60}" rping -V -C 5 -S 4096
}

# time_connect: sets TOOK to the seconds that a connect takes here
time_connect()
{
	local start=$SECONDS

	connect || { say "$ends"; return 1; }
	TOOK=$((SECONDS - start + 1))
}

t_connect()
{
	local i before

	before=$(wire_bytes)
	for ((i = 0; i < CYCLES; i++)); do
		connect || { say "connect $i: $ends"; return 1; }
	done
	[ $(($(wire_bytes) - before)) -gt $((CYCLES * 5 * 4096)) ] ||
		{ say "too few bytes on the wire"; return 1; }
}

# crowd CONNECTS [SECONDS]: so many at a time
crowd()
{
	LISTENER='' CALLER="-s $A1 -b $A0" pair "${2:-60}" ucmatose -c "$1" -C 2 ||
		{ say "$ends"; return 1; }
}

t_crowd()
{
	crowd $((5 * CYCLES))
}

resources()
{
	[ "$(rdma resource show)" = "$1" ]
}

# What the kernel has allocated, and how often. What has been freed counts until
# its cache shrinks: CPUs and KASAN keep it. A vmap_area is kept for later.
objects()
{
	local cache

	echo 3 > /proc/sys/vm/drop_caches
	for cache in /sys/kernel/slab/*; do
		[ -L "$cache" ] || echo 1 > "$cache/shrink"
	done
	awk '/^VmallocUsed/ { print "vmalloc pages", $2 / 4 }' /proc/meminfo
	awk 'NR > 2 && $1 != "vmap_area" { print $1, "objects", $2 }' /proc/slabinfo
}

# there is not one more for each fourth connect
nothing_grows()
{
	objects | awk -v most=$((CONNECTS / 4)) '
		NR == FNR { was[$1] = $3; next }
		$3 - was[$1] > most { print $1, $2 ": " was[$1] ", now " $3; grows = 1 }
		END { exit grows }' "$LOG/objects" - > "$LOG/grows"
}

t_memory()
{
	local i before bad=0

	[ -e /proc/slabinfo ] && [ -d /sys/kernel/slab ] ||
		{ skip "no /proc/slabinfo or no /sys/kernel/slab"; return; }
	crowd 16
	crowd 16
	before=$(rdma resource show)
	objects > "$LOG/objects"
	for ((i = 0; i < CONNECTS; i += 16)); do
		crowd 16 10 || bad=$((bad + 1))
	done
	# over iWARP the end that disconnects last may not hear of the other one
	[ $bad = 0 ] || [ "$TYPE" = siw ] && [ $((bad * 64)) -lt "$CONNECTS" ] || return 1
	wait_for 60 resources "$before" || { say "$(rdma resource show)"; return 1; }
	wait_for 60 nothing_grows || { say "$(cat "$LOG/grows")"; return 1; }
}

# sends that cannot be mapped; the connection manager tries again, or gives up
t_fail_send()
{
	local n good=0 hit=0

	[ -d $FAIL_MAP ] || skip "no CONFIG_FAIL_RDMA_MAP" || return
	# header and payload of a request, a reply, an acknowledgment, ...
	for n in 1 2 3 4 5 6; do
		fail_map probability=100 times=1 space="$n" || return 1
		connect 8 && good=$((good + 1))
		[ "$(cat $FAIL_MAP/times)" != 0 ] || hit=$((hit + 1))
	done
	fail_map
	say "$hit mappings of 6 failed, $good connects succeeded"
	[ $hit = 6 ] && connect
}

# receives that cannot be mapped when the device comes
t_fail_register()
{
	local n

	[ -d $FAIL_MAP ] || skip "no CONFIG_FAIL_RDMA_MAP" || return
	time_connect || return 1
	# the last one finds the queue full, and is unmapped
	for n in 1 2 18 512 513; do
		rdma link delete r0 || return 1
		fail_map probability=100 times=1 space="$n" || return 1
		wire_links "$TYPE" || return 1
		[ "$(cat $FAIL_MAP/times)" = 0 ] || { say "mapping $n did not fail"; return 1; }
		fail_map
		# a port without MADs does not connect
		! connect $((3 * TOOK)) || { say "connected with mapping $n failed"; return 1; }
		[ "$ends" != "$DEAF" ] || { say "$ends"; return 1; }
	done
	rdma link delete r0 && wire_links "$TYPE" && connect
}

t_device_gone()
{
	local i load

	time_connect || return 1
	for i in 1 3 5; do
		( while connect $((5 * TOOK)); do :; done ) &
		load=$!
		sleep 0.$i
		kill -0 $load || { say "nobody connects"; return 1; }
		rdma link delete r0 || return 1
		wait $load
		wire_links "$TYPE" || return 1
	done
	connect
}

up()
{
	wire_up "$TYPE"
}

why_not()
{
	[ "$TYPE" != siw ] || [ "$1" = memory ] || echo "iWARP has no MADs"
}

cleanup()
{
	fail_map 2> /dev/null
	wire_down
}

TESTS="connect crowd memory fail_send fail_register device_gone"

begin rping ucmatose rdma
run_tests "$@"
