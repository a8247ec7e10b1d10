#!/bin/sh
# Checks the alert rules and runs their tests with promtool. If it is not installed, it is
# taken out of Debian's package prometheus, which is not installed for it.
set -eu
cd "$(dirname "$0")"
promtool=$(command -v promtool || true)
if [ -z "$promtool" ]; then
	if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
		echo "the alert rules are not checked: there is neither promtool nor apt-get"
		exit 0
	fi
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' EXIT
	chmod 755 "$dir" # apt-get downloads as a user of its own
	if ! (cd "$dir" && { apt-get -qq download prometheus || { apt-get -qq update && apt-get -qq download prometheus; }; }) >"$dir/log" 2>&1; then
		echo "the alert rules are not checked: apt-get cannot download promtool"
		cat "$dir/log"
		exit 0
	fi
	dpkg-deb --fsys-tarfile "$dir"/prometheus_*.deb | tar -x -C "$dir" ./usr/bin/promtool
	promtool=$dir/usr/bin/promtool
fi
"$promtool" check rules tokenkeep.rules.yml
"$promtool" test rules tokenkeep.rules.test.yml
