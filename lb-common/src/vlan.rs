//! VLAN tags of a way: which an interface's frames carry, kept in one word.

/// EtherType of a customer's tag, IEEE 802.1Q.
pub const ETHERTYPE_8021Q: u16 = 0x8100;
/// EtherType of a provider's tag, IEEE 802.1ad.
pub const ETHERTYPE_8021AD: u16 = 0x88a8;
/// Tags that a frame may carry.
pub const MAX_TAGS: u32 = 2;

/// Up to two tags, the outer one first: VLAN numbers and kinds, without priorities. Zero: none.
///
/// ```text
/// 31     28 27        26        25   24 23      12 11       0
/// +--------+---------+---------+-------+----------+---------+
/// | zero   | inner   | outer   | count | inner    | outer   |
/// |        | is 1ad  | is 1ad  |       | VLAN     | VLAN    |
/// +--------+---------+---------+-------+----------+---------+
/// ```
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Tags(pub u32);

/// Bits of a tag's control information that are the VLAN's number; the others are the priority.
const VLAN_MASK: u32 = 0x0fff;

impl Tags {
    /// An untagged frame.
    pub const NONE: Self = Self(0);

    /// With one more tag, inside of those that are there. A third one is not taken.
    #[inline(always)]
    pub const fn with(self, ethertype: u16, control: u16) -> Self {
        let position = self.count();
        if position >= MAX_TAGS {
            return self;
        }
        let vlan = (control as u32 & VLAN_MASK) << (12 * position);
        let kind = ((ethertype == ETHERTYPE_8021AD) as u32) << (26 + position);
        Self((self.0 | vlan | kind) + (1 << 24))
    }

    /// Without the outer tag.
    #[inline(always)]
    pub const fn inner(self) -> Self {
        match self.count() {
            2 => {
                let (kind, vlan) = self.tag(1);
                Self::NONE.with(kind, vlan)
            }
            _ => Self::NONE,
        }
    }

    /// How many there are.
    #[inline(always)]
    pub const fn count(self) -> u32 {
        (self.0 >> 24) & 3
    }

    /// EtherType and VLAN number of the outer tag (0) or the inner one (1), which must be there.
    #[inline(always)]
    pub const fn tag(self, position: u32) -> (u16, u16) {
        let kind = if self.0 >> (26 + position) & 1 != 0 {
            ETHERTYPE_8021AD
        } else {
            ETHERTYPE_8021Q
        };
        (kind, (self.0 >> (12 * position) & VLAN_MASK) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What goes in comes out, in order, and priorities do not.
    #[test]
    fn tags_keep_order_and_kind() {
        let one = Tags::NONE.with(ETHERTYPE_8021Q, 0xe000 | 4095);
        assert_eq!((one.count(), one.tag(0)), (1, (ETHERTYPE_8021Q, 4095)));
        let two = Tags::NONE
            .with(ETHERTYPE_8021AD, 7)
            .with(ETHERTYPE_8021Q, 0);
        assert_eq!(two.count(), 2);
        assert_eq!(two.tag(0), (ETHERTYPE_8021AD, 7));
        assert_eq!(two.tag(1), (ETHERTYPE_8021Q, 0));
        assert_eq!(two.with(ETHERTYPE_8021Q, 9), two);
        assert_eq!(two.inner(), Tags::NONE.with(ETHERTYPE_8021Q, 0));
        assert_eq!(one.inner(), Tags::NONE);
        // A priority tag, VLAN 0, is a tag as well.
        assert_ne!(Tags::NONE.with(ETHERTYPE_8021Q, 0), Tags::NONE);
    }
}
