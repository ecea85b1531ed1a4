#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# boot.sh TREE: in a guest, on any commit of the series: rxe and siw move data
# between two user QPs. wire.sh is that of TREE.
# shellcheck source=/dev/null
. "$1/tools/testing/selftests/rdma/wire.sh"

listening()
{
	rdma resource show cm_id link r1 | grep -q LISTEN
}

for type in rxe siw; do
	wire_up $type || exit 1
	timeout 60 rping -s -C 5 -V -a "$A1" &
	wait_for 20 listening || exit 1
	# its status at the end is luck: one of its threads may close what the other uses
	timeout 60 rping -v -c -C 5 -V -a "$A1" -I "$A0" > /tmp/ping
	[ "$(grep -c "^ping data" /tmp/ping)" = 5 ] || exit 1
	wait %1
	wire_down
done
