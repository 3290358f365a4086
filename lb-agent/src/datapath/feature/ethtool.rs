//! What drivers are and what they do before a frame reaches a program: `SIOCETHTOOL` of
//! include/uapi/linux/ethtool.h. Only asks; changes nothing.

use std::{
    collections::BTreeMap,
    ffi::{c_char, c_ulong},
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// `SIOCETHTOOL` of include/uapi/linux/sockios.h.
const SIOCETHTOOL: c_ulong = 0x8946;

/// `SIOCGIFMTU` of include/uapi/linux/sockios.h.
const SIOCGIFMTU: c_ulong = 0x8921;

const GDRVINFO: u32 = 0x03;
const GRINGPARAM: u32 = 0x10;
const GSTRINGS: u32 = 0x1b;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
const GCHANNELS: u32 = 0x3c;

/// `ETH_SS_FEATURES`.
const FEATURE_NAMES: u32 = 4;
/// `ETH_GSTRING_LEN`.
const NAME_LENGTH: usize = 32;
/// Length of `struct ethtool_drvinfo`, and where the driver's name stands in it.
const DRVINFO: usize = 196;
const DRIVER: std::ops::Range<usize> = 4..36;

/// `struct ifreq`, as far as it matters here.
#[repr(C)]
struct Request {
    name: [c_char; libc::IFNAMSIZ],
    data: *mut u8,
    /// The union is longer than a pointer.
    rest: [u8; 16],
}

impl Request {
    fn new(interface: &str, data: *mut u8) -> io::Result<Self> {
        let mut name = [0; libc::IFNAMSIZ];
        if interface.len() >= name.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (to, from) in name.iter_mut().zip(interface.bytes()) {
            *to = from as c_char;
        }
        let rest = [0; 16];
        Ok(Self { name, data, rest })
    }
}

/// Questions about the interfaces of the calling thread's network namespace.
#[derive(Debug)]
pub struct Ethtool(OwnedFd);

/// How many there are now, and how many there can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// Now.
    pub current: u32,
    /// At most.
    pub most: u32,
}

impl Ethtool {
    /// Opens a socket to ask through.
    ///
    /// # Errors
    ///
    /// The kernel gives none.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
        Ok(Self(socket))
    }

    /// The driver's name.
    ///
    /// # Errors
    ///
    /// There is no such interface, or it has no driver.
    pub fn driver(&self, interface: &str) -> io::Result<String> {
        let answer = self.ask(interface, GDRVINFO, &[], DRVINFO)?;
        Ok(text(&answer[DRIVER]))
    }

    /// Receive queues, and whether they are combined with those that send: then their number is
    /// changed together.
    ///
    /// # Errors
    ///
    /// The driver does not tell.
    pub fn queues(&self, interface: &str) -> io::Result<(Amount, bool)> {
        // max_rx, max_tx, max_other, max_combined, and the same now.
        let answer = self.ask(interface, GCHANNELS, &[], 9 * 4)?;
        let [max_rx, max_combined, rx, combined] = [1, 4, 5, 8].map(|at| word(&answer, at));
        // Separate and combined ones are alternatives.
        let most = max_rx.max(max_combined);
        let current = rx + combined;
        Ok((Amount { current, most }, max_combined > 0))
    }

    /// Frames that a receive ring holds.
    ///
    /// # Errors
    ///
    /// The driver does not tell.
    pub fn ring(&self, interface: &str) -> io::Result<Amount> {
        // rx_max, mini, jumbo, tx; the same now.
        let answer = self.ask(interface, GRINGPARAM, &[], 9 * 4)?;
        Ok(Amount {
            current: word(&answer, 5),
            most: word(&answer, 1),
        })
    }

    /// What it does for the stack, by the kernel's names (`ethtool -k` has some others), and
    /// whether that is on.
    ///
    /// # Errors
    ///
    /// There is no such interface.
    pub fn features(&self, interface: &str) -> io::Result<BTreeMap<String, bool>> {
        // Which sets of strings are asked for, as a mask; then the length of each.
        let mut sets = [0; 12];
        sets[4..].copy_from_slice(&(1_u64 << FEATURE_NAMES).to_ne_bytes());
        let answer = self.ask(interface, GSSET_INFO, &sets, 16 + 4)?;
        let count = word(&answer, 4);
        let mut wanted = FEATURE_NAMES.to_ne_bytes().to_vec();
        wanted.extend(count.to_ne_bytes());
        let names = self.ask(
            interface,
            GSTRINGS,
            &wanted,
            12 + count as usize * NAME_LENGTH,
        )?;
        let blocks = count.div_ceil(32);
        let length = 8 + blocks as usize * 16;
        let answer = self.ask(interface, GFEATURES, &blocks.to_ne_bytes(), length)?;
        let on = |feature: usize| {
            // available, requested, active, never_changed
            let active = word(&answer, 2 + feature / 32 * 4 + 2);
            active >> (feature % 32) & 1 == 1
        };
        let names = names[12..].chunks(NAME_LENGTH).map(text);
        let named = names.enumerate().filter(|(_, name)| !name.is_empty());
        Ok(named.map(|(feature, name)| (name, on(feature))).collect())
    }

    /// The longest packet that it takes, in bytes.
    ///
    /// # Errors
    ///
    /// There is no such interface.
    pub fn mtu(&self, interface: &str) -> io::Result<u32> {
        let mut request = Request::new(interface, std::ptr::null_mut())?;
        // SAFETY: the request is writable, and the kernel writes a number into it.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), SIOCGIFMTU as _, &raw mut request) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        // The number stands where other requests have the pointer, in its first bytes.
        let bytes = request.data.addr().to_ne_bytes();
        Ok(word(&bytes, 0))
    }

    /// Asks with a command and what follows it; `length` is the answer's, with the command.
    fn ask(
        &self,
        interface: &str,
        command: u32,
        arguments: &[u8],
        length: usize,
    ) -> io::Result<Vec<u8>> {
        let mut answer = vec![0; length.max(4 + arguments.len())];
        answer[..4].copy_from_slice(&command.to_ne_bytes());
        answer[4..4 + arguments.len()].copy_from_slice(arguments);
        let mut request = Request::new(interface, answer.as_mut_ptr())?;
        // SAFETY: the request names a buffer that is as long as the command's answer, and both
        // outlive the call.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(answer)
    }
}

/// The word at this place, counted in words.
fn word(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at * 4..at * 4 + 4);
    bytes.map_or(0, |bytes| {
        u32::from_ne_bytes(bytes.try_into().unwrap_or_default())
    })
}

/// Up to the final zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loopback is everywhere and has features, but neither queues nor rings to tell of.
    #[test]
    fn loopback_is_told_of() {
        let ethtool = Ethtool::open().unwrap();
        let features = ethtool.features("lo").unwrap();
        assert_eq!(features.get("loopback"), Some(&true), "{features:?}");
        assert!(ethtool.ring("lo").is_err());
        let absent = ethtool.features("no-such-link").unwrap_err();
        assert_eq!(absent.raw_os_error(), Some(libc::ENODEV));
        let long = ethtool.driver("a-name-that-is-too-long").unwrap_err();
        assert_eq!(long.kind(), io::ErrorKind::InvalidInput);
    }
}
