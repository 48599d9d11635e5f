#!/usr/bin/env bash
# Fetch COCO 2017 with labels for data/coco.yaml.
#
#   bash data/scripts/get_coco.sh [--train] [--val] [--test] [--folder folder]
#
# Parts: train 19 GB, val 1 GB, test 7 GB, and the labels (about 50 MB); without a part named, train and val. The set
# becomes <folder>/coco; the folder is datasets beside the repository unless named. What is complete is not fetched
# again, so the script can be started anew after a break.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
target=$here/../../../datasets
labels=https://github.com/ultralytics/yolov5/releases/download/v1.0/coco2017labels.zip
pictures=http://images.cocodataset.org/zips

fail() {
    echo "error: $1" >&2
    exit 1
}

parts=
while [ $# -gt 0 ]; do
    case $1 in
    --train | --val | --test) parts="$parts ${1#--}2017" ;;
    --folder)
        [ $# -gt 1 ] || fail "--folder needs a folder"
        target=$2
        shift
        ;;
    *) fail "unknown option '$1'; there are --train, --val, --test, --folder" ;;
    esac
    shift
done
parts=${parts:-train2017 val2017}

for tool in curl unzip; do
    command -v "$tool" >/dev/null || fail "$tool is not installed"
done

set_folder=$target/coco
mkdir -p "$set_folder/images"
work=$set_folder/.get_coco
mkdir -p "$work"

# fetch <url> <folder that it holds> <where that folder belongs>
fetch() {
    if [ -e "$3/$2" ]; then
        echo "$3/$2 is there already"
        return
    fi
    echo "fetching $1"
    # --continue-at: a part that an earlier attempt fetched is kept.
    curl --fail --location --show-error --retry 3 --continue-at - --output "$work/$2.zip" "$1" ||
        fail "$1 cannot be fetched; start again, or fetch it elsewhere and unpack it so that $3/$2 is there"
    rm -rf "$work/out"
    unzip -q "$work/$2.zip" -d "$work/out" || fail "$work/$2.zip is damaged; remove it and start again"
    [ -d "$work/out/$2" ] || fail "the file from $1 has no folder $2"
    mv "$work/out/$2" "$3/$2"
    rm -rf "$work/out" "$work/$2.zip"
}

if [ -e "$set_folder/labels" ]; then
    echo "$set_folder/labels is there already"
else
    # The labels come as a folder coco of their own, with the lists of pictures beside them.
    mkdir -p "$work/labels"
    fetch "$labels" coco "$work/labels"
    for entry in "$work"/labels/coco/*; do
        [ -e "$set_folder/${entry##*/}" ] || mv "$entry" "$set_folder/"
    done
    rm -rf "$work/labels"
fi
for part in $parts; do
    fetch "$pictures/$part.zip" "$part" "$set_folder/images"
done
rmdir "$work"
echo "done: $set_folder"
