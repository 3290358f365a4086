#!/bin/sh
# image.sh PROGRAM DIRECTORY: makes DIRECTORY the root file system of an image that runs PROGRAM
# and holds nothing else: its libraries, the certificates of the usual authorities, two users and
# the directories that others are mounted on.
set -eu
program=$1
root=$2

mkdir -p "$root/usr/bin" "$root/etc/ssl/certs" "$root/etc/lb-agent" "$root/run" "$root/tmp" \
    "$root/var/lib/lb-agent" "$root/var/log/lb-agent" "$root/sys/fs/bpf"
cp "$program" "$root/usr/bin/"
# Symbols stay, for backtraces; lines of source do not.
if command -v strip > /dev/null; then
    strip --strip-debug "$root/usr/bin/${program##*/}"
fi

# Lines of ldd: `libc.so.6 => /lib/…/libc.so.6 (0x…)`, and `/lib64/ld-linux… (0x…)` for the loader.
ldd "$program" | while read -r name arrow path _; do
    case "$name $arrow" in
        *' =>') library=$path ;;
        /*) library=$name ;;
        *) continue ;;
    esac
    mkdir -p "$root${library%/*}"
    cp -L "$library" "$root$library"
done

cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
printf 'root:x:0:0::/:\nnonroot:x:65532:65532::/:\n' > "$root/etc/passwd"
printf 'root:x:0:\nnonroot:x:65532:\n' > "$root/etc/group"
chmod 1777 "$root/tmp"
