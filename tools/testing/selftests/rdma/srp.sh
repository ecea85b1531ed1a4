#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# srp.sh [rxe] [siw] - ib_srpt and ib_srp over a veth pair, connected by rdma_cm.
#
# What is written is read back and compared (fio): as immediate data, by one MR, by
# several, and by the global rkey. Then connections, sessions, the target, modules
# and devices go away under I/O, and mappings and allocations fail.
#
# SIZE=bytes to write at each block size, CYCLES=connects and reconnects under I/O,
# ONLY=tests.
# shellcheck disable=SC2015,SC2016,SC2119,SC2317

# shellcheck source=wire.sh
. "$(dirname "$0")/wire.sh"
# shellcheck source=disk.sh
. "$(dirname "$0")/disk.sh"

SIZE=${SIZE:-16M}
CYCLES=${CYCLES:-10}
# which mappings fail, and which allocations, of 100 of those of a connect
FAIL_AT=${FAIL_AT:-0 1 2 30 49 51 52 80 99}
PORT=5555
CFG=/sys/kernel/config/target
DISK=$CFG/core/iblock_0/selftest

# --- the target: /dev/ram0 on r1 ---

gid()
{
	tr -d : < "/sys/class/infiniband/$1/ports/1/gids/0"
}

# srpt listens on [::], where siw refuses IPv4: it does not know the address that a
# child of such a socket has. If that port is taken srpt listens on 0.0.0.0.
target_listen()
{
	local occupied='' ret

	if [ "$TYPE" = siw ]; then
		mkfifo "$LOG/occupied" || return 1
		python3 -c "
import socket
s = socket.socket(socket.AF_INET6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
s.bind(('::', $PORT))
s.listen()
open('$LOG/occupied', 'w').write('yes\n')
input()" < "$LOG/nothing" &
		occupied=$!
		read -rt 60 < "$LOG/occupied" || return 1
		rm "$LOG/occupied"
	fi
	ret=0
	echo $PORT > $CFG/srpt/discovery_auth/rdma_cm_port || ret=1
	[ -z "$occupied" ] || { kill "$occupied"; wait "$occupied"; } 2> /dev/null
	return $ret
}

target_port()
{
	WWN=$CFG/srpt/0x$(gid r1)
	TPG=$WWN/tpg1
	# who the initiator says that it is
	ACL=$TPG/acls/0x0000000000000000$(gid r0 | cut -c17-)
	mkdir -p "$TPG" && mkdir "$TPG/lun/lun_0" &&
		ln -s "$DISK" "$TPG/lun/lun_0/selftest" &&
		mkdir "$ACL" "$ACL/lun_0" &&
		ln -s "$TPG/lun/lun_0" "$ACL/lun_0/selftest" &&
		echo 1 > "$TPG/enable"
}

target_up()
{
	modprobe -a target_core_mod target_core_iblock || return 1
	# for immediate data of four pages
	modprobe ib_srpt srp_max_req_size=17408 || return 1
	modprobe brd rd_nr=1 rd_size=65536 || return 1
	[ -b /dev/ram0 ] || return 1
	mkdir -p "$DISK" && echo udev_path=/dev/ram0 > "$DISK/control" &&
		echo 1 > "$DISK/enable" || return 1
	mkdir -p $CFG/srpt && target_listen && target_port
}

target_port_down()
{
	[ -e "$TPG" ] || return
	echo 0 > "$TPG/enable"
	rm "$ACL/lun_0/selftest"
	rmdir "$ACL/lun_0" "$ACL"
	rm "$TPG/lun/lun_0/selftest"
	rmdir "$TPG/lun/lun_0" "$TPG" "$WWN"
}

target_down()
{
	target_port_down
	[ ! -e $CFG/srpt ] || echo 0 > $CFG/srpt/discovery_auth/rdma_cm_port
	rmdir $CFG/srpt "$DISK"
	modprobe -r ib_srpt
} 2> /dev/null

# --- the initiator on r0 ---

# host_module [PARAMETER=VALUE...]
host_module()
{
	[ ! -d /sys/module/ib_srp ] || modprobe -r ib_srp || return 1
	modprobe ib_srp reconnect_delay=1 fast_io_fail_tmo=5 "$@"
}

# login [OPTION=VALUE...]: sets LOGIN and ADD, where it is written to
login()
{
	local id

	[ -d /sys/module/ib_srp ] || host_module || return 1
	ADD=/sys/class/infiniband_srp/srp-r0-1/add_target
	wait_for 60 [ -e "$ADD" ] || { say "no $ADD"; return 1; }
	read -r id < /sys/module/ib_srpt/parameters/srpt_service_guid
	LOGIN=id_ext=${id#0x},ioc_guid=${id#0x},initiator_ext=0,src=$A0,dest=$A1:$PORT
	LOGIN=$LOGIN$(printf ',%s' queue_size=32 "$@")
}

# host_connect [OPTION=VALUE...]
host_connect()
{
	local i

	# of a test that has failed
	gone || host_disconnect || return 1
	login "$@" || return 1
	# the session before is on a list until the very end of its removal
	for ((i = 0; i < 100; i++)); do
		timeout 120 sh -c 'echo "$0" > "$1"' "$LOGIN" "$ADD" 2> "$LOG/login" &&
			return
		grep -q "File exists" "$LOG/login" || break
		pause 0.1
	done
	say "no login: $(sed 's/.*: //' "$LOG/login")"
	return 1
}

host_disconnect()
{
	local port

	for port in /sys/class/srp_remote_ports/port-*; do
		[ ! -e "$port/delete" ] || echo 1 > "$port/delete"
	done 2> /dev/null
	wait_for 150 gone || { say "a session stays"; return 1; }
}

# prints the sysfs folders of our SCSI hosts
hosts()
{
	local dir name

	for dir in /sys/class/scsi_host/host*; do
		read -r name < "$dir/proc_name" && [ "$name" = ib_srp ] && echo "$dir"
	done 2> /dev/null
}

gone()
{
	! compgen -G "/sys/class/srp_remote_ports/port-*" > /dev/null && [ -z "$(hosts)" ]
}

# disk [TENTHS]: prints the block device of the LUN, waits for it to show up
# shellcheck disable=SC2120
disk()
{
	local i dev dir

	for ((i = 0; i < ${1:-100}; i++)); do
		dir=$(hosts)
		for dev in "$dir"/device/target*/*/block/sd*; do
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
	read -r state < /sys/class/srp_remote_ports/port-*/state &&
		[ "$state" = running ]
} 2> /dev/null

# told PATTERN: the kernel has, in this test
told()
{
	dmesg | tac | sed '/selftest: /q' | grep -q "$1"
}

# --- the tests ---

t_verify()
{
	verify_on_wire 4k 16k 64k 1m
}

t_disconnect()
{
	host_disconnect
}

# connect_verify SIZE "BLOCK_SIZE..." [OPTION=VALUE...]
connect_verify()
{
	local size=$1 blocks=$2

	shift 2
	# shellcheck disable=SC2086
	host_connect "$@" && SIZE=$size verify $blocks && host_disconnect
}

# Data that goes with the command. 16k may be of more SGEs than go with it, which shows
# after some of them have been filled.
t_immediate()
{
	host_module use_imm_data=Y max_imm_data=16384 &&
		connect_verify 256K "512 4k 8k 16k 64k" || return 1
	told "using immediate data" || { say "no immediate data"; return 1; }
}

t_no_immediate()
{
	host_module use_imm_data=N && connect_verify 256K "512 4k 8k 64k" || return 1
	! told "using immediate data" || { say "immediate data"; return 1; }
	host_module
}

# sets MOVED to the numbers of requests and of KiB that the disk has completed
moved()
{
	local -a stat

	read -r -a stat < /sys/class/block/"${1##*/}"/stat
	MOVED=$((stat[0] + stat[4])) KIB=$(((stat[2] + stat[6]) / 2))
}

# verify_large PERCENT "BLOCK_SIZE..." [OPTION=VALUE...]: by requests of more than PERCENT
# each, on an average, of what the disk takes, which is less with bounce buffers
verify_large()
{
	local least=$1 blocks=$2 dev queue n kib

	shift 2
	host_connect "$@" max_sect=16384 && dev=$(disk) || return 1
	queue=/sys/class/block/${dev##*/}/queue
	cat "$queue/max_hw_sectors_kb" > "$queue/max_sectors_kb"
	least=$((least * $(cat "$queue/max_sectors_kb") / 100))
	moved "$dev" && n=$MOVED kib=$KIB
	# shellcheck disable=SC2086
	SIZE=8M verify $blocks && moved "$dev" || return 1
	n=$(((KIB - kib) / (MOVED - n)))
	say "${*:-no options}: $n KiB a request"
	[ $n -gt "$least" ] || { say "not more than $least KiB"; return 1; }
	host_disconnect
}

# one MR is 2 MiB on rxe, and 1 MiB on siw
t_large()
{
	verify_large 0 "64k 4m" cmd_sg_entries=1 &&
		verify_large 0 "64k 4m" cmd_sg_entries=1 sg_tablesize=1 &&
		verify_large 0 "64k 4m" cmd_sg_entries=12 &&
		verify_large 35 "4m 8m" cmd_sg_entries=12 sg_tablesize=2048 &&
		verify_large 35 "4m 8m" cmd_sg_entries=255 sg_tablesize=2048
}

# the address of the memory and this key instead of MRs, or of the last segment
t_global_rkey()
{
	host_module register_always=N && connect_verify 256K "512 16k 256k" &&
		verify_large 35 "4m 8m" cmd_sg_entries=12 sg_tablesize=2048 &&
		host_module never_register=Y && connect_verify 256K "512 16k 256k" &&
		verify_large 0 "64k 1m" cmd_sg_entries=255 sg_tablesize=255 &&
		host_module
}

t_cycle()
{
	local i dev

	for ((i = 0; i < CYCLES; i++)); do
		host_connect && dev=$(disk) || { say "connect $i failed"; return 1; }
		short_load "$dev" && host_disconnect || return 1
		wait_for 60 short_loads_over || { say "I/O hangs"; return 1; }
	done
}

# check_alive: after what happened the data still has to be right
check_alive()
{
	connect_verify 512K "4k 64k" || { say "not alive afterwards"; return 1; }
}

# alive_still: and the session is the one that it was
alive_still()
{
	live 60 || { say "no recovery"; return 1; }
	SIZE=512K verify 4k 64k && load_stop && host_disconnect
}

# The target drops the connection, and takes it up again.
t_reconnect()
{
	local i

	host_connect && load_start "$(disk)" || return 1
	for ((i = 0; i < CYCLES; i++)); do
		echo 0 > "$TPG/enable"
		wait_for 60 lost || { say "no connection was lost"; return 1; }
		echo 1 > "$TPG/enable"
		live 60 || { say "no recovery from $i"; return 1; }
	done
	alive_still
}

# scsi_reset DISK TYPE, as sg_reset does it: 1 is of the LUN, 3 of the host
scsi_reset()
{
	timeout 120 python3 -c "
import fcntl, os, struct
fcntl.ioctl(os.open('$1', os.O_RDWR | os.O_NONBLOCK), 0x2284, struct.pack('i', 0x100 | $2))" \
		2> "$LOG/reset" || { say "reset: $(tail -n1 "$LOG/reset")"; return 1; }
}

t_reset_lun()
{
	local i dev

	host_connect && dev=$(disk) && load_start "$dev" || return 1
	for ((i = 0; i < CYCLES; i++)); do
		scsi_reset "$dev" 1 || return 1
	done
	told "SRP reset_device called" && alive_still
}

# that is a reconnect
t_reset_host()
{
	local i dev

	host_connect && dev=$(disk) && load_start "$dev" || return 1
	for ((i = 0; i < CYCLES; i++)); do
		scsi_reset "$dev" 3 && live 60 || { say "no recovery from $i"; return 1; }
	done
	told "reconnect succeeded" && alive_still
}

# What takes too long is aborted, and here the target's answers do.
t_abort()
{
	local dev timeout ret

	modprobe -q sch_netem || skip "no CONFIG_NET_SCH_NETEM" || return
	[ "$TYPE" != rxe ] || skip "rxe gives up before SCSI does" || return
	host_connect && dev=$(disk) && load_start "$dev" || return 1
	timeout=/sys/class/block/${dev##*/}/device/timeout
	echo 1 > "$timeout"
	tc qdisc add dev d1 root netem delay 1500ms limit 100000 || return 1
	wait_for 60 told "Sending SRP abort"
	ret=$?
	tc qdisc del dev d1 root
	echo 30 > "$timeout"
	[ $ret = 0 ] || { say "nothing is aborted"; return 1; }
	alive_still
}

# Without a target the session goes.
t_dev_loss()
{
	local port

	host_connect && load_start "$(disk)" || return 1
	port=$(echo /sys/class/srp_remote_ports/port-*)
	echo 1 > "$port/fast_io_fail_tmo" && echo 3 > "$port/dev_loss_tmo" || return 1
	echo 0 > "$TPG/enable"
	wait_for 60 gone || { say "a session stays"; return 1; }
	load_stop
	echo 1 > "$TPG/enable"
	check_alive
}

t_unload_host()
{
	host_connect && load_start "$(disk)" || return 1
	# the disk is in use, and so is the module
	! modprobe -r ib_srp 2> /dev/null || { say "unloaded under I/O"; return 1; }
	host_disconnect && load_stop || return 1
	modprobe -r ib_srp || { say "cannot unload ib_srp"; return 1; }
	# a session goes with it, once nobody looks at its disk any more
	host_connect && disk > /dev/null && wait_for 60 modprobe -r ib_srp && gone ||
		{ say "cannot unload ib_srp with a session"; return 1; }
	check_alive
}

t_unload_target()
{
	host_connect && load_start "$(disk)" || return 1
	target_down
	[ ! -d /sys/module/ib_srpt ] || { say "cannot unload ib_srpt"; return 1; }
	load_stop && target_up && alive_still
}

# The target's port goes, and comes back.
t_target_gone()
{
	host_connect && load_start "$(disk)" || return 1
	target_port_down
	[ ! -e "$WWN" ] || { say "the port stays"; return 1; }
	wait_for 60 lost || { say "no connection was lost"; return 1; }
	target_port && alive_still
}

# The session goes with its device.
t_device_gone_host()
{
	host_connect && load_start "$(disk)" || return 1
	rdma link delete r0 && gone || { say "a session stays"; return 1; }
	load_stop && wire_links "$TYPE" && check_alive
}

t_device_gone_target()
{
	host_connect && load_start "$(disk)" || return 1
	rdma link delete r1 || return 1
	target_port_down
	wire_links "$TYPE" && target_port && alive_still
}

# A connect of which something fails works out, or not.
connect_or_not()
{
	host_connect > /dev/null && disk 10 > /dev/null
	host_disconnect
}

# One of the mappings of a connect fails, in each of the places that map: rings of
# information units of both channels on either side, and data.
t_fail_connect()
{
	local n all hit=0 tried=0

	[ -d $FAIL_MAP ] || skip "no CONFIG_FAIL_RDMA_MAP" || return
	fail_map probability=100 space=1000000 && connect_or_not || return 1
	all=$((1000000 - $(cat $FAIL_MAP/space)))
	say "$all mappings"
	for n in $FAIL_AT; do
		tried=$((tried + 1))
		fail_map probability=100 times=1 space=$((all * n / 100)) &&
			connect_or_not || return 1
		[ "$(cat $FAIL_MAP/times)" != 0 ] || hit=$((hit + 1))
		fail_map
	done
	say "$hit mappings of $tried failed"
	[ $((2 * hit)) -gt $tried ] && check_alive
}

# What fails is reported or tried again, and has to have been undone: the session has
# never been lost.
t_fail_io()
{
	local how

	[ -d $FAIL_MAP ] || skip "no CONFIG_FAIL_RDMA_MAP" || return
	for how in register_always=Y register_always=N never_register=Y; do
		host_module $how && host_connect && load_start "$(disk)" || return 1
		fail_map probability=5
		sleep 2
		failed $FAIL_MAP && fail_map && alive_still || return 1
		! told "ib_srp: failed .* status" || { say "the connection was lost"; return 1; }
	done
	host_module && check_alive
}

# rxe's QP for MADs may not have survived it
new_devices()
{
	target_port_down
	wire_renew "$TYPE" && target_port
}

# fail_kworkers PROBABILITY: theirs are the target, and the connections of both sides
fail_kworkers()
{
	fail_in $FAIL_SLAB 'ib_srp|target_core|rdma_rxe' && fail_tasks kworker 1 &&
		fail_slab probability="$1"
}

fail_kworkers_no_more()
{
	local ret

	failed $FAIL_SLAB
	ret=$?
	fail_slab
	fail_tasks kworker 0
	return $ret
}

t_fail_alloc()
{
	local n ret hit=0

	[ -d $FAIL_SLAB ] || skip "no CONFIG_FAILSLAB" || return
	[ "$TYPE" != siw ] ||
		skip "siw's connection manager does not survive it" || return
	for n in 1 3 10; do
		fail_kworkers $n && connect_or_not
		ret=$?
		! fail_kworkers_no_more || hit=$((hit + 1))
		[ $ret = 0 ] && new_devices || return 1
	done
	[ $hit -ge 2 ] && check_alive
}

t_fail_alloc_io()
{
	[ -d $FAIL_SLAB ] || skip "no CONFIG_FAILSLAB" || return
	[ "$TYPE" != siw ] ||
		skip "siw's connection manager does not survive it" || return
	host_connect && load_start "$(disk)" && fail_kworkers 1 || return 1
	sleep 3
	# for want of MADs one end may not hear that the other one has lost the connection
	fail_kworkers_no_more && new_devices || return 1
	load_stop && wait_for 60 gone && check_alive
}

# login_failing NTH: of its allocations the nth fails. Sets LEFT to what it is then.
login_failing()
{
	# a shell of its own, because that ends with its process
	# shellcheck disable=SC2094
	LEFT=$(
		nth=/proc/$BASHPID/fail-nth
		exec 3> "$ADD" 4> "$nth" 5< "$nth" || exit
		echo "$1" >&4
		echo "$LOGIN" 2> /dev/null >&3
		read -ru 5 left
		echo 0 >&4
		echo "$left"
	) 2> /dev/null
}

# What the initiator allocates for a connect is allocated for who writes the login.
t_fail_alloc_host()
{
	local n all

	[ -d $FAIL_SLAB ] || skip "no CONFIG_FAILSLAB" || return
	[ -e /proc/self/fail-nth ] || skip "no fail-nth" || return
	gone && fail_slab && login && login_failing 1000000 || return 1
	all=$((1000000 - LEFT))
	say "$all allocations"
	[ $all -gt 100 ] && host_disconnect || return 1
	# another login may make do with a few less
	for n in $FAIL_AT; do
		login_failing $(((all - 20) * n / 100 + 1))
		[ "$LEFT" = 0 ] || { say "nothing failed: $LEFT"; return 1; }
		host_disconnect || return 1
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
	host_disconnect
	modprobe -r ib_srp 2> /dev/null
	target_down
	wire_down
}

TESTS="connect verify_small verify disconnect immediate no_immediate large
	global_rkey cycle reconnect reset_lun reset_host abort dev_loss
	unload_host unload_target target_gone device_gone_host
	device_gone_target fail_connect fail_io fail_alloc fail_alloc_io
	fail_alloc_host"

begin fio rdma python3 tc
run_tests "$@"
