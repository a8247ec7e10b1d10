#!/bin/sh
# Installs mariadb-server for the tests, if no server is installed and the user is
# root on a machine with apt-get. The script always exits with status 0, because
# the tests that need a server are skipped without a server.
#
#	TOKENKEEP_MYSQL_DSN   if set, it names another server, and nothing is installed
#	TOKENKEEP_NO_INSTALL  if set, nothing is installed
set -u

say() { echo "mariadb-server: $*"; }

for name in mariadbd mysqld; do
	for dir in $(echo "$PATH" | tr ':' ' ') /usr/sbin /usr/bin /usr/local/sbin /usr/local/bin; do
		[ -x "$dir/$name" ] && exit 0
	done
done
[ -z "${TOKENKEEP_MYSQL_DSN:-}" ] || exit 0
[ -z "${TOKENKEEP_NO_INSTALL:-}" ] || { say "not installed, and TOKENKEEP_NO_INSTALL is set"; exit 0; }
command -v apt-get >/dev/null || { say "not installed, and there is no apt-get to install it with"; exit 0; }
[ "$(id -u)" = 0 ] || { say "not installed, and only root can install it"; exit 0; }

# The tests start their own server, so the package must not start one.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
fi
log=$(mktemp)
say "installing it with apt-get"
if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mariadb-server; } >"$log" 2>&1; then
	say "apt-get failed:"
	tail -n 5 "$log"
fi
rm -f "$log"
exit 0
