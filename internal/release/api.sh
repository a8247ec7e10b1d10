#!/usr/bin/env bash
# Compares the exported names of the module with those of the last tag, and fails if a
# program that compiles with the tag would not compile now.
#
#   internal/release/api.sh VERSION [COMMIT]    of golang.org/x/exp, and to compare with
#
# Changes that are meant stand in internal/release/api.txt, as this script prints them.
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
apidiff() { go run "golang.org/x/exp/cmd/apidiff@$version" "$@" 2> >(grep -v '^Ignoring internal package' >&2); }
version=$1
module=$(go list -m)

# The commit before, so that a tag is compared with the tag before it.
old=${2:-$(git describe --tags --abbrev=0 --match 'v*' HEAD^ 2>/dev/null || true)}
if [ -z "$old" ]; then
	echo "there is no tag yet to compare the exported names with"
	exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone --quiet . "$work/old"
git -C "$work/old" checkout --quiet --detach "$(git rev-parse "$old^{commit}")"
(cd "$work/old" && apidiff -m -w "$work/old.export" "$module")
apidiff -m -w "$work/new.export" "$module"
apidiff -m -incompatible "$work/old.export" "$work/new.export" >"$work/report"

# Nothing imports a program or an example.
grep '^- ' "$work/report" | grep -vE '^- \./(cmd|examples)/' | sort >"$work/changes" || true
sed -e '/^#/d' -e '/^$/d' internal/release/api.txt | sort >"$work/meant"
unmeant=$(comm -23 "$work/changes" "$work/meant")
gone=$(comm -13 "$work/changes" "$work/meant")
[ -z "$gone" ] || printf 'not a change since %s; take it out of internal/release/api.txt:\n%s\n' "$old" "$gone"
[ -z "$unmeant" ] || printf 'programs that compile with %s break:\n%s\n' "$old" "$unmeant"
[ -z "$gone$unmeant" ] || exit 1
echo "$(wc -l <"$work/changes") changes since $old that break a program, all of them meant"
