//! The configuration file as a source: read again on request.

use std::path::Path;

use crate::config::{self, Config, ConfigError, ConsulConfig, MetricsConfig, NodeConfig};

/// What reading the file again has brought.
#[derive(Clone, Debug, PartialEq)]
pub struct Reloaded {
    /// What is to be in force from now on: the services of the new file under the `[node]`,
    /// `[consul]`, `[docker]`, `[proxy]`, `[metrics]` and `[page]` of the start, which do not change while the agent runs.
    pub config: Config,
    /// One sentence for each change that was left out.
    pub at_next_start: Vec<String>,
}

/// Reads the file again and compares it with what is in force.
///
/// # Errors
///
/// [`ConfigError`]; what is in force stays so.
pub fn reload(path: &Path, in_force: &Config) -> Result<Reloaded, ConfigError> {
    Ok(merge(config::load(path)?, in_force))
}

fn merge(new: Config, in_force: &Config) -> Reloaded {
    let at_next_start = postponed(in_force, &new)
        .into_iter()
        .map(|key| format!("changes of {key} take effect at the next start"))
        .collect();
    let config = Config {
        services: new.services,
        places: new.places,
        ..in_force.clone()
    };
    Reloaded {
        config,
        at_next_start,
    }
}

/// Keys that differ and cannot change while the agent runs. Takes the sections apart field by
/// field, so that a new one cannot be forgotten here.
fn postponed(old: &Config, new: &Config) -> Vec<&'static str> {
    let NodeConfig {
        interfaces,
        announce,
        xdp_mode,
        state_dir,
        runtime_dir,
        bpf_dir,
        flow_slots,
        new_flows,
        nat_ports,
        local_clients,
        cgroup,
        decapsulate,
        decapsulate_from,
        user,
        drift_check,
    } = &old.node;
    let MetricsConfig { listen } = &old.metrics;
    let mut keys = vec![
        ("node.interfaces", *interfaces != new.node.interfaces),
        ("node.announce", *announce != new.node.announce),
        ("node.xdp_mode", *xdp_mode != new.node.xdp_mode),
        ("node.state_dir", *state_dir != new.node.state_dir),
        ("node.runtime_dir", *runtime_dir != new.node.runtime_dir),
        ("node.bpf_dir", *bpf_dir != new.node.bpf_dir),
        ("node.flow_slots", *flow_slots != new.node.flow_slots),
        ("node.new_flows", *new_flows != new.node.new_flows),
        ("node.nat_ports", *nat_ports != new.node.nat_ports),
        (
            "node.local_clients",
            *local_clients != new.node.local_clients,
        ),
        ("node.user", *user != new.node.user),
        ("node.cgroup", *cgroup != new.node.cgroup),
        ("node.decapsulate", *decapsulate != new.node.decapsulate),
        (
            "node.decapsulate_from",
            *decapsulate_from != new.node.decapsulate_from,
        ),
        ("node.drift_check", *drift_check != new.node.drift_check),
        ("metrics.listen", *listen != new.metrics.listen),
        ("[page]", old.page != new.page),
        ("[dtab]", old.dtab != new.dtab),
        ("[proxy]", old.proxy != new.proxy),
    ];
    match (&old.consul, &new.consul) {
        (None, None) => {}
        (Some(old), Some(new)) => keys.extend(postponed_consul(old, new)),
        _ => keys.push(("[consul]", true)),
    }
    keys.push(("[docker]", old.docker != new.docker));
    keys.into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
}

