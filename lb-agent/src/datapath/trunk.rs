//! VLAN sub-interfaces: the interface below, and the tags that frames carry there.

use std::collections::HashMap;

use lb_common::vlan::{ETHERTYPE_8021AD, ETHERTYPE_8021Q, MAX_TAGS, Tags};
use rtnetlink::packet_route::link::{InfoData, InfoVlan, LinkInfo, VlanProtocol};

use super::resolver::Link;

/// A sub-interface's tag: EtherType and VLAN number.
pub(super) type Tag = (u16, u16);

/// The tag of an interface, if it is a sub-interface.
pub(super) fn tag(info: &[LinkInfo]) -> Option<Tag> {
    let attributes = info.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(attributes)) => Some(attributes),
        _ => None,
    })?;
    let mut kind = ETHERTYPE_8021Q;
    let mut number = None;
    for attribute in attributes {
        match attribute {
            InfoVlan::Id(id) => number = Some(*id),
            InfoVlan::Protocol(VlanProtocol::Ieee8021Ad) => kind = ETHERTYPE_8021AD,
            _ => {}
        }
    }
    number.map(|number| (kind, number))
}

/// Where frames that a route sends to `ifindex` leave by, and their tags: the interface of ours
/// below it, or itself where there is none below, or more tags than frames may have.
pub(super) fn below(
    links: &HashMap<u32, Link>,
    ifindex: u32,
    is_ours: impl Fn(u32) -> bool,
) -> (u32, Tags) {
    let mut tags = Vec::new();
    let mut at = ifindex;
    while !is_ours(at) {
        let Some((parent, tag)) = links.get(&at).and_then(|link| link.below) else {
            return (ifindex, Tags::NONE);
        };
        tags.push(tag);
        if tags.len() > MAX_TAGS as usize {
            return (ifindex, Tags::NONE);
        }
        at = parent;
    }
    // The lowest sub-interface puts its tag on last, in front of the others.
    let tags = tags
        .iter()
        .rev()
        .fold(Tags::NONE, |tags, (kind, number)| tags.with(*kind, *number));
    (at, tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(below: &[(u32, Option<(u32, Tag)>)]) -> HashMap<u32, Link> {
        let link = |below| Link {
            ethernet: true,
            flags: 0,
            mac: [0; 6],
            mtu: 1500,
            below,
        };
        below
            .iter()
            .map(|(index, below)| (*index, link(*below)))
            .collect()
    }

    /// 1: the trunk; 2: on it; 3: on that; 4: one too many.
    #[test]
    fn tags_are_those_of_the_way_down() {
        let links = links(&[
            (1, None),
            (2, Some((1, (ETHERTYPE_8021AD, 100)))),
            (3, Some((2, (ETHERTYPE_8021Q, 10)))),
            (4, Some((3, (ETHERTYPE_8021Q, 11)))),
        ]);
        let outer = Tags::NONE.with(ETHERTYPE_8021AD, 100);
        let trunk = |ifindex| ifindex == 1;
        assert_eq!(below(&links, 1, trunk), (1, Tags::NONE));
        assert_eq!(below(&links, 2, trunk), (1, outer));
        assert_eq!(
            below(&links, 3, trunk),
            (1, outer.with(ETHERTYPE_8021Q, 10))
        );
        assert_eq!(below(&links, 4, trunk), (4, Tags::NONE));
        // The programs run on the sub-interface itself, or on none of them.
        assert_eq!(below(&links, 2, |ifindex| ifindex == 2), (2, Tags::NONE));
        assert_eq!(below(&links, 2, |_| false), (2, Tags::NONE));
        assert_eq!(below(&links, 9, trunk), (9, Tags::NONE));
    }
}
