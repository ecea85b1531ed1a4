# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
# What setup and base begin with: an environment that does not change what
# programs do and say, $top, die(), and the end where Linux cannot be built.

set +C
export LC_ALL=C
unset CDPATH GREP_OPTIONS LANGUAGE TAR_OPTIONS XZ_DEFAULTS XZ_OPT
for name in $(env | sed -n 's/^\(GIT_[A-Za-z0-9_]*\)=.*/\1/p'); do
	unset "$name"
done
[ -w "${TMPDIR:-/tmp}/" ] || unset TMPDIR

die() {
	echo "harness: $*" >&2
	exit 1
}

[ "$(uname -m)" = x86_64 ] ||
	die "the guests are UML and x86: they want an x86-64 machine, and this is $(uname -m)"
top=$(cd "$(dirname -- "$0")/../.." && pwd -P)
path=$(realpath -m -- "$top/build/linux")
case $path in
*[[:space:][:cntrl:]]*) die "Linux cannot be built in a path with a space: $path" ;;
*[:%\$\&\(\)\;\<\>\|\`\'\"\\]*) die "Linux cannot be built in a path with one of : % $ & ( ) ; < > | \` ' \" \\: $path" ;;
esac
