#!/usr/bin/env bash
# Compares the exported names of the module with those of the last tag. The script fails
# if a program that compiles with the tag would not compile with the current commit.
#
#   internal/release/api.sh VERSION [COMMIT]
#
# VERSION is the version of golang.org/x/exp. COMMIT replaces the last tag.
#
# internal/release/api.txt lists the intended changes, as this script prints them.
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
apidiff() { go run "golang.org/x/exp/cmd/apidiff@$version" "$@" 2> >(grep -v '^Ignoring internal package' >&2); }
version=$1
module=$(go list -m)

# Start at the parent commit, so that a tag is compared with the previous tag.
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

# No other module imports a command or an example.
grep '^- ' "$work/report" | grep -vE '^- \./(cmd|examples)/' | sort >"$work/changes" || true
sed -e '/^#/d' -e '/^$/d' internal/release/api.txt | sort >"$work/meant"
unmeant=$(comm -23 "$work/changes" "$work/meant")
gone=$(comm -13 "$work/changes" "$work/meant")
[ -z "$gone" ] || printf 'not a change since %s; take it out of internal/release/api.txt:\n%s\n' "$old" "$gone"
[ -z "$unmeant" ] || printf 'programs that compile with %s break:\n%s\n' "$old" "$unmeant"
[ -z "$gone$unmeant" ] || exit 1
echo "$(wc -l <"$work/changes") changes since $old that break a program, all of them meant"
