#!/bin/sh
# Installs the language runtimes that the tests of sdk/ use, where they can be had: if
# one is missing, and this is root on a machine with apt. Otherwise it says why not. It
# never fails: the tests that need a runtime are skipped without it, and say so.
#
#	TOKENKEEP_NO_INSTALL  if it is set, nothing is installed
set -u

say() { echo "sdk: $*"; }

missing=
for each in python3:python3 node:nodejs javac:default-jdk-headless php:php-cli ruby:ruby mcs:mono-mcs mono:mono-runtime scalac:scala; do
	command -v "${each%%:*}" >/dev/null || missing="$missing ${each##*:}"
done
if command -v php >/dev/null && ! php -m | grep -qx curl; then
	missing="$missing php-curl"
else
	case $missing in *php-cli*) missing="$missing php-curl" ;; esac
fi
# The SDKs for Java and Scala bring org.json; the tests take that of Debian.
[ -e /usr/share/java/com.android.json.jar ] || missing="$missing libandroid-json-java"
# The C# SDK brings Newtonsoft.Json.
[ -e /usr/lib/cli/Newtonsoft.Json-5.0/Newtonsoft.Json.dll ] || missing="$missing libnewtonsoft-json5.0-cil"
[ -n "$missing" ] || exit 0
[ -z "${TOKENKEEP_NO_INSTALL:-}" ] || { say "without$missing, because TOKENKEEP_NO_INSTALL is set"; exit 0; }
command -v apt-get >/dev/null || { say "without$missing: there is no apt-get to install it with"; exit 0; }
[ "$(id -u)" = 0 ] || { say "without$missing: only root can install it"; exit 0; }

log=$(mktemp)
tell() { say "apt-get failed:"; tail -n 5 "$log"; }
apt-get -o DPkg::Lock::Timeout=300 update -qq >"$log" 2>&1 || tell
# Some releases do not have every package, and apt-get installs all that it is given or none.
known=
for each in $missing; do
	if apt-cache show "$each" >/dev/null 2>&1; then known="$known $each"; else say "without $each: apt-get does not have it"; fi
done
if [ -n "$known" ]; then
	say "installing$known with apt-get"
	# shellcheck disable=SC2086 # it is a list
	DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends $known >"$log" 2>&1 || tell
fi
rm -f "$log"
exit 0
