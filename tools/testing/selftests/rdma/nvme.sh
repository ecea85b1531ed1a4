#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# nvme.sh [rxe] [siw] - nvmet-rdma and nvme-rdma over a veth pair.
#
# What is written is read back and compared (fio), over the capsule and over
# keyed SGLs; then controllers, the target, modules and devices go away under
# I/O, and mappings and allocations fail.
#
# SIZE=bytes to write at each block size, and a quarter of it, but 256K at least, where
# something else is tested, CYCLES=connects under I/O, ONLY=tests.
# shellcheck disable=SC2015,SC2016,SC2317

# shellcheck source=wire.sh
. "$(dirname "$0")/wire.sh"
# shellcheck source=disk.sh
. "$(dirname "$0")/disk.sh"

SIZE=${SIZE:-16M}
SOME=$(($(numfmt --from=iec "$SIZE") / 4))
[ $SOME -ge 262144 ] || SOME=262144
CYCLES=${CYCLES:-50}
# which mappings fail, of those of a connect and a disconnect
FAIL_AT=${FAIL_AT:-1 2 3 20 34 36 60 80 100 130 160 200 240 300 400 500 600}
NQN=nqn.2026-01.org.kernel:selftest
HOST=nqn.2026-01.org.kernel:selftest-host
HOSTID=6f5c6d2e-2c4f-4c56-9d4e-0d6f6a1f2b10
CFG=/sys/kernel/config/nvmet
SUB=$CFG/subsystems/$NQN
PORT=$CFG/ports/1

# --- the target: /dev/ram0 on r1 ---

target_listen()
{
	ln -s "$SUB" $PORT/subsystems/$NQN
}

target_up()
{
	modprobe -a nvmet nvmet-rdma || return 1
	modprobe brd rd_nr=1 rd_size=65536 || return 1
	[ -b /dev/ram0 ] || return 1
	mkdir -p "$SUB" && echo 1 > "$SUB/attr_allow_any_host"
	mkdir -p "$SUB/namespaces/1" && echo -n /dev/ram0 > "$SUB/namespaces/1/device_path"
	echo 1 > "$SUB/namespaces/1/enable" || return 1
	mkdir -p $PORT
	echo rdma > $PORT/addr_trtype
	echo ipv4 > $PORT/addr_adrfam
	echo $A1 > $PORT/addr_traddr
	echo 4420 > $PORT/addr_trsvcid
	# four pages, so that there is more than one SGE in a capsule
	echo 16384 > $PORT/param_inline_data_size
	target_listen
}

target_down()
{
	rm -f $PORT/subsystems/$NQN
	rmdir $PORT 2> /dev/null
	[ ! -e "$SUB/namespaces/1" ] || echo 0 > "$SUB/namespaces/1/enable"
	rmdir "$SUB/namespaces/1" "$SUB" 2> /dev/null
	modprobe -r nvmet-rdma
}

# --- the host on r0 ---

# sets CONTROLLERS to the sysfs folders of ours
controllers()
{
	local dir nqn

	CONTROLLERS=()
	for dir in /sys/class/nvme/nvme*; do
		{ read -r nqn < "$dir/subsysnqn"; } 2> /dev/null || continue
		[ "$nqn" != $NQN ] || CONTROLLERS+=("$dir")
	done
}

