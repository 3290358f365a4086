#!/bin/bash
# Makes the image lb-agent/base:local out of programs of this machine, each with its libraries: what
# compose.local.yml runs where no image can be pulled. Takes docker's variables (DOCKER_HOST).
set -euo pipefail
cd "$(dirname "$0")/../.."
profile=${LB_PROFILE:-release}

programs=(bash sh ldd cat chmod cp mkdir printf sleep test curl consul prometheus promtool "$PWD/target/$profile/otlp")
# Only smaller with it.
if command -v strip > /dev/null; then programs+=(strip); fi

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/bin" "$root/etc/ssl/certs" "$root/prometheus" "$root/tmp"
for program in "${programs[@]}"; do
    path=$(type -P "$program") || { echo "base.sh: $program is missing; \`cargo xtask setup\` installs it" >&2; exit 1; }
    cp -L "$path" "$root/bin/"
    # A script has none, and says so.
    libraries=$(ldd "$path" 2> /dev/null | grep -o '/[^ ]*') || continue
    for library in $libraries; do
        mkdir -p "$root${library%/*}"
        cp -Lu "$library" "$root$library"
    done
done
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
printf 'root:x:0:0::/:\n' > "$root/etc/passwd"
chown 65534:65534 "$root/prometheus"
chmod 1777 "$root/tmp"
tar --create --directory "$root" . | docker import - lb-agent/base:local > /dev/null
