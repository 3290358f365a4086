#!/bin/bash
# Turns a plain Debian 12 or 13 machine into lb-agent's demo: the agent as a systemd service, Consul, a
# client and three echo backends in network namespaces, Prometheus. For a virtual machine that nobody
# needs for anything else. A second run changes nothing, or what has changed.
#
#   LB_AGENT_DEB=FILE     install the agent from this package,
#   LB_AGENT_BINARY=FILE  or from this binary; with neither it is built from the tree around this script
#   LB_VIP=ADDRESS        where clients find the service (192.168.56.80)
#   LB_INTERFACE=NAME     also serve clients beyond it (the interface in the VIP's subnet, if there is one)
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly HERE DEMO=$HERE/demo TREE=$HERE/..
readonly VIP=${LB_VIP:-192.168.56.80}

# Debian carried Consul up to bullseye; this is the version that the tests run with, too.
readonly CONSUL_VERSION=1.8.7
readonly CONSUL_RELEASES=${LB_CONSUL_RELEASES:-https://releases.hashicorp.com/consul}

readonly PACKAGES=(ca-certificates curl iproute2 procps prometheus python3)

# Files that this run has written anew.
CHANGED=()

say() { printf '\n==> %s\n' "$*"; }
fail() {
    printf 'provision.sh: %s\n' "$*" >&2
    exit 1
}

main() {
    [[ ${1:-} != packages ]] || {
        # For whoever lays in stores for a machine without a network.
        printf '%s\n' "${PACKAGES[@]}" consul
        return
    }
    [[ $(id -u) == 0 ]] || fail 'run it as root'
    [[ -d /run/systemd/system ]] || fail 'it needs systemd'
    export DEBIAN_FRONTEND=noninteractive
    install_packages
    install_consul
    install_agent
    install_demo
    start
    wait_until_served
    tell
}

missing_of() {
    local package
    for package in "$@"; do
        [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
            echo "$package"
    done
}

apt() {
    apt-get --quiet --yes -o DPkg::Lock::Timeout=300 "$@"
}

update_lists() {
    say 'Fetching the package lists'
    apt update
}

install_packages() {
    local missing
    mapfile -t missing < <(missing_of "${PACKAGES[@]}")
    if [[ ${#missing[@]} == 0 ]]; then
        say "Packages: ${PACKAGES[*]} are here"
        return
    fi
    update_lists
    say "Packages: installing ${missing[*]}"
    apt install --no-install-recommends "${missing[@]}"
}

install_consul() {
    if command -v consul >/dev/null; then
        say "Consul: $(consul version | head -n 1) is here"
    elif consul_from_debian; then
        say "Consul: $(consul version | head -n 1) from Debian's bullseye"
    else
        consul_from_release
    fi
}

# From the last suite that has it, of the archive that this machine follows; nothing else comes from
# there.
consul_from_debian() {
    local archive
    # shellcheck disable=SC2016 # apt fills these in
    archive=$(apt-get indextargets --format '$(LABEL)|$(REPO_URI)' 'Created-By: Packages' |
        sed -n 's/^Debian|//p' | head -n 1)
    [[ -n $archive ]] || return 1
    say "Consul: adding Debian's bullseye, for Consul alone"
    cat >/etc/apt/preferences.d/lb-demo-bullseye <<-END
	# Of lb-agent's demo: from bullseye, Consul and nothing else.
	Package: *
	Pin: release n=bullseye
	Pin-Priority: -1

	Package: consul
	Pin: version $CONSUL_VERSION*
	Pin-Priority: 500
	END
    cat >/etc/apt/sources.list.d/lb-demo-bullseye.sources <<-END
	# Of lb-agent's demo.
	Types: deb
	URIs: $archive
	Suites: bullseye
	Components: main
	Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
	END
    # Errors of the update show when there is nothing to install.
    if apt update && apt install --no-install-recommends consul; then
        return
    fi
    echo 'That archive has no such Consul any more.'
    rm -f /etc/apt/preferences.d/lb-demo-bullseye /etc/apt/sources.list.d/lb-demo-bullseye.sources
    return 1
}

consul_from_release() {
    local scratch file
    file=consul_${CONSUL_VERSION}_linux_$(dpkg --print-architecture).zip
    say "Consul: fetching HashiCorp's $file"
    scratch=$(mktemp -d)
    (
        cd "$scratch"
        curl --fail --silent --show-error --location --remote-name-all \
            "$CONSUL_RELEASES/$CONSUL_VERSION/{$file,consul_${CONSUL_VERSION}_SHA256SUMS}"
        sha256sum --check --ignore-missing --strict "consul_${CONSUL_VERSION}_SHA256SUMS"
        python3 -m zipfile --extract "$file" .
        install -m 755 consul /usr/local/bin/consul
    ) || fail "no Consul $CONSUL_VERSION: neither a Debian archive nor $CONSUL_RELEASES has it for this
machine. Put a binary \`consul\` into /usr/local/bin and run this again."
    rm -rf "$scratch"
}

install_agent() {
    if [[ -n ${LB_AGENT_DEB:-} ]]; then
        agent_from_package "$LB_AGENT_DEB"
    else
        agent_from_binary "${LB_AGENT_BINARY:-}"
    fi
}

agent_from_package() {
    local package=$1 version
    [[ -f $package ]] || fail "LB_AGENT_DEB: there is no file $package"
    version=$(dpkg-deb --field "$package" Version)
    # The same version may have been built anew.
    if [[ $(sha256sum <"$package") == "$(cat /var/lib/lb-demo/package 2>/dev/null)" ]] &&
        [[ -z $(missing_of lb-agent) ]]; then
        say "Agent: the package lb-agent $version is installed"
        return
    fi
    say "Agent: installing the package lb-agent $version"
    # The demo's configuration is not the package's.
    apt install --no-install-recommends --reinstall --allow-downgrades \
        -o Dpkg::Options::=--force-confold "$(realpath "$package")"
    mkdir -p /var/lib/lb-demo
    sha256sum <"$package" >/var/lib/lb-demo/package
    CHANGED+=(/usr/bin/lb-agent)
}

agent_from_binary() {
    local binary=$1 packaging=$TREE/lb-agent/packaging
    if [[ -z $binary ]]; then
        build_agent
        binary=$TREE/target/release/lb-agent
    fi
    [[ -f $binary ]] || fail "LB_AGENT_BINARY: there is no file $binary"
    [[ -f $packaging/lb-agent.service ]] || fail "a binary alone needs the tree around it: no $packaging"
    say "Agent: installing $binary"
    put "$binary" /usr/bin/lb-agent 755
    put "$packaging/lb-agent.sysusers" /usr/lib/sysusers.d/lb-agent.conf
    put "$packaging/lb-agent-prepare.service" /etc/systemd/system/lb-agent-prepare.service
    put "$packaging/lb-agent.service" /etc/systemd/system/lb-agent.service
    systemd-sysusers lb-agent.conf
}

build_agent() {
    local cargo=cargo
    [[ -f $TREE/xtask/Cargo.toml ]] || fail 'nothing to build here: set LB_AGENT_DEB or LB_AGENT_BINARY'
    if ! command -v cargo >/dev/null; then
        say 'Agent: installing a Rust toolchain (rustc-web)'
        update_lists
        apt install --no-install-recommends build-essential cargo-web rustc-web
        cargo=/usr/bin/cargo
    fi
    say 'Agent: building it from the tree (minutes, once)'
    (cd "$TREE" && "$cargo" xtask build)
}

# put FILE DESTINATION [MODE]: copies a file whose content is not there already.
put() {
    local file=$1 destination=$2 mode=${3:-644}
    if cmp --silent "$file" "$destination" 2>/dev/null; then
        echo "    $destination is as it should be"
        return
    fi
    echo "    $destination"
    # Beside it, then over it: a program that runs cannot be written to.
    install -D -m "$mode" "$file" "$destination.new"
    mv "$destination.new" "$destination"
    CHANGED+=("$destination")
}

install_demo() {
    local number configuration
    say 'Demo: a client and three backends, Consul, Prometheus, the configuration of the agent'
    put "$DEMO/network.sh" /usr/local/lib/lb-demo/network.sh 755
    put "$DEMO/echo.py" /usr/local/lib/lb-demo/echo.py 755
    put "$DEMO/lb-demo-network.service" /etc/systemd/system/lb-demo-network.service
    put "$DEMO/echo@.service" /etc/systemd/system/echo@.service
    put "$DEMO/consul.service" /etc/systemd/system/consul.service
    put "$DEMO/consul.hcl" /etc/lb-demo/consul.d/consul.hcl
    put "$DEMO/echo.hcl" /etc/lb-demo/consul.d/echo.hcl
    put "$DEMO/prometheus.conf" /etc/systemd/system/prometheus.service.d/lb-demo.conf
    put "$DEMO/prometheus.yml" /etc/lb-demo/prometheus.yml
    # Debian's default of 3 keeps everybody without CAP_SYS_ADMIN from perf events, the agent's user with
    # CAP_PERFMON too; 2 is the kernel's own.
    put "$DEMO/sysctl.conf" /etc/sysctl.d/lb-demo.conf
    sysctl --quiet --load /etc/sysctl.d/lb-demo.conf
    configuration=$(mktemp)
    configure >"$configuration"
    put "$configuration" /etc/lb-agent/config.toml
    rm "$configuration"
}

# The agent's configuration for this machine.
configure() {
    local interface names='"to-client", "to-echo-1", "to-echo-2", "to-echo-3"' announce=
    interface=${LB_INTERFACE:-$(ip -oneline route get "$VIP" 2>/dev/null |
        grep -v ' via ' | grep -o 'dev [^ ]*' | cut -d ' ' -f 2 || true)}
    if [[ -n $interface ]]; then
        names+=", \"$interface\""
        announce="\"$interface\""
    fi
    sed -e "s/@INTERFACES@/$names/" -e "s/@ANNOUNCE@/$announce/" -e "s/@VIP@/$VIP/" "$DEMO/config.toml"
}

# Whether this run has written one of these anew.
changed() {
    local file
    for file in "$@"; do
        [[ " ${CHANGED[*]-} " != *" $file "* ]] || return 0
    done
    return 1
}

# unit NAME FILE...: has it run, and anew if one of its files has changed.
unit() {
    local name=$1
    shift
    systemctl enable --quiet "$name"
    if changed "$@"; then
        echo "    $name starts anew"
        systemctl restart "$name"
    else
        systemctl start "$name"
        echo "    $name runs"
    fi
}

start() {
    local units=/etc/systemd/system
    say 'Services'
    systemctl daemon-reload
    unit lb-demo-network.service /usr/local/lib/lb-demo/network.sh "$units/lb-demo-network.service"
    for number in 1 2 3; do
        unit "echo@$number.service" /usr/local/lib/lb-demo/echo.py "$units/echo@.service" \
            /usr/local/lib/lb-demo/network.sh
    done
    unit consul.service "$units/consul.service" /etc/lb-demo/consul.d/consul.hcl /etc/lb-demo/consul.d/echo.hcl
    unit lb-agent.service /usr/bin/lb-agent "$units/lb-agent.service" /etc/lb-agent/config.toml \
        /usr/local/lib/lb-demo/network.sh
    unit prometheus.service "$units/prometheus.service.d/lb-demo.conf" /etc/lb-demo/prometheus.yml
}

# wait_until WHAT COMMAND...: tries for two minutes.
wait_until() {
    local what=$1 begun=$SECONDS
    shift
    until "$@"; do
        if ((SECONDS - begun > 120)); then
            lb-agent status || true
            fail "not within two minutes: $what; see journalctl -u lb-agent -u consul -u prometheus -u 'echo@*'"
        fi
        sleep 1
    done
    echo "    $what"
}

wait_until_served() {
    say 'Waiting'
    wait_until "all three backends answer at http://$VIP/" all_answer
    wait_until 'Prometheus scrapes the agent' scraped
}

all_answer() { [[ $(answers | sort -u | wc -l) == 3 ]]; }

scraped() { promtool query instant http://127.0.0.1:9090 'up{job="lb-agent"} == 1' 2>/dev/null | grep -q '=> 1'; }

answers() {
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do
        ip netns exec client curl --silent --max-time 2 "http://$VIP/" || true
    done
}

tell() {
    say 'The demo is up. Try, on this machine:'
    sed -e "s/@VIP@/$VIP/g" "$DEMO/try.txt"
}

main "$@"
