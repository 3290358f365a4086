//! The programs of local clients come and go with the agent's configuration, and outlive its
//! restarts.

use std::fs;

use lb_tests::{agent::Setup, cgroup::Cgroup};

use crate::{
    local_clients::{Local, NO_ROUTE, both},
    scene::hosts,
};

/// Pinned links and maps of local clients.
fn pins(local: &Local) -> Vec<String> {
    let mut names = Vec::new();
    for directory in fs::read_dir(local.agent.pins()).unwrap() {
        for pin in fs::read_dir(directory.unwrap().path()).unwrap() {
            names.push(pin.unwrap().file_name().into_string().unwrap());
        }
    }
    names.retain(|name| {
        name.starts_with("cgroup_") || name.contains("SOCKET") || name == "CONVERSATIONS"
    });
    names.sort();
    names
}

/// The programs work on while the agent is away, and are adopted; conversations go on. Switched off
/// or detached, they are gone without a trace.
#[test]
fn restart_switching_off_and_detach() {
    let mut local = Local::new(2, |topology| both(topology, &[(1, 1), (2, 1)]));
    let talker = local.talker(local.topology.node(), "talker");
    let vip = "198.51.100.10:80";
    talker.request(&format!("tcp t {vip}")).unwrap();
    let name = talker.request("ask t").unwrap();
    talker.request("udp u 0.0.0.0:0").unwrap();
    let spoken = talker.request(&format!("sendto u {vip} x")).unwrap();
    let before = pins(&local);
    assert_eq!(before.len(), 12, "{before:?}");
    for round in 0..3 {
        local.agent.kill9().unwrap();
        assert_eq!(talker.request(&format!("tcp n {vip}")).unwrap(), vip);
        local.agent.restart().unwrap();
        assert_eq!(pins(&local), before);
        let status = local.agent.command(&["status"]).unwrap();
        let line = format!("(adopted): {} sent to a backend", 3 + 2 * round);
        assert!(status.contains(&line), "{status}");
        assert_eq!(talker.request("ask t").unwrap(), name);
        assert_eq!(talker.request("peer t").unwrap(), vip);
        assert_eq!(
            talker.request(&format!("sendto u {vip} x")).unwrap(),
            spoken
        );
        assert_eq!(talker.request(&format!("tcp n {vip}")).unwrap(), vip);
    }

    let file = local.agent.config_file().to_owned();
    let on = fs::read_to_string(&file).unwrap();
    let switch = |local: &mut Local, text: &str| {
        local.agent.stop().unwrap();
        fs::write(&file, text).unwrap();
        local.agent.restart().unwrap();
    };
    switch(
        &mut local,
        &on.replace("local_clients = true", "local_clients = false"),
    );
    assert!(pins(&local).is_empty(), "{:?}", pins(&local));
    let status = local.agent.command(&["status"]).unwrap();
    assert!(status.contains("local clients  not served"), "{status}");
    assert_eq!(
        talker.request(&format!("tcp n {vip}")).unwrap_err(),
        NO_ROUTE
    );
    assert_eq!(talker.request("ask t").unwrap(), name);

    // Another cgroup than the last: the links move.
    let other = Cgroup::new("other").unwrap();
    switch(&mut local, &on);
    assert_eq!(talker.request(&format!("tcp n {vip}")).unwrap(), vip);
    let [from, to] = [&local.cgroup, &other].map(|cgroup| cgroup.path().display().to_string());
    switch(&mut local, &on.replace(&from, &to));
    assert_eq!(
        talker.request(&format!("tcp n {vip}")).unwrap_err(),
        NO_ROUTE
    );
    assert_eq!(pins(&local).len(), 12);
    switch(&mut local, &on);
    assert_eq!(talker.request(&format!("tcp n {vip}")).unwrap(), vip);

    local.agent.stop().unwrap();
    let directory = local.agent.pins().display().to_string();
    let removed = local
        .agent
        .command(&["detach", "--bpf-dir", &directory])
        .unwrap();
    assert!(
        removed.contains("9 programs for local clients"),
        "{removed}"
    );
    assert!(!local.agent.pins().exists());
    assert_eq!(
        talker.request(&format!("tcp n {vip}")).unwrap_err(),
        NO_ROUTE
    );
    assert_eq!(talker.request("ask t").unwrap(), name);
}

/// A path that is no cgroup ends the start, with nothing attached.
#[test]
fn what_is_no_cgroup_is_refused_at_the_start() {
    let (topology, _backends) = hosts(1);
    for (path, complaint) in [
        ("/tmp", "it is no cgroup of version 2"),
        ("/sys/fs/cgroup/lb-none", "No such file"),
    ] {
        let started = Setup::new(&topology)
            .node(&format!("local_clients = true\ncgroup = \"{path}\""))
            .start();
        let error = format!("{:#}", started.expect_err("no start"));
        assert!(
            error.contains(&format!("opening the cgroup {path}")),
            "{error}"
        );
        assert!(error.contains(complaint), "{error}");
        let links = topology.node().tool("ip", &["link", "show"]).unwrap();
        assert!(!links.contains("xdp"), "{links}");
    }
}
