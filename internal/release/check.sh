#!/usr/bin/env bash
# Checks that a release can be made of this commit: the configuration is valid, and two
# builds in different directories, the second with an empty cache, have the same bytes.
#
#   internal/release/check.sh VERSION    of GoReleaser
#
# The script takes as long as twelve builds, most of them without a build cache.
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
say() { printf '== %s\n' "$*"; }

if [ -n "$(git status --porcelain)" ]; then
	echo "the work tree has changes that are not committed: a release is made of a commit" >&2
	exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
GOBIN=$work/bin go install "github.com/goreleaser/goreleaser/v2@$1"
"$work/bin/goreleaser" check

skip=sign
say "signatures are left out: they need the identity of the release workflow"
while IFS=: read -r command name what; do
	if ! $command version >/dev/null 2>&1; then
		say "$what are left out: there is no $command here"
		skip+=,$name
	fi
done <<'TOOLS'
syft:sbom:software bills of materials
docker buildx:docker:container images
TOOLS

# build makes a snapshot in its own clone. It leaves out the checksums of bills of
# materials, because each contains a time and a random number.
build() {
	git clone --quiet . "$work/$1"
	(cd "$work/$1" && GOCACHE=$2 "$work/bin/goreleaser" release --snapshot --skip="$skip" --timeout=3h)
	grep -v '\.sbom\.json$' "$work/$1/dist/checksums.txt" | sort -k2 >"$work/sums-$1"
}
say "the first build"
build first "$(go env GOCACHE)"
say "the second build"
build second "$work/cache"

cat "$work/sums-first"
diff "$work/sums-first" "$work/sums-second" || { echo "the two builds differ" >&2; exit 1; }
say "$(wc -l <"$work/sums-first") files, twice the same"
