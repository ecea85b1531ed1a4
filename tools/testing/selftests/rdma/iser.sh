#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# iser.sh [rxe] [siw] - ib_isert and ib_iser over a veth pair.
#
# What is written is read back and compared (fio): as immediate, unsolicited
# and solicited data. Then sessions, the target, modules and devices go away
# under I/O, and mappings and allocations fail.
#
# SIZE=bytes to write at each block size, CYCLES=connects under I/O, CUTS=ends of
# two sessions, ONLY=tests.
# shellcheck disable=SC2015,SC2016,SC2119,SC2317

# iscsid and iscsiadm get an /etc/iscsi of their own
[ "$ISER_MNT_NS" ] || [ "$(id -u)" != 0 ] ||
	ISER_MNT_NS=1 exec unshare -m "$0" "$@"

# shellcheck source=wire.sh
. "$(dirname "$0")/wire.sh"
# shellcheck source=disk.sh
. "$(dirname "$0")/disk.sh"

SIZE=${SIZE:-16M}
CYCLES=${CYCLES:-50}
CUTS=${CUTS:-50}
# which mappings fail, of those of a connect and a disconnect
FAIL_AT=${FAIL_AT:-1 2 132 133 135 263 264 265 266}
IQN=iqn.2026-01.org.kernel:selftest
PORTAL=$A1:3260
CFG=/sys/kernel/config/target
DISK=$CFG/core/iblock_0/selftest
TPG=$CFG/iscsi/$IQN/tpgt_1
NP=$TPG/np/$PORTAL

# --- the target: /dev/ram0 on r1 ---

# A portal starts as a TCP listener, and "iser" adds an RDMA listener at the same
# address and port. siw's is a TCP socket, too. LIO's belongs to the namespace of
# the writer and isert's to the initial one, so TCP is put out of the way.
target_listen()
{
	[ -d "$NP" ] || NP=$NP unshare -n sh -c "
		ip link set lo up
		ip addr add $A1/32 dev lo
		mkdir \$NP" || return 1
	echo 1 > "$NP/iser"
}

target_up()
{
	modprobe -a target_core_mod target_core_iblock iscsi_target_mod ib_isert ||
		return 1
	modprobe brd rd_nr=1 rd_size=65536 || return 1
	[ -b /dev/ram0 ] || return 1
	mkdir -p "$DISK" && echo udev_path=/dev/ram0 > "$DISK/control" &&
		echo 1 > "$DISK/enable" || return 1
	# the first mkdir makes the fabric
	mkdir -p $CFG/iscsi && mkdir -p "$TPG/lun/lun_0" || return 1
	ln -s "$DISK" "$TPG/lun/lun_0/selftest"
	echo 0 > "$TPG/attrib/authentication"
	echo 0 > "$TPG/attrib/demo_mode_write_protect"
	echo 1 > "$TPG/attrib/generate_node_acls"
	# let the initiator choose
	echo No > "$TPG/param/InitialR2T"
	target_listen && echo 1 > "$TPG/enable"
}

no_sessions()
{
	! read -rN 1 < "$TPG/dynamic_sessions"
}

target_down()
{
	[ ! -e "$TPG" ] || echo 0 > "$TPG/enable"
	# iscsi_target_mod frees the portal group under a session that is closing
	wait_for 60 no_sessions
	rmdir "$NP"
	rm -f "$TPG/lun/lun_0/selftest"
	rmdir "$TPG/lun/lun_0" "$TPG" "$CFG/iscsi/$IQN" "$DISK"
	modprobe -r ib_isert
} 2> /dev/null

# --- the initiator on r0 ---

initiator_up()
{
	[ -d /sys/module/ib_iser ] || modprobe ib_iser || return 1
	[ -z "$ISCSID" ] || ! kill -0 "$ISCSID" 2> /dev/null || return 0
	mountpoint -q /etc/iscsi ||
		mount -t tmpfs -o mode=755 none /etc/iscsi || return 1
	mkdir -p /run/lock/iscsi
	echo InitiatorName=$IQN-initiator > /etc/iscsi/initiatorname.iscsi
	: > /etc/iscsi/iscsid.conf
	# it ends with a signal to all of its process group
	setsid iscsid -f > "$LOG/iscsid" 2>&1 &
	ISCSID=$!
	wait_for 60 eval 'iscsiadm -m session 2>&1 | grep -q "No active"'
}

