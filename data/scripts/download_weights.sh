#!/usr/bin/env bash
# Fetch checkpoints of YOLOv5 v6.1, trained on COCO, into the working directory.
#
#   bash data/scripts/download_weights.sh [name ...]     # yolov5n yolov5s yolov5m yolov5l yolov5x, yolov5n6 ... yolov5x6
#
# Without a name all ten. A file that is there already is left alone.
set -eu

release=https://github.com/ultralytics/yolov5/releases/download/v6.1

fail() {
    echo "error: $1" >&2
    exit 1
}

command -v curl >/dev/null || fail "curl is not installed"
[ $# -gt 0 ] || set -- yolov5n yolov5s yolov5m yolov5l yolov5x yolov5n6 yolov5s6 yolov5m6 yolov5l6 yolov5x6
for name in "$@"; do
    case $name in
    yolov5[nsmlx] | yolov5[nsmlx]6) ;;
    *) fail "'$name' is unknown; there are yolov5n, s, m, l, x, each also with a 6 at the end" ;;
    esac
done

for name in "$@"; do
    if [ -e "$name.pt" ]; then
        echo "$name.pt is there already"
        continue
    fi
    echo "fetching $release/$name.pt"
    if ! curl --fail --location --show-error --retry 3 --output ".$name.part" "$release/$name.pt"; then
        rm -f ".$name.part"
        fail "$release/$name.pt cannot be fetched; nothing was changed; fetch it elsewhere and put it here"
    fi
    mv ".$name.part" "$name.pt"
done
