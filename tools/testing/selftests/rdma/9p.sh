#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# 9p.sh [rxe] [siw] - 9P over a veth pair.
#
# The kernel's client on r0. On r1 9p_server, in user space, with diod behind it.
# Files of 1 byte to 16 MiB are written and read with messages of 4 KiB to 1 MiB (of
# 4 KiB only 1 MiB), and compared. Then tasks, the server, devices and the module go
# away under I/O, and mappings and allocations fail.
#
# SERVER=where 9p_server is, SIZE=bytes of the largest file, MSIZES=bytes of messages,
# CYCLES=mounts under I/O, ONLY=tests.
# shellcheck disable=SC2015,SC2016,SC2317

# shellcheck source=wire.sh
. "$(dirname "$0")/wire.sh"

SERVER=${SERVER:-$DIR/9p_server}
SIZE=$(numfmt --from=iec "${SIZE:-16M}")
CYCLES=${CYCLES:-20}
PORT=5640
TCP_PORT=5641
EXPORT=$LOG/export
MNT=$LOG/mnt
MSIZES=${MSIZES:-4096 65536 262144 1048576}

# --- the server, with a file system in memory, on r1 ---

# links_up: also to bring a device back that a test has removed. A twin has no user
# space: if devices are twins, then r1 is to be none.
TWIN=/sys/module/ib_core/parameters/twin
links_up()
{
	local adapter=

	[ ! -e $TWIN ] || read -r adapter < $TWIN
	if [ "$adapter" ] && ! rdma link show r1/1 > /dev/null 2>&1; then
		echo > $TWIN
		rdma link add r1 type "$TYPE" netdev d1
		echo "$adapter" > $TWIN
	fi
	wire_links "$TYPE"
}

listening()
{
	rdma resource show cm_id link r1 | grep -q LISTEN
}

bridge_up()
{
	"$SERVER" $A1 $PORT $TCP_PORT 2> "$LOG/server" &
	BRIDGE=$!
	wait_for 60 listening || { say "no server: $(tail -n1 "$LOG/server")"; return 1; }
}

bridge_down()
{
	[ -z "$BRIDGE" ] || { kill "$BRIDGE"; wait "$BRIDGE"; }
	BRIDGE=
} 2> /dev/null

serves()
{
	[ "$(ss -Hltn "sport = :$TCP_PORT")" ]
}

# diod does not survive each connection that breaks
diod_up()
{
	! serves || return 0
	[ -z "$DIOD" ] || wait "$DIOD" 2> /dev/null
	diod -f -n -N -L "$LOG/diod" -c /dev/null -l 127.0.0.1:$TCP_PORT -e "$EXPORT" \
		> /dev/null 2>&1 &
	DIOD=$!
	wait_for 60 serves || { say "no diod: $(tail -n1 "$LOG/diod")"; return 1; }
}

server_up()
{
	if ! mountpoint -q "$EXPORT"; then
		mkdir -p "$EXPORT" "$MNT" && mount -t tmpfs none "$EXPORT" || return 1
		head -c "$SIZE" /dev/urandom > "$LOG/random" || return 1
		head -c 20000 "$LOG/random" > "$EXPORT/look"
	fi
	diod_up && bridge_up
}

server_down()
{
	bridge_down
	[ -z "$DIOD" ] || { kill "$DIOD"; wait "$DIOD"; }
	DIOD=
} 2> /dev/null

# --- the client on r0 ---

# client_up [OPTION...]
client_up()
{
	local IFS=, options=(trans=rdma "port=$PORT" version=9p2000.L "aname=$EXPORT"
		uname=root access=user cache=none "$@")

	diod_up || return 1
	timeout 60 mount -t 9p -o "${options[*]}" $A1 "$MNT" 2> "$LOG/mount"
}

cannot_mount()
{
	say "cannot mount: $(head -n1 "$LOG/mount") (server: $(tail -n1 "$LOG/server"))"
	return 1
}

# of a connection that is lost nothing can be looked at
client_down()
{
	! grep -q " $MNT 9p " /proc/mounts || timeout 60 umount -c "$MNT"
}

has_msize()
{
	grep -q " $MNT 9p .*,msize=$1[, ]" /proc/mounts ||
		{ say "the msize is not $1"; return 1; }
}

