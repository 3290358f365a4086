//! What the kernel and the drivers say of an interface.

use std::{collections::HashMap, fs, path::Path, thread};

use super::Link;
use crate::datapath::feature::{ethtool::Ethtool, xdp_features};

/// Reads what there is to know of each.
pub(in crate::doctor) fn read(names: &[String]) -> Vec<Link> {
    // Before Linux 6.3 the kernel does not tell.
    let xdp = xdp_features().ok();
    let ethtool = Ethtool::open().ok();
    let read = |name: &String| link(name, xdp.as_ref(), ethtool.as_ref());
    names.iter().map(read).collect()
}

fn link(name: &str, xdp: Option<&HashMap<u32, u64>>, ethtool: Option<&Ethtool>) -> Link {
    // Not /sys, which may show another network namespace's.
    let Ok(index) = nix::net::if_::if_nametoindex(name) else {
        return Link {
            name: name.into(),
            ..Link::default()
        };
    };
    let flags = flags(name);
    let features = ethtool.and_then(|ethtool| ethtool.features(name).ok());
    let feature = |kernel_name: &str| features.as_ref()?.get(kernel_name).copied();
    Link {
        name: name.into(),
        present: true,
        up: flags.is_none_or(|up| up),
        mtu: ethtool
            .and_then(|ethtool| ethtool.mtu(name).ok())
            .unwrap_or(0),
        driver: ethtool.and_then(|ethtool| ethtool.driver(name).ok()),
        xdp: xdp.and_then(|xdp| xdp.get(&index).copied()),
        lro: feature("rx-lro"),
        gro_hw: feature("rx-gro-hw"),
        strips_vlan: feature("rx-vlan-hw-parse"),
        rx_checksum: feature("rx-checksum"),
        has_vlans: has_vlans(Path::new("/proc/net/vlan/config"), name),
        queues: ethtool.and_then(|ethtool| ethtool.queues(name).ok()),
        ring: ethtool.and_then(|ethtool| ethtool.ring(name).ok()),
        processors: thread::available_parallelism().map_or(1, |n| n.get() as u32),
    }
}

/// Whether it is up; `None`: the system does not list it.
fn flags(name: &str) -> Option<bool> {
    let mut listed = nix::ifaddrs::getifaddrs().ok()?;
    let found = listed.find(|interface| interface.interface_name == name)?;
    Some(found.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP))
}

/// Lines as in `eth0.7 | 7 | eth0`; the file exists once the kernel knows of VLANs.
fn has_vlans(file: &Path, name: &str) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split('|').nth(2))
        .any(|below| below.trim() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_there_and_others_are_not() {
        let links = read(&["lo".into(), "no-such-link".into()]);
        assert!(links[0].present && links[0].up);
        assert_eq!(links[0].mtu, 65_536);
        assert!(!links[1].present);
    }

    #[test]
    fn vlans_are_found_by_what_is_below_them() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config");
        let text = "VLAN Dev name\t | VLAN ID\nName-Type: VLAN_NAME_TYPE\neth0.7  | 7  | eth0\n";
        fs::write(&file, text).unwrap();
        for (name, expected) in [("eth0", true), ("eth1", false), ("eth0.7", false)] {
            assert_eq!(has_vlans(&file, name), expected, "{name}");
        }
        assert!(!has_vlans(&directory.path().join("absent"), "eth0"));
    }
}
