#!/bin/sh
# Makes sure that redis-server and redis-sentinel are there: the tests run them, on free ports, and use no other Redis.
# On Debian and Ubuntu they are installed where root or a password-less sudo allows it.
set -eu

missing=
for program in redis-server redis-sentinel; do
	command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
[ -n "$missing" ] || exit 0

sentence="The tests need$missing in the PATH (Redis 7.0 or newer)."
if ! command -v apt-get >/dev/null 2>&1; then
	echo "$sentence Install them with your system's package manager." >&2
	exit 1
fi
as_root=
if [ "$(id -u)" -ne 0 ]; then
	if ! sudo -n true 2>/dev/null; then
		echo "$sentence Install them: sudo apt-get install redis-server redis-sentinel" >&2
		exit 1
	fi
	as_root="sudo -n"
fi

echo "$sentence Installing them with apt-get."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 # as_root is two words or none
if ! { $as_root apt-get update && $as_root env DEBIAN_FRONTEND=noninteractive \
	apt-get install --yes --no-install-recommends $missing; } >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	echo "$sentence Installing them failed, see above." >&2
	exit 1
fi