# verify SIZE...: a file of each is written and read, and compared with the server's
verify()
{
	local size

	for size; do
		head -c "$size" "$LOG/random" > "$LOG/file"
		cp "$LOG/file" "$MNT/file" && cmp "$LOG/file" "$EXPORT/file" ||
			{ say "$size bytes are not written"; return 1; }
		cmp "$LOG/file" "$MNT/file" || { say "$size bytes are not read"; return 1; }
		rm "$MNT/file" && [ ! -e "$EXPORT/file" ] || return 1
		WROTE=$((WROTE + size))
	done
} 2> "$LOG/err"

# check_alive: after what happened the data still has to be right
check_alive()
{
	client_up msize=65536 || cannot_mount || return 1
	verify 1 65536 1000000 && client_down && gone
}

# gone: none of the client's connections is left
gone()
{
	wait_for 60 eval '! rdma resource show qp link r0 | grep -q RC' ||
		{ say "a QP is left"; return 1; }
}

# load_start: I/O that ends when some of it fails
load_start()
{
	local before

	cp "$LOG/random" "$EXPORT/load"
	before=$(wire_bytes)
	fio --name=load --filename="$MNT/load" --allow_file_create=0 \
		--rw=randrw --bsrange=512-256k --ioengine=psync --numjobs=8 \
		--time_based --runtime=600 > "$LOG/fio" 2>&1 &
	LOAD=$!
	wait_for 60 eval '[ $(($(wire_bytes) - '"$before"')) -gt 1000000 ]' ||
		{ say "no I/O"; load_stop; return 1; }
}

# load_over: it has come to an end by itself
load_over()
{
	wait_for 60 eval '! kill -0 $LOAD' || { say "I/O hangs"; load_stop; return 1; }
	! wait "$LOAD" || { say "no I/O has failed"; return 1; }
}

load_stop()
{
	pkill -KILL -x fio
	wait_for 60 eval '! pgrep -x fio' || { say "I/O cannot be killed"; return 1; }
	wait "$LOAD"
	return 0
} 2> /dev/null

# --- the tests ---

t_files()
{
	local msize large before

	for msize in $MSIZES; do
		client_up msize="$msize" || cannot_mount || return 1
		has_msize "$msize" || return 1
		# no more than 256 messages
		large=$((256 * msize < SIZE ? 256 * msize : SIZE))
		before=$(wire_bytes)
		WROTE=0
		verify 1 511 4095 4096 4097 65536 $((large / 8 - 1)) $large || return 1
		say "msize=$msize wrote=$WROTE verified=$WROTE"
		[ $(($(wire_bytes) - before)) -gt $WROTE ] ||
			{ say "too few bytes on the wire"; return 1; }
		client_down && gone || return 1
	done
}

t_cycle()
{
	local i

	for ((i = 0; i < CYCLES; i++)); do
		client_up && load_start || { say "mount $i failed"; return 1; }
		! umount "$MNT" 2> /dev/null || { say "unmounted under I/O"; return 1; }
		if [ $((i % 2)) = 0 ]; then
			# what is open keeps the connection
			umount -l "$MNT" && load_stop || return 1
		else
			# it is in use, but what comes now is refused
			! umount -f "$MNT" 2> /dev/null && load_over || return 1
		fi
		client_down && gone || return 1
	done
	check_alive
}

# Tasks are killed that wait for replies, and for a slot to send. It is nobody else's
# concern.
t_kill()
{
	local i

	client_up msize=65536 sq=3 rq=3 || return 1
	for ((i = 0; i < CYCLES; i++)); do
		load_start && load_stop || return 1
	done
	verify 1 65536 1000000 || { say "the connection is lost"; return 1; }
	client_down && gone && check_alive
}

t_server_gone()
{
	local signal

	for signal in TERM KILL; do
		client_up && load_start && kill -$signal "$BRIDGE" && load_over || return 1
		bridge_down
		client_down && gone && bridge_up && check_alive || return 1
	done
	# the one behind it
	client_up && load_start && server_down && load_over || return 1
	client_down && gone && server_up && check_alive
}

