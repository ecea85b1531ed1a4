# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Sourced by the tests of ULPs that make a disk, after wire.sh. They
# have a host_connect(), a disk() that prints its name, an is_live() that tells
# whether it is connected, and SIZE.
# shellcheck disable=SC2015,SC2016,SC2034

lost()
{
	! is_live
}

# live SECONDS
live()
{
	wait_for "$1" is_live
}

# verify BLOCK_SIZE...: random writes, then reads that compare
verify()
{
	local bs dev jobs=()

	dev=$(disk) || { say "no disk"; return 1; }
	for bs; do
		jobs+=(--name="$bs" --bs="$bs" --stonewall)
	done
	timeout 900 fio --filename="$dev" --allow_file_create=0 --rw=randwrite \
		--size="$SIZE" --io_size="$SIZE" --direct=1 --ioengine=libaio \
		--iodepth=16 --verify=crc32c --verify_fatal=1 --do_verify=1 \
		--output-format=terse --terse-version=3 --output="$LOG/fio" \
		"${jobs[@]}" > "$LOG/err" 2>&1 ||
		{ say "fio failed: $(tail -n1 "$LOG/err")"; return 1; }
	# fio is content with nothing: the error, and KiB read and written
	awk -F';' -v jobs=$# '
		$1 == 3 {
			printf "# bs=%s wrote=%d verified=%d\n", $3, $47 * 1024, $6 * 1024
			if (!$5 && $47 && $6 >= $47)
				good++
		}
		END { exit good != jobs }' "$LOG/fio"
}

# verify_on_wire BLOCK_SIZE...: and all that is written crosses it
verify_on_wire()
{
	local before

	before=$(wire_bytes)
	verify "$@" || return 1
	[ $(($(wire_bytes) - before)) -gt $(($# * $(numfmt --from=iec "$SIZE"))) ] ||
		{ say "too few bytes on the wire"; return 1; }
}

t_connect()
{
	host_connect && disk > /dev/null
}

t_verify_small()
{
	SIZE=128K verify 512
}

# not among the tests: any other load, FIO=its options
t_fio()
{
	local dev

	# shellcheck disable=SC2086
	dev=$(disk) && fio --name=load --filename="$dev" --allow_file_create=0 \
		--direct=1 --ioengine=libaio --iodepth=16 $FIO > "$LOG/fio"
}

# ios DISK: sets IOS to the number of requests that it has completed
ios()
{
	local -a stat

	read -r -a stat < /sys/class/block/"${1##*/}"/stat && IOS=$((stat[0] + stat[4]))
}

# more_ios DISK NUMBER
more_ios()
{
	ios "$1" && [ "$IOS" -gt "$2" ]
}

# load_start DISK: I/O that may fail, to have something going on while something else
# goes away, beside what verify works on
load_start()
{
	local dev=$1

	[ -b "$dev" ] && ios "$dev" || { say "no disk"; return 1; }
	fio --name=load --filename="$1" --rw=randrw --bsrange=512-256k --direct=1 \
		--ioengine=libaio --iodepth=16 --time_based --runtime=300 \
		--offset=32M --size=32M \
		--continue_on_error=all --error_dump=0 --allow_file_create=0 \
		> /dev/null 2>&1 &
	LOAD=$!
	# some of it has to be under way
	wait_for 60 more_ios "$dev" $((IOS + 32)) ||
		{ say "no I/O"; return 1; }
}

# short_load DISK: the same for as long as the disk is there, and quick to start
short_load()
{
	local i

	ios "$1" || { say "no disk"; return 1; }
	SHORT_LOADS=()
	for i in 4 64; do
		dd if="$1" of=/dev/null bs=${i}k iflag=direct &
		SHORT_LOADS+=($!)
		dd if=/dev/zero of="$1" bs=${i}k oflag=direct conv=notrunc,nocreat &
		SHORT_LOADS+=($!)
	done 2> /dev/null
	wait_for 60 more_ios "$1" $((IOS + 32)) || { say "no I/O"; return 1; }
}

# short_loads_over: all have come to an end
short_loads_over()
{
	! kill -0 "${SHORT_LOADS[@]}"
}

load_stop()
{
	kill "$LOAD" 2> /dev/null
	# requests of a connection that is being recovered may take a while
	wait_for 90 eval '! kill -0 $LOAD 2> /dev/null' || { say "I/O hangs"; return 1; }
	wait "$LOAD" 2> /dev/null
	return 0
}
