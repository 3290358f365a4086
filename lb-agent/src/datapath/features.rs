//! What drivers say that they do with XDP, above all which of them take redirected frames: the kernel's `netdev` family of generic netlink
//! (Documentation/netlink/specs/netdev.yaml), since Linux 6.3. A driver says so of itself; a veth
//! does while its peer polls.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

/// `NETDEV_XDP_ACT_NDO_XMIT` of include/uapi/linux/netdev.h.
const XDP_ACT_NDO_XMIT: u64 = 4;

/// Header of a netlink message, and of a generic one behind it.
const HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;

/// By interface index, whether it takes redirected frames.
///
/// # Errors
///
/// The kernel has no such family, as before Linux 6.3.
pub(super) fn redirect_targets() -> io::Result<HashMap<u32, bool>> {
    let features = xdp_features()?.into_iter();
    let takes = |(ifindex, features)| (ifindex, features & XDP_ACT_NDO_XMIT != 0);
    Ok(features.map(takes).collect())
}

/// By interface index, the bits of `enum netdev_xdp_act`: 1 runs programs, 2 redirects, 4 takes
/// redirected frames.
///
/// # Errors
///
/// The kernel has no such family, as before Linux 6.3.
pub fn xdp_features() -> io::Result<HashMap<u32, u64>> {
    let socket = open()?;
    let mut name = attribute(CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    name.resize(name.len().next_multiple_of(4), 0);
    let request = message(GENL_ID_CTRL, 0, CTRL_CMD_GETFAMILY, &name);
    let mut family = None;
    ask(&socket, &request, false, |attributes| {
        let id = find(attributes, CTRL_ATTR_FAMILY_ID);
        family = id.and_then(|bytes| Some(u16::from_ne_bytes(bytes.try_into().ok()?)));
    })?;
    let family = family.ok_or(io::ErrorKind::NotFound)?;
    let dump = (libc::NLM_F_DUMP) as u16;
    let request = message(family, dump, NETDEV_CMD_DEV_GET, &[]);
    let mut known = HashMap::new();
    ask(&socket, &request, true, |attributes| {
        let ifindex = find(attributes, NETDEV_A_DEV_IFINDEX).and_then(|b| b.try_into().ok());
        let features = find(attributes, NETDEV_A_DEV_XDP_FEATURES).and_then(|b| b.try_into().ok());
        if let (Some(ifindex), Some(features)) = (ifindex, features) {
            let features = u64::from_ne_bytes(features);
            known.insert(u32::from_ne_bytes(ifindex), features);
        }
    })?;
    Ok(known)
}

fn open() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: socket(2) takes three integers.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_GENERIC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us the descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes
}

fn message(kind: u16, flags: u16, command: u8, attributes: &[u8]) -> Vec<u8> {
    let length = HEADER + GENERIC_HEADER + attributes.len();
    let mut bytes = (length as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((libc::NLM_F_REQUEST as u16 | flags).to_ne_bytes());
    // Sequence and port number: one question at a time on a socket of its own.
    bytes.extend([0; 8]);
    bytes.extend([command, 1, 0, 0]);
    bytes.extend(attributes);
    bytes
}

/// Sends a request and calls `each` with the attributes of every answer; a dump has many and an end.
fn ask(
    socket: &OwnedFd,
    request: &[u8],
    dump: bool,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    // SAFETY: the buffer is valid for its length.
    let sent = unsafe {
        libc::send(
            socket.as_raw_fd(),
            request.as_ptr().cast(),
            request.len(),
            0,
        )
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut buffer = vec![0_u8; 64 << 10];
    loop {
        // SAFETY: the buffer is valid and writable for its length.
        let length = unsafe {
            libc::recv(
                socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
            )
        };
        let Ok(length) = usize::try_from(length) else {
            return Err(io::Error::last_os_error());
        };
        let mut rest = &buffer[..length];
        while let Some((kind, body, next)) = split(rest) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let code = body.get(..4).and_then(|bytes| bytes.try_into().ok());
                    let code = code.map_or(libc::EPROTO, |bytes| -i32::from_ne_bytes(bytes));
                    return Err(io::Error::from_raw_os_error(code));
                }
                _ => each(body.get(GENERIC_HEADER..).unwrap_or_default()),
            }
            rest = next;
        }
        if !dump {
            return Ok(());
        }
    }
}

/// Kind and body of the first message, and what follows it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, next))
}

/// The value of an attribute.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        let value = attributes.get(4..length)?;
        // The upper two bits are flags.
        if kind & 0x3fff == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_lies_end_the_search() {
        let mut bytes = attribute(7, &[1, 2, 3]);
        bytes.push(0);
        bytes.extend(attribute(9, &[4, 5, 6, 7]));
        assert_eq!(find(&bytes, 7), Some(&[1, 2, 3][..]));
        assert_eq!(find(&bytes, 9), Some(&[4, 5, 6, 7][..]));
        assert_eq!(find(&bytes, 8), None);
        assert_eq!(find(&bytes[..10], 9), None);
        assert_eq!(find(&[0, 0, 0, 0], 1), None, "a length of zero");
        let sent = message(0x10, 0, 3, &bytes);
        let (kind, body, rest) = split(&sent).unwrap();
        assert_eq!((kind, &body[4..], rest), (0x10, &bytes[..], &[][..]));
        assert_eq!(split(&sent[..sent.len() - 1]), None);
    }

    /// The kernel that the tests run on answers, and of the loopback interface at least.
    #[test]
    fn the_kernel_answers() {
        match redirect_targets() {
            Ok(targets) => assert_eq!(targets.get(&1), Some(&false), "{targets:?}"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOENT)),
        }
    }
}