# prints the block device of the first namespace, waits for it to show up
disk()
{
	local i ns

	for ((i = 0; i < 100; i++)); do
		controllers
		for ns in "${CONTROLLERS[@]}"; do
			ns=/dev/${ns##*/}n1
			[ ! -b "$ns" ] || { echo "$ns"; return 0; }
		done
		pause 0.1
	done
	return 1
}

# host_connect [OPTION...], as the fabrics device takes them
host_connect()
{
	local IFS=, options=(transport=rdma "traddr=$A1" trsvcid=4420
		"host_traddr=$A0" "nqn=$NQN" "hostnqn=$HOST" "hostid=$HOSTID"
		nr_io_queues=2 queue_size=32 reconnect_delay=1 "$@")

	[ -d /sys/module/nvme_rdma ] || modprobe nvme-rdma || return 1
	echo "${options[*]}" 2> /dev/null > /dev/nvme-fabrics
}

host_disconnect()
{
	local dir

	controllers
	for dir in "${CONTROLLERS[@]}"; do
		echo 1 > "$dir/delete_controller"
	done 2> /dev/null
}

is_live()
{
	local state

	controllers
	[ ${#CONTROLLERS[@]} = 1 ] && read -r state < "${CONTROLLERS[0]}/state" &&
		[ "$state" = live ]
}

gone()
{
	controllers
	[ ${#CONTROLLERS[@]} = 0 ]
}

# --- the tests ---

t_verify()
{
	# 4k and 16k fit into a capsule, the others need a keyed SGL
	verify_on_wire 4k 16k 20k 64k 1m
}

t_disconnect()
{
	host_disconnect && wait_for 60 gone
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
	SIZE=$SOME verify 4k 64k && host_disconnect && wait_for 60 gone
}

t_unload_host()
{
	host_connect && load_start "$(disk)" || return 1
	modprobe -r nvme-rdma || { say "cannot unload nvme-rdma"; return 1; }
	load_stop && gone && check_alive
}

t_unload_target()
{
	host_connect ctrl_loss_tmo=2 && load_start "$(disk)" || return 1
	target_down || { say "cannot unload nvmet-rdma"; return 1; }
	wait_for 60 gone || { say "the controller stays"; return 1; }
	load_stop && target_up && check_alive
}

t_target_gone()
{
	host_connect ctrl_loss_tmo=60 && load_start "$(disk)" || return 1
	rm $PORT/subsystems/$NQN
	wait_for 60 lost || { say "no connection was lost"; return 1; }
	target_listen || return 1
	live 60 || { say "no reconnect"; return 1; }
	SIZE=$SOME verify 64k || return 1
	load_stop && host_disconnect && wait_for 60 gone && check_alive
}

t_device_gone_host()
{
	host_connect ctrl_loss_tmo=60 && load_start "$(disk)" || return 1
	rdma link delete r0 || return 1
	wait_for 60 gone || { say "the controller stays"; return 1; }
	load_stop && wire_links "$TYPE" && check_alive
}

t_device_gone_target()
{
	host_connect ctrl_loss_tmo=120 && load_start "$(disk)" || return 1
	rdma link delete r1 || return 1
	# nvmet lets go of the port, and does not listen again by itself
	rm $PORT/subsystems/$NQN
	wire_links "$TYPE" && target_listen && live 120 || { say "no reconnect"; return 1; }
	load_stop && host_disconnect && wait_for 60 gone && check_alive
}

t_global_rkey()
{
	modprobe -r nvme-rdma && modprobe nvme-rdma register_always=N || return 1
	host_connect && verify 4k 64k 1m && host_disconnect && wait_for 60 gone
	local ret=$?

	modprobe -r nvme-rdma && return $ret
}

t_srq()
{
	target_down && modprobe nvmet-rdma use_srq=Y && target_up || return 1
	host_connect && verify 4k 64k && host_disconnect && wait_for 60 gone
	local ret=$? start=$SECONDS

	# ib_drain_qp() gives up after a minute, and does not say so
	target_down && target_up && [ $((SECONDS - start)) -lt 50 ] ||
		{ say "the target takes $((SECONDS - start)) s to go"; return 1; }
	return $ret
}

# The n-th mapping fails, for an n in each of the places that map: rings, commands,
# completions and in-capsule pages of admin and I/O queues of either side.
t_fail_connect()
{
	local n hit=0 tried=0

	[ -d $FAIL_MAP ] || skip "no CONFIG_FAIL_RDMA_MAP" || return
	modprobe nvme-rdma
	for n in $FAIL_AT; do
		tried=$((tried + 1))
		fail_map probability=100 times=1 space="$n" || return 1
		host_connect && host_disconnect
		[ "$(cat $FAIL_MAP/times)" != 0 ] || hit=$((hit + 1))
		fail_map
		# a controller that lost an I/O queue may still be setting up
		host_disconnect
		wait_for 60 gone || { say "a controller stays (n=$n)"; return 1; }
	done
	say "$hit mappings of $tried failed"
	[ $((2 * hit)) -gt $tried ] && check_alive
}

t_fail_io()
{
	local dev

	[ -d $FAIL_MAP ] || skip "no CONFIG_FAIL_RDMA_MAP" || return
	host_connect && dev=$(disk) || return 1
	load_start "$dev" || return 1
	fail_map probability=5
	sleep 3
	failed $FAIL_MAP && fail_map && load_stop || return 1
	# what failed has to have been undone: the same controller still works
	SIZE=$SOME verify 4k 64k && host_disconnect && wait_for 60 gone && check_alive
}

# allocations of the host's process and of all kworkers, where the target runs
t_fail_alloc()
{
	local n hit=0

	[ -d $FAIL_SLAB ] || skip "no CONFIG_FAILSLAB" || return
	[ "$TYPE" != siw ] ||
		skip "siw's connection manager does not survive it" || return
	modprobe nvme-rdma
	fail_in $FAIL_SLAB 'nvme|nvmet|rdma_rxe|siw'
	fail_tasks kworker 1
	for n in 1 2 3 5 8 10; do
		fail_slab probability="$n" || return 1
		for _ in 1 2 3; do
			( echo 1 > /proc/self/make-it-fail; host_connect ) 2> /dev/null
			host_disconnect
		done
		! failed $FAIL_SLAB || hit=$((hit + 1))
	done
	fail_slab
	fail_tasks kworker 0
	[ $hit -ge 4 ] || return 1
	host_disconnect
	wait_for 60 gone || { say "a controller stays"; return 1; }
	wire_renew "$TYPE" && rm $PORT/subsystems/$NQN && target_listen && check_alive
}

up()
{
	wire_up "$TYPE" && target_up
}

cleanup()
{
	fail_map 2> /dev/null
	host_disconnect 2> /dev/null
	target_down 2> /dev/null
	wire_down
}

TESTS="connect verify_small verify disconnect cycle unload_host unload_target
	target_gone device_gone_host device_gone_target global_rkey srq
	fail_connect fail_io fail_alloc"

begin fio rdma
run_tests "$@"
