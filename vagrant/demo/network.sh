#!/bin/sh
# The demo's hosts, as network namespaces: a client and three backends, each on a cable of its own to
# this machine. `up` may be run again, `down` takes everything away.
#
#              10.77.0.0/24             10.77.1.0/24
#   client eth0 ---------------- VM ---------------- eth0 echo-1
#   .2                 to-client .1 | to-echo-1 .1    .2
#                                   +---------------- eth0 echo-2 ... (10.77.2.0/24)
#
# Nothing is forwarded by the kernel, and backends know no way to the client: only the load balancer
# brings a packet through.
set -eu

# Number of the cable, name of the host.
hosts='0 client
1 echo-1
2 echo-2
3 echo-3'

connect() {
    if ip link show "to-$2" >/dev/null 2>&1; then
        return
    fi
    # One that was left half made.
    ip netns delete "$2" 2>/dev/null || true
    ip netns add "$2"
    ip -n "$2" link set lo up
    ip link add "to-$2" type veth peer name eth0 netns "$2"
    ip address add "10.77.$1.1/24" dev "to-$2"
    ip link set "to-$2" up
    ip -n "$2" address add "10.77.$1.2/24" dev eth0
    ip -n "$2" link set eth0 up
}

case ${1:-} in
up)
    echo "$hosts" | while read -r number host; do connect "$number" "$host"; done
    ip -n client route replace default via 10.77.0.1
    ;;
down)
    echo "$hosts" | while read -r _ host; do ip netns delete "$host" 2>/dev/null || true; done
    ;;
*)
    echo "usage: network.sh up|down" >&2
    exit 2
    ;;
esac