initiator_down()
{
	[ -z "$ISCSID" ] || { kill "$ISCSID"; wait "$ISCSID"; }
	ISCSID=
	modprobe -r ib_iser
} 2> /dev/null

node()
{
	timeout 60 iscsiadm -m node -T $IQN -p $PORTAL -I iser "$@" > "$LOG/node" 2>&1
}

# host_connect [SETTING=VALUE...], as iscsid.conf takes them
host_connect()
{
	initiator_up || return 1
	printf '%s\n' 'iscsid.startup = /bin/true' 'node.startup = manual' \
		'node.session.initial_login_retry_max = 0' \
		'node.session.timeo.replacement_timeout = 120' \
		'node.conn[0].timeo.noop_out_interval = 1' \
		'node.conn[0].timeo.noop_out_timeout = 15' \
		'node.session.iscsi.InitialR2T = Yes' \
		'node.session.iscsi.ImmediateData = Yes' \
		"${@/=/ = }" > /etc/iscsi/iscsid.conf
	node -o new && node --login
}

host_disconnect()
{
	node --logout
}

# prints the sysfs folder of our session
session()
{
	local dir

	for dir in /sys/class/iscsi_session/session*; do
		[ ! -e "$dir/state" ] || echo "$dir"
	done
}

# disk [TENTHS]: prints the block device of the LUN, waits for it to show up
# shellcheck disable=SC2120
disk()
{
	local i dev

	for ((i = 0; i < ${1:-100}; i++)); do
		for dev in /sys/class/iscsi_session/session*/device/target*/*/block/sd*; do
			dev=/dev/${dev##*/}
			[ ! -b "$dev" ] || { echo "$dev"; return 0; }
		done
		pause 0.1
	done
	return 1
}

is_live()
{
	local state

	# it is our only one
	read -r state < /sys/class/iscsi_session/session*/state && [ "$state" = LOGGED_IN ]
}

gone()
{
	! compgen -G "/sys/class/iscsi_session/session*/state" > /dev/null
}

# --- the tests ---

t_verify()
{
	verify_on_wire 4k 16k 64k 1m
}

t_disconnect()
{
	host_disconnect && wait_for 60 gone
}

# session_is ATTRIBUTE VALUE: what the two have agreed on
session_is()
{
	[ "$(cat "$(session)/$1")" = "$2" ] || { say "$1 is not $2"; return 1; }
}

# prints how many data-out PDUs the initiator has sent
data_outs()
{
	iscsiadm -m session -s | awk '
		/dataout_pdus/ { n += $2; told = 1 }
		END { if (told) print n }'
}

# No burst is sent without a request, and none with the command.
t_solicited()
{
	host_connect node.session.iscsi.ImmediateData=No || return 1
	session_is initial_r2t 1 && session_is immediate_data 0 || return 1
	SIZE=256K verify 512 16k 256k || return 1
	[ "$(data_outs)" = 0 ] || { say "unsolicited data"; return 1; }
	host_disconnect && wait_for 60 gone
}

# The first 64k go with and behind the command, then without immediate data.
t_unsolicited()
{
	local imm before

	for imm in Yes No; do
		host_connect node.session.iscsi.InitialR2T=No \
			node.session.iscsi.FirstBurstLength=65536 \
			node.session.iscsi.ImmediateData=$imm || return 1
		session_is initial_r2t 0 && session_is first_burst_len 65536 || return 1
		before=$(data_outs)
		SIZE=256K verify 512 16k 64k 256k || return 1
		say "$(($(data_outs) - before)) data-out PDUs"
		[ "$(data_outs)" -gt "$before" ] || { say "no unsolicited data"; return 1; }
		host_disconnect && wait_for 60 gone || return 1
	done
}

t_cycle()
{
	local i dev

	for ((i = 0; i < CYCLES; i++)); do
		host_connect && dev=$(disk) || { say "connect $i failed"; return 1; }
		short_load "$dev" || return 1
		host_disconnect || { say "disconnect $i failed"; return 1; }
		wait_for 60 short_loads_over ||
			{ say "I/O hangs"; return 1; }
	done
	wait_for 60 gone
}

# check_alive: after what happened the data still has to be right
check_alive()
{
	host_connect || { say "cannot connect afterwards"; return 1; }
	SIZE=512K verify 4k 64k && host_disconnect && wait_for 60 gone
}

