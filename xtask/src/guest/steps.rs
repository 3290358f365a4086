//! What the guest does, and what has to come of each step.
//!
//! A step is a script of its own; the commands that the provisioning prints stand in them as they are
//! printed, and each has to stand in one.

use anyhow::Result;

use super::judge;

/// One step.
pub(super) struct Step {
    /// Under which its output is found again.
    pub(super) name: &'static str,
    /// Lines for the shell, run as root.
    pub(super) script: &'static str,
    /// Looks at what it printed, and its exit code; answers with what is worth telling.
    pub(super) judge: fn(&str, i32) -> Result<String>,
}

/// What the scripts share.
pub(super) const PRELUDE: &str = r#"
export LC_ALL=C.UTF-8 LB_AGENT_DEB=/given/lb-agent.deb
# requests COUNT: the bodies, each over a new connection of the client's
requests() { ip netns exec client curl -s --max-time 20 -H 'Connection: close' "http://192.168.56.80/?[1-$1]"; }
# traffic NAMESPACE FILE CURL-ARGUMENTS: the codes of requests over new connections, until `stop_traffic`
traffic() {
    rm -f /run/stop-traffic
    space=$1 file=$2
    shift 2
    : >"$file"
    while [ ! -e /run/stop-traffic ]; do
        ip netns exec "$space" curl -s --max-time 60 -H 'Connection: close' -o /dev/null -w '%{http_code}\n' "$@" >>"$file"
    done &
}
stop_traffic() {
    touch /run/stop-traffic
    wait
}
pid() { systemctl show --property MainPID --value "$1"; }
pids() { for unit in lb-agent consul prometheus echo@1 echo@2 echo@3; do pid $unit; done; }
# until_true COMMAND: tries for three minutes
until_true() { for _ in $(seq 180); do eval "$1" && return; sleep 1; done; echo "not within three minutes: $1"; return 1; }
settled() { systemctl is-active --quiet lb-agent && lb-agent status >/dev/null; }
"#;