fn postponed_consul(old: &ConsulConfig, new: &ConsulConfig) -> [(&'static str, bool); 10] {
    let ConsulConfig {
        address,
        token,
        ca_cert,
        client_identity,
        tls_server_name,
        datacenter,
        wait,
        auto_publish,
        hold,
        maintenance_deadline,
    } = old;
    [
        ("consul.address", *address != new.address),
        ("consul.token", *token != new.token),
        ("consul.ca_cert", *ca_cert != new.ca_cert),
        (
            "consul.client_cert",
            *client_identity != new.client_identity,
        ),
        (
            "consul.tls_server_name",
            *tls_server_name != new.tls_server_name,
        ),
        ("consul.datacenter", *datacenter != new.datacenter),
        ("consul.wait", *wait != new.wait),
        ("consul.auto_publish", *auto_publish != new.auto_publish),
        ("consul.hold", *hold != new.hold),
        (
            "consul.maintenance_deadline",
            *maintenance_deadline != new.maintenance_deadline,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const START: &str = r#"
        [node]
        interfaces = ["eth0"]
        [consul]
        address = "http://127.0.0.1:8500"
        [[service]]
        name = "echo"
        vip = ["198.51.100.10:80"]
        backends = [{ address = "10.1.0.2:8080" }]
    "#;

    fn at_start() -> Config {
        config::parse_in(START, Path::new("start.toml"), &|_| None).unwrap()
    }

    /// Rows of what is edited in the file and which keys have to wait.
    #[test]
    fn changes_that_have_to_wait_are_named_and_left_out() {
        let section = "[consul]\n        address = \"http://127.0.0.1:8500\"";
        let address = r#"address = "http://127.0.0.1:8500""#;
        let interfaces = r#"interfaces = ["eth0"]"#;
        let rows: [(&str, &str, &[&str]); 13] = [
            ("name = \"echo\"", "name = \"other\"", &[]),
            (interfaces, "interfaces = [\"eth1\"]", &["node.interfaces"]),
            (
                interfaces,
                "interfaces = [\"eth0\"]\nxdp_mode = \"native\"\nflow_slots = 1024",
                &["node.xdp_mode", "node.flow_slots"],
            ),
            (
                interfaces,
                "interfaces = [\"eth0\"]\nstate_dir = \"/a\"\nruntime_dir = \"/b\"\n\
                 bpf_dir = \"/c\"\nnat_ports = \"2000-3000\"",
                &[
                    "node.state_dir",
                    "node.runtime_dir",
                    "node.bpf_dir",
                    "node.nat_ports",
                ],
            ),
            (
                interfaces,
                "interfaces = [\"eth0\"]\nlocal_clients = true\ncgroup = \"/d\"",
                &["node.local_clients", "node.cgroup"],
            ),
            (section, "", &["[consul]"]),
            (
                address,
                "address = \"https://127.0.0.1:8501\"\ntoken = \"t\"\nca_cert = \"/ca\"\n\
                 client_cert = \"/c\"\nclient_key = \"/k\"",
                &[
                    "consul.address",
                    "consul.token",
                    "consul.ca_cert",
                    "consul.client_cert",
                ],
            ),
            (
                address,
                "tls_server_name = \"n\"\ndatacenter = \"d\"\nwait = \"5s\"\nhold = \"1m\"",
                &[
                    "consul.tls_server_name",
                    "consul.datacenter",
                    "consul.wait",
                    "consul.hold",
                ],
            ),
            (
                "[consul]",
                "[metrics]\nlisten = \"127.0.0.1:1\"\n[consul]",
                &["metrics.listen"],
            ),
            (
                "[consul]",
                "[docker]\naddress = \"10.0.0.5\"\n[consul]",
                &["[docker]"],
            ),
            (
                "[consul]",
                "[proxy]\nlisten = [\":4140\"]\n[consul]",
                &["[proxy]"],
            ),
            // How requests of a service are treated can change at any time.
            (
                "name = \"echo\"",
                "name = \"echo\"\nprotocol = \"http\"\ntimeouts = { total = \"5s\" }",
                &[],
            ),
            ("10.1.0.2:8080", "10.1.0.3:8080", &[]),
        ];
        let in_force = at_start();
        for (from, to, keys) in rows {
            assert!(START.contains(from), "{from}");
            let text = START.replacen(from, to, 1);
            let new = config::parse_in(&text, Path::new("new.toml"), &|_| None).unwrap();
            let services = new.services.clone();
            let reloaded = merge(new, &in_force);
            let expected: Vec<String> = keys
                .iter()
                .map(|key| format!("changes of {key} take effect at the next start"))
                .collect();
            assert_eq!(reloaded.at_next_start, expected, "{to}");
            assert_eq!(reloaded.config.services, services, "{to}");
            assert_eq!(reloaded.config.node, in_force.node, "{to}");
            assert_eq!(reloaded.config.consul, in_force.consul, "{to}");
            assert_eq!(reloaded.config.metrics, in_force.metrics, "{to}");
        }
    }

    #[test]
    fn a_file_that_is_wrong_or_gone_is_refused_by_name() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("config.toml");
        let gone = reload(&path, &at_start()).unwrap_err();
        assert!(matches!(gone, ConfigError::Read { .. }));
        assert!(gone.to_string().contains(path.to_str().unwrap()), "{gone}");

        fs::write(&path, START.replace("[node]", "[nod]")).unwrap();
        let wrong = reload(&path, &at_start()).unwrap_err().to_string();
        let place = format!("{}:2:10: unknown key `nod`", path.display());
        assert!(wrong.contains(&place), "{wrong}");

        fs::write(&path, START).unwrap();
        assert!(reload(&path, &at_start()).is_ok());
    }
}