# It goes when it has been unmounted.
t_device_gone_client()
{
	local ret

	client_up && load_start || return 1
	rdma link delete r0 &
	load_over
	ret=$?
	client_down && wait $! && links_up && check_alive && return $ret
}

t_device_gone_server()
{
	client_up && load_start || return 1
	rdma link delete r1 &
	# siw's waits until user space has closed it, rxe's takes it away
	[ "$TYPE" != siw ] || kill "$BRIDGE"
	load_over && wait $! || return 1
	bridge_down
	client_down && links_up && bridge_up && check_alive
}

t_unload()
{
	client_up && load_start || return 1
	! modprobe -r 9pnet_rdma 2> /dev/null || { say "unloaded under I/O"; return 1; }
	load_stop && client_down || return 1
	modprobe -r 9pnet_rdma || { say "cannot unload 9pnet_rdma"; return 1; }
	# mount(8) has it loaded
	check_alive
}

# mount_or_not: with something that fails
mount_or_not()
{
	client_up msize=8192 && { ls "$MNT"; cat "$MNT/look"; } > /dev/null 2>&1
	client_down
	gone
}

# Each mapping of a mount, a look and an unmount fails once, among them those of the
# connection manager.
t_fail_mount()
{
	local n maps hit=0

	[ -d $FAIL_MAP ] || skip "no CONFIG_FAIL_RDMA_MAP" || return
	fail_map probability=100 space=$OFTEN && mount_or_not || return 1
	maps=$((OFTEN - $(cat "$FAIL_MAP/space")))
	for ((n = 0; n < maps; n++)); do
		fail_map probability=100 times=1 space="$n" && mount_or_not ||
			{ say "mapping $n"; return 1; }
		[ "$(cat $FAIL_MAP/times)" != 0 ] || hit=$((hit + 1))
		fail_map
	done
	say "$hit mappings of $maps failed"
	[ $hit -ge 8 ] && [ $((2 * hit)) -gt "$maps" ] && check_alive
}

# What fails is the end of the connection.
t_fail_io()
{
	local n

	[ -d $FAIL_MAP ] || skip "no CONFIG_FAIL_RDMA_MAP" || return
	for n in 0 1 2 50 51 52; do
		client_up msize=65536 && load_start || return 1
		fail_map probability=100 times=1 space="$n" && load_over && fail_map ||
			return 1
		client_down && gone || return 1
	done
	check_alive
}

# allocations of mount(8)
t_fail_alloc()
{
	local n hit=0

	[ -d $FAIL_SLAB ] || skip "no CONFIG_FAILSLAB" || return
	for n in 1 2 3 5 8 10; do
		fail_slab probability="$n" || return 1
		for _ in 1 2 3; do
			( echo 1 > /proc/self/make-it-fail; client_up ) 2> /dev/null
			client_down
		done
		! failed $FAIL_SLAB || hit=$((hit + 1))
	done
	fail_slab
	[ $hit -ge 4 ] && gone && check_alive
}

# allocations of the tasks that read and write
t_fail_alloc_io()
{
	local n hit=0

	[ -d $FAIL_SLAB ] || skip "no CONFIG_FAILSLAB" || return
	for n in 1 3 10; do
		client_up msize=65536 && load_start || return 1
		fail_tasks '^fio$' 1
		fail_slab probability="$n" times=20 || return 1
		wait_for 20 eval '[ "$(cat $FAIL_SLAB/times)" = 0 ] || ! kill -0 $LOAD'
		[ "$(cat $FAIL_SLAB/times)" = $OFTEN ] || hit=$((hit + 1))
		fail_slab
		fail_tasks '^fio$' 0
		load_stop && client_down && gone || return 1
	done
	[ $hit = 3 ] && check_alive
}

up()
{
	wire_up "$TYPE" && rdma link delete r1 && links_up && server_up
}

cleanup()
{
	fail_map 2> /dev/null
	load_stop
	client_down || umount -l "$MNT"
	server_down
	umount "$EXPORT"
	modprobe -r 9pnet_rdma
	wire_down
} 2> /dev/null

TESTS="files cycle kill server_gone device_gone_client device_gone_server unload
	fail_mount fail_io fail_alloc fail_alloc_io"

begin diod fio rdma "$SERVER"
run_tests "$@"
