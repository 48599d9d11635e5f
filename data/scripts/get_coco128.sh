#!/usr/bin/env bash
# Fetch COCO128 (128 pictures with labels, 7 MB) for data/coco128.yaml.
#
#   bash data/scripts/get_coco128.sh [folder]
#
# The set becomes <folder>/coco128; without an argument the folder is datasets beside the repository, where the yaml
# looks for it.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
target=${1:-$here/../../../datasets}
url=https://ultralytics.com/assets/coco128.zip

fail() {
    echo "error: $1" >&2
    exit 1
}

case $target in -*) fail "usage: $0 [folder]" ;; esac
for tool in curl unzip; do
    command -v "$tool" >/dev/null || fail "$tool is not installed"
done
[ ! -e "$target/coco128" ] || fail "$target/coco128 is there already; nothing was changed"

mkdir -p "$target"
work=$(mktemp -d "$target/.get_coco128.XXXXXX")
trap 'rm -rf "$work"' EXIT

echo "fetching $url"
curl --fail --location --show-error --retry 3 --output "$work/set.zip" "$url" ||
    fail "$url cannot be fetched; nothing was unpacked; fetch it elsewhere and unpack it into $target"
unzip -q "$work/set.zip" -d "$work" || fail "the file from $url is damaged; nothing was unpacked"
[ -d "$work/coco128" ] || fail "the file from $url has no folder coco128; nothing was unpacked"
mv "$work/coco128" "$target/coco128"
echo "done: $target/coco128"
