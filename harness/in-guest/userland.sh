#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# userland.sh rxe|siw...: in a guest, user space that is not ours. rdma-core's tests
# (in the folder $TESTS) on r0 alone, Linux's own tests of rxe, the others between r0
# and r1 over the wire. A step may take $PATIENCE seconds.
# shellcheck disable=SC2317 # "run" calls the functions
export DEVICE PYTHONDONTWRITEBYTECODE=1
# shellcheck source=/dev/null
. "$GUEST_TREE_OF_TESTS/tools/testing/selftests/rdma/wire.sh"
export A0 A1
LOG=/run/out/userland.log
TCP=18515	# perftest's
COUNT=50
SIZE=4096

crossed()
{
	local rx tx

	read -r rx < /sys/class/net/d0/statistics/rx_bytes
	read -r tx < /sys/class/net/d0/statistics/tx_bytes
	echo $((rx + tx))
}

listening()
{
	rdma resource show cm_id link r1 | grep -q LISTEN || [ "$(ss -Hltn "sport = :$TCP")" ]
}

# ended WHO STATUS: "WHO: STATUS", and what WHO said last
ended()
{
	echo "$1: status $2 ($(grep -v '^-*$' "$LOG.$1" | tail -n 3 | paste -sd ';'))"
}

# pair SERVER CLIENT: both have to end well, and all messages to cross the wire
pair()
{
	local before bytes server try status why=

	before=$(crossed)
	# An rdma_cm ID says that it listens a moment before it does. After a client that
	# came too early perftest's server is of no use either.
	for try in 1 2 3 4 5; do
		wait_for "$PATIENCE" eval ! listening || { say "somebody listens already"; return 1; }
		# shellcheck disable=SC2086
		timeout -k 5 $((PATIENCE * 2)) $1 > $LOG.server 2>&1 &
		server=$!
		if ! wait_for "$PATIENCE" listening; then
			status=1
			why="the server does not listen"
			kill $server
			break
		fi
		# shellcheck disable=SC2086
		timeout -k 5 "$PATIENCE" $2 > $LOG.client 2>&1
		status=$?
		! closed_early $LOG.client || status=0
		printf '\n$ %s\n' "$2" | cat - $LOG.client >> $LOG
		if [ $status = 0 ] || [ $try = 5 ]; then break; fi
		grep -qE "REJECTED.*error[:,]* (8|-111)\b" $LOG.client || break
		kill $server
		wait $server
		sleep $try
	done
	[ $status = 0 ] || why=${why:-$(ended client $status)}
	wait $server || closed_early $LOG.server ||
		{ status=$?; why="${why:+$why, }$(ended server $status)"; }
	printf '\n$ %s\n' "$1" | cat - $LOG.server >> $LOG
	bytes=$(($(crossed) - before))
	[ $bytes -ge $((COUNT * SIZE)) ] || { status=1; why="${why:+$why, }$bytes bytes on the wire"; }
	[ $status = 0 ] || say "$why"
	return $status
}

# tool NAME OPTION...
tool()
{
	local args

	case $1 in
	rping)
		args="-C $COUNT -S $SIZE -V ${*:2}"
		pair "rping -s -a $A1 $args" "rping -c -a $A1 -I $A0 $args"
		;;
	*)
		args="-F -n $COUNT -s $SIZE ${*:2}"
		pair "$1 -d r1 $args" "$1 -d r0 $args $A1"
		;;
	esac
}

# own FILE: one of Linux's tests of rxe, which makes devices of its own
own()
{
	local status

	# some of them unload it, and one counts on udev's node to load it
	modprobe tun
	{
		echo
		timeout -k 5 $((PATIENCE * 2)) bash -x "$DIR/$1"
		status=$?
	} > $LOG.own 2>&1
	cat $LOG.own >> $LOG
	grep -E '^(not )?ok ' $LOG.own | sed 's/^/# /'
	[ $status != "$KSFT_SKIP" ] || skip "$(grep -oE '^(SKIP:|1\.\.0 # SKIP).*' $LOG.own)"
	return $status
}

all()
{
	local name own=() tools=(rping "ib_send_bw -R" "ib_write_bw -R" "ib_read_bw -R")

	[ "$DEVICE" != rxe ] || own=("$DIR"/rxe_*.sh)
	# iWARP connects by rdma_cm only
	[ "$DEVICE" = siw ] || tools+=(ib_send_bw ib_write_bw ib_read_bw)
	wire_up "$DEVICE" || return 1
	# these two share an address: not by the wire, which is for two
	ip rule add pref 0 lookup local
	"$GUEST_HARNESS/run_pyverbs.py" "$PATIENCE" "$TESTS" r0 d0 2>> /run/out/pyverbs.log
	ip rule del pref 0
	"$GUEST_HARNESS/run_pyverbs.py" "$PATIENCE" "$GUEST_HARNESS/user_sge.py" \
		2>> /run/out/user_sge.log
	echo "1..$((${#tools[@]} + ${#own[@]}))"
	for name in "${tools[@]}"; do
		# shellcheck disable=SC2086
		run "$DEVICE $name" tool $name
	done
	wire_down
	for name in "${own[@]##*/}"; do
		run "$DEVICE $name" own "$name"
	done
	return 0
}

# where the modules are, which is not where Linux's tests look
modinfo() { /sbin/modinfo -b "$GUEST_MODULES" "$@"; }
export -f modinfo
rm -f $LOG /run/out/pyverbs.log /run/out/user_sge.log
for DEVICE; do
	all || exit 1
done
