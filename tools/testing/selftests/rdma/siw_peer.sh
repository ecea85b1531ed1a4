#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# siw_peer.sh - hostile peers of siw, see siw_peer.py.
#
# A TCP socket that is no siw talks MPA, DDP and RDMAP to a QP, over a veth pair.
#
# ONLY=tests.

# shellcheck source=wire.sh
. "$(dirname "$0")/wire.sh"

# peer CASE: its last line says what is wrong
peer()
{
	local last

	PYTHONDONTWRITEBYTECODE=1 python3 "$DIR/siw_peer.py" "$1" > "$LOG/peer" 2>&1
	set -- $?
	last=$(tail -n1 "$LOG/peer")
	case $1 in
	0) ;;
	"$KSFT_SKIP") skip "$last"; return ;;
	*) say "${last:-it dies}"; return 1 ;;
	esac
	# a connection that is left over would keep the device
	wait_for 30 eval '! rdma resource show qp | grep -q siw_peer' ||
		{ say "a QP is left"; return 1; }
}

begin python3 rdma
TESTS=$(PYTHONDONTWRITEBYTECODE=1 python3 "$DIR/siw_peer.py" --list) ||
	{ ktap_skip_all "$TESTS"; exit "$KSFT_SKIP"; }
ONLY=${ONLY:-$TESTS}
# shellcheck disable=SC2086
ktap_set_plan $(($(echo $ONLY | wc -w) + 1))
trap wire_down EXIT

wire_up siw || ktap_exit_fail_msg "no siw"
for t in $ONLY; do
	run "$t" peer "$t"
done
# whatever the peers did, nothing of theirs holds the device
run unload eval 'wire_down; modprobe -r siw'
ktap_finished
