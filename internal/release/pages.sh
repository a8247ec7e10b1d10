#!/usr/bin/env bash
# Writes the manual pages and the completions of shells that a release has into build/.
# The program is built as the release builds it, so that it is compiled once.
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
