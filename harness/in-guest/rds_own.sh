#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# rds_own.sh: in a guest, Linux's own test of RDS, over rxe on a veth pair that it
# makes itself: as it is, and with packets lost, corrupted and duplicated. It writes
# next to itself, and finds the tree from there.
# shellcheck source=/dev/null
. "$GUEST_TREE/tools/testing/selftests/kselftest/ktap_helpers.sh"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin RDS_LOG_DIR='' SUDO_USER=root

mkdir -p /tmp/rds /run/netns
cd "$GUEST_TREE" || exit 1
cp -r --parents net/rds tools/testing/selftests/net/{rds,lib} tools/testing/selftests/kselftest \
	tools/net/ynl Documentation/netlink /tmp/rds
# it asks for RDS over TCP, even where it does not use it
{ zcat /proc/config.gz; echo CONFIG_RDS_TCP=y; } > /tmp/rds/.config
cd /tmp/rds/tools/testing/selftests/net/rds || exit 1
modprobe -a rds_rdma rdma_rxe sch_netem

variants=("" "-l 1" "-c 1" "-u 1")
ktap_print_header
ktap_set_plan ${#variants[@]}
for options in "${variants[@]}"; do
	name="rds_run.sh -T rdma${options:+ $options}"
	echo "selftest: $name" > /dev/kmsg
	# shellcheck disable=SC2086
	if bash rds_run.sh -T rdma -t 240 $options > /run/out/rds_own.log 2>&1; then
		ktap_test_pass "$name"
	else
		ktap_test_fail "$name"
		grep -vE '^# (send|receiv)ing' /run/out/rds_own.log | tail -n5 | sed 's/^#* */# /'
	fi
done
ktap_finished