/// From a plain machine to the reboot.
pub(super) const FIRST: &[Step] = &[
    Step {
        name: "provision",
        script: "bash /given/tree/vagrant/provision.sh",
        judge: judge::provisioned,
    },
    Step {
        name: "provision again",
        script: "pids >/run/before
bash /given/tree/vagrant/provision.sh || exit
pids >/run/after
cmp /run/before /run/after",
        judge: judge::unchanged,
    },
    Step {
        name: "outside",
        script: "sleep 20",
        judge: judge::done,
    },
    Step {
        name: "spread",
        script: "for i in $(seq 12); do sudo ip netns exec client curl -s http://192.168.56.80/; done
sudo lb-agent status >/run/status; code=$?; cat /run/status >&2; (exit $code)",
        judge: judge::spread,
    },
    Step {
        name: "proxy",
        script: "for i in $(seq 6); do curl -s -H 'Host: echo.consul.localhost' http://127.0.0.1/; done
for i in $(seq 6); do curl -s -H 'Host: echo.consul.localhost' http://127.0.0.1/; done",
        judge: judge::spread,
    },
    Step {
        name: "split",
        script: "sudo lb-agent split set echo v1=90 v2=10
sudo lb-agent split show echo
requests 200",
        judge: judge::nine_in_ten,
    },
    Step {
        name: "split back",
        script: "sudo lb-agent split reset echo
requests 200",
        judge: judge::even,
    },
    Step {
        name: "block",
        script: "sudo lb-agent block add 10.77.0.2 --ttl 10m --reason demo
sudo ip netns exec client curl -s --max-time 2 http://192.168.56.80/ || echo blocked
sudo lb-agent block list
sleep 12",
        judge: judge::blocked,
    },
    Step {
        name: "counters",
        script: "promtool query instant http://127.0.0.1:9090 lb_service_packets_total
promtool query instant http://127.0.0.1:9090 lb_backend_flows_total
promtool query instant http://127.0.0.1:9090 lb_block_packets_total
promtool query instant http://127.0.0.1:9090 'sum by (action, reason) (lb_packets_total) > 0'",
        judge: judge::counted,
    },
    Step {
        name: "unblock",
        script: "sudo lb-agent block del 10.77.0.2
requests 12",
        judge: judge::spread,
    },
    Step {
        name: "dead backend",
        script: "sudo systemctl stop echo@2
until_true 'lb-agent backend list echo | grep 10.77.2.2 | grep -qv \" healthy\"'
sudo lb-agent backend list echo
requests 30",
        judge: judge::without_second,
    },
    Step {
        name: "backend back",
        script: "sudo systemctl start echo@2
until_true 'lb-agent backend list echo | grep 10.77.2.2 | grep -q \" healthy\"'",
        judge: judge::done,
    },
    // Through the VIP: the proxy's listening sockets are held for a minute, and an emulated start takes
    // longer. The end-to-end tests restart it.
    Step {
        name: "restart",
        script: "before=$(pid lb-agent)
traffic client /run/vip 'http://192.168.56.80/?[1-5]'
sleep 2
sudo systemctl restart lb-agent
until_true settled
sleep 2
stop_traffic
[ $before != $(pid lb-agent) ] || echo the same process
journalctl -u lb-agent -n 5 --no-pager >&2
cat /run/vip",
        judge: judge::no_request_lost,
    },
    Step {
        name: "reload",
        script: "cp /etc/lb-agent/config.toml /run/config.toml
printf '\\n[[service]]\\nname = \"late\"\\nvip = [\"192.168.56.81:80\"]\\nbackends = [{ address = \"10.77.1.2:8080\" }]\\n' >>/etc/lb-agent/config.toml
systemctl reload lb-agent || echo FAILED: reload
lb-agent service list
echo nonsense >>/etc/lb-agent/config.toml
systemctl reload lb-agent && echo FAILED: accepted nonsense
lb-agent service list | grep -q late || echo FAILED: nonsense changed the services
cp /run/config.toml /etc/lb-agent/config.toml
systemctl reload lb-agent || echo FAILED: reload back
lb-agent service list | grep late && echo FAILED: late is still there
true",
        judge: judge::reloaded,
    },
    Step {
        name: "killed",
        script: "before=$(pid lb-agent)
traffic client /run/vip 'http://192.168.56.80/?[1-5]'
sleep 1
kill -9 $before
until_true '[ $(pid lb-agent) != 0 ] && [ $(pid lb-agent) != '$before' ] && settled'
sleep 1
stop_traffic
journalctl -u lb-agent --no-pager -n 40 >/run/journal
grep -q 'adopted what a former agent left' /run/journal || echo 'it adopted nothing'
cat /run/vip",
        judge: judge::no_request_lost,
    },
    Step {
        name: "watchdog",
        script: "systemctl show --property WatchdogUSec,Type,NotifyAccess,Restart lb-agent",
        judge: judge::watched,
    },
    Step {
        name: "security",
        script: "ps --no-headers -o user:20 -p $(pid lb-agent)
systemd-analyze security --no-pager lb-agent",
        judge: judge::secure,
    },
];

/// After the reboot.
pub(super) const SECOND: &[Step] = &[
    Step {
        name: "after the reboot",
        script: "until_true settled
until_true '[ $(requests 12 | sort -u | wc -l) = 3 ]'
requests 12",
        judge: judge::spread,
    },
    Step {
        name: "attached",
        script: "for link in to-client to-echo-1 to-echo-2 to-echo-3; do ip link show $link | grep -q xdp || echo no program at $link; done
systemctl --failed --no-legend --plain",
        judge: judge::silent,
    },
    Step {
        name: "purge",
        script: "DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes purge lb-agent >/run/purge 2>&1 || cat /run/purge
cat /run/purge >&2
for path in /usr/bin/lb-agent /etc/lb-agent /var/lib/lb-agent /run/lb-agent /usr/lib/systemd/system/lb-agent.service; do
    [ ! -e $path ] || echo left: $path
done
[ ! -e /sys/fs/bpf/lb-agent ] || echo left: programs and maps
ip link | grep xdp
until_true '! pgrep lb-agent >&2'",
        judge: judge::silent,
    },
];
