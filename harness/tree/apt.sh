# shellcheck shell=sh disable=SC2154
# SPDX-License-Identifier: GPL-2.0
# Debian's archive through an apt directory of our own, build/apt: the system's
# apt configuration is read for the archive's address and not touched.
# Needs $build and die().

apt=$build/apt
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

own_apt() {
	program=$1
	shift
	"$program" -q -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt/cache" \
		-o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}

own_sources() {
	program=$1
	shift
	own_apt "$program" -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
		-o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
		-o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false \
		-o Acquire::IndexTargets::deb-src::Contents-dsc::DefaultEnabled=false "$@"
}

archive() {
	own_apt apt-get "$@" indextargets --format "\$(ORIGIN)|\$(LABEL)|\$(REPO_URI)" |
		sed -n 's/^Debian|Debian|//p' | sort -u | head -n1
}

have_archive() {
	[ -r "$keyring" ] && command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
	uri=$(archive -o Dir::State::lists=/var/lib/apt/lists)
	if [ -z "$uri" ]; then
		# Nobody has run apt-get update here yet.
		own_apt apt-get update >"$apt/log" 2>&1 || true
		uri=$(archive)
	fi
	[ "$uri" ]
}

# own_suite deb|deb-src SUITE
own_suite() {
	echo "$1 [signed-by=$keyring] $uri $2 main" >"$apt/sources.list"
	own_sources apt-get -o APT::Update::Error-Mode=any update >"$apt/log" 2>&1
}

apt_error() {
	grep '^[EW]:' "$apt/log" | tail -n1
}