t_unload_host()
{
	host_connect && load_start "$(disk)" || return 1
	# the disk is in use, and so is the module
	! modprobe -r ib_iser 2> /dev/null || { say "unloaded under I/O"; return 1; }
	# the disk is open as long as fio is there
	host_disconnect && wait_for 60 gone && load_stop || return 1
	modprobe -r ib_iser || { say "cannot unload ib_iser"; return 1; }
	check_alive
}

t_unload_target()
{
	host_connect node.session.timeo.replacement_timeout=1 &&
		load_start "$(disk)" || return 1
	target_down
	[ ! -d /sys/module/ib_isert ] || { say "cannot unload ib_isert"; return 1; }
	load_stop && target_up || return 1
	live 60 || { say "no recovery"; return 1; }
	host_disconnect && wait_for 60 gone && check_alive
}

t_target_gone()
{
	host_connect && load_start "$(disk)" || return 1
	echo 0 > "$TPG/enable"
	wait_for 60 lost || { say "no connection was lost"; return 1; }
	echo 1 > "$TPG/enable"
	live 60 || { say "no recovery"; return 1; }
	SIZE=512K verify 64k || return 1
	load_stop && host_disconnect && wait_for 60 gone && check_alive
}

t_device_gone_host()
{
	host_connect && load_start "$(disk)" || return 1
	rdma link delete r0 && wire_links "$TYPE" || return 1
	live 60 || { say "no recovery"; return 1; }
	SIZE=512K verify 64k || return 1
	load_stop && host_disconnect && wait_for 60 gone && check_alive
}

t_device_gone_target()
{
	host_connect && load_start "$(disk)" || return 1
	rdma link delete r1 && wire_links "$TYPE" || return 1
	# isert does not listen again by itself
	rmdir "$NP" && target_listen && live 60 || { say "no recovery"; return 1; }
	SIZE=512K verify 64k || return 1
	load_stop && host_disconnect && wait_for 60 gone && check_alive
}

disks()
{
	compgen -G "/sys/class/iscsi_session/session*/device/target*/*/block/sd*"
}

two()
{
	[ "$("$@" | wc -l)" = 2 ]
}

logged_in()
{
	grep -l LOGGED_IN /sys/class/iscsi_session/session*/state
}

# Two connections go at once, with commands in the middle of their data.
t_two_sessions()
{
	local i dev

	host_connect node.session.nr_sessions=2 node.session.iscsi.InitialR2T=No \
		node.session.iscsi.FirstBurstLength=262144 &&
		wait_for 60 two disks || { say "no two disks"; return 1; }
	dev=$(disks | sed 's,.*/,/dev/,' | paste -sd :)
	fio --name=load --filename="$dev" --rw=write --bs=1m --direct=1 --size=64m \
		--ioengine=libaio --iodepth=16 --time_based --runtime=900 \
		--continue_on_error=all --error_dump=0 --allow_file_create=0 \
		> "$LOG/fio" 2>&1 &
	LOAD=$!
	for ((i = 0; i < CUTS; i++)); do
		ios "${dev##*:}" && wait_for 60 more_ios "${dev##*:}" $((IOS + 16)) ||
			{ say "no I/O in round $i"; return 1; }
		rdma link delete r1 && wire_links "$TYPE" && rmdir "$NP" &&
			target_listen || return 1
		wait_for 60 two logged_in || { say "no recovery in round $i"; return 1; }
	done
	load_stop && host_disconnect && wait_for 60 gone && check_alive
}

t_global_rkey()
{
	modprobe -r ib_iser && modprobe ib_iser always_register=N || return 1
	host_connect && SIZE=256K verify 512 16k 256k && host_disconnect &&
		wait_for 60 gone
	local ret=$?

	modprobe -r ib_iser && return $ret
}

# A connect of which something fails works out, or not. iscsid looks once a second
# whether it is connected, and counts in whole seconds.
connect_or_not()
{
	host_connect 'node.conn[0].timeo.login_timeout=4' && disk 10 > /dev/null
	host_disconnect
	# the target waits 15 s for the rest of a login
	rmdir "$NP" && target_listen || return 1
	# a minute is what a session whose logout got lost takes to be given up
	wait_for 150 gone || { say "a session stays"; return 1; }
}

