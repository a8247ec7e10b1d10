#!/usr/bin/env bash
# Writes the manual pages and the shell completions of a release into build/.
# The script builds the program with the flags of the release, so that the release
# reuses the compiled packages.
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
rm -rf build
mkdir -p build/man build/completions
GOOS='' GOARCH='' CGO_ENABLED=0 go build -trimpath -buildvcs=true -ldflags='-s -w' -o build/tokenkeep ./cmd/tokenkeep
build/tokenkeep man build/man
build/tokenkeep completion bash >build/completions/tokenkeep.bash
build/tokenkeep completion zsh >build/completions/_tokenkeep
build/tokenkeep completion fish >build/completions/tokenkeep.fish
rm build/tokenkeep