# The n-th mapping fails, for an n in each of the places that map: login buffers,
# receive descriptors, headers and data of either side.
t_fail_connect()
{
	local n hit=0 tried=0

	[ -d $FAIL_MAP ] || skip "no CONFIG_FAIL_RDMA_MAP" || return
	initiator_up || return 1
	for n in $FAIL_AT; do
		tried=$((tried + 1))
		fail_map probability=100 times=1 space="$n" && connect_or_not ||
			return 1
		[ "$(cat $FAIL_MAP/times)" != 0 ] || hit=$((hit + 1))
		fail_map
	done
	say "$hit mappings of $tried failed"
	[ $((2 * hit)) -gt $tried ] && check_alive
}

# What fails is reported or tried again, and has to have been undone: the same
# connection still works. A ping that is not answered would end it.
t_fail_io()
{
	local reg before

	[ -d $FAIL_MAP ] || skip "no CONFIG_FAIL_RDMA_MAP" || return
	for reg in Y N; do
		modprobe -r ib_iser && modprobe ib_iser always_register=$reg || return 1
		host_connect 'node.conn[0].timeo.noop_out_interval=0' &&
			load_start "$(disk)" || return 1
		before=$(echo /sys/class/iscsi_endpoint/*)
		fail_map probability=5
		sleep 2
		failed $FAIL_MAP && fail_map && load_stop &&
			SIZE=512K verify 4k 64k || return 1
		[ "$before" = "$(echo /sys/class/iscsi_endpoint/*)" ] ||
			{ say "the connection was lost"; return 1; }
		host_disconnect && wait_for 60 gone || return 1
	done
	modprobe -r ib_iser && check_alive
}

new_devices()
{
	wire_renew "$TYPE" && rmdir "$NP" && target_listen
}

# allocations of the target's threads and of all kworkers, which do the rest of its
# work and manage the connections of both sides
t_fail_alloc()
{
	local n ret hit=0

	[ -d $FAIL_SLAB ] || skip "no CONFIG_FAILSLAB" || return
	[ "$TYPE" != siw ] ||
		skip "siw's connection manager does not survive it" || return
	initiator_up && fail_in $FAIL_SLAB 'ib_iser|rdma_rxe|siw' || return 1
	for n in 1 3 10; do
		fail_tasks 'kworker|iscsi_' 1
		fail_slab probability=$n && connect_or_not
		ret=$?
		! failed $FAIL_SLAB || hit=$((hit + 1))
		fail_slab
		fail_tasks 'kworker|iscsi_' 0
		[ $ret = 0 ] && new_devices || return 1
	done
	[ $hit -ge 2 ] && check_alive
}

# Most of what the initiator allocates for a connection is allocated for iscsid.
# One of these fails: behind the middle of them those of MRs, then descriptors. The
# first and the last are iscsid's own, and some of them kill it. In the middle are
# those of the session, which stays if it is iscsi_connection's class device.
t_fail_alloc_host()
{
	local n all nth

	[ -d $FAIL_SLAB ] || skip "no CONFIG_FAILSLAB" || return
	initiator_up && fail_slab || return 1
	nth=/proc/$ISCSID/fail-nth
	[ -e "$nth" ] || skip "no fail-nth" || return
	echo 1000000 > "$nth"
	host_connect && all=$((1000000 - $(cat "$nth"))) || return 1
	host_disconnect && wait_for 60 gone || return 1
	for n in 60 65 70 80; do
		echo $((all * n / 100)) > "$nth"
		connect_or_not || return 1
		[ "$(cat "$nth")" = 0 ] ||
			{ echo 0 > "$nth"; say "nothing failed"; return 1; }
	done
	check_alive
}

up()
{
	wire_up "$TYPE" && target_up
}

cleanup()
{
	fail_map 2> /dev/null
	host_disconnect 2> /dev/null
	initiator_down
	target_down
	wire_down
}

TESTS="connect verify_small verify disconnect solicited unsolicited cycle
	unload_host unload_target target_gone device_gone_host
	device_gone_target two_sessions global_rkey fail_connect fail_io
	fail_alloc fail_alloc_host"

begin fio rdma iscsiadm iscsid
! pgrep -x iscsid > /dev/null || { ktap_skip_all "iscsid is running"; exit "$KSFT_SKIP"; }
run_tests "$@"
