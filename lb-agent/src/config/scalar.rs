//! Single values: each function reads one, or says in a sentence why it is wrong.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use toml::de::DeValue;

use super::table::kind;
use crate::domain::block::parse_prefix;

/// A string.
pub(super) fn string(value: &DeValue) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        other => Err(format!("must be a string in quotes, not {}", kind(other))),
    }
}

/// A string that is not empty and has no control characters or blanks at its ends.
pub(super) fn word(value: &DeValue) -> Result<String, String> {
    let text = string(value)?;
    if text.is_empty() {
        return Err("must not be empty".into());
    }
    if text.trim() != text || text.contains(char::is_control) {
        return Err("must not have control characters, or blanks at its ends".into());
    }
    Ok(text)
}

/// A name of a service or subset: 1 to 63 of `[A-Za-z0-9_.-]`.
pub(super) fn name(value: &DeValue) -> Result<String, String> {
    let text = string(value)?;
    check_name(&text)?;
    Ok(text)
}

/// Whether a name is one; see [`name`].
pub(super) fn check_name(text: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if (1..=63).contains(&text.len()) && text.chars().all(fits) {
        Ok(())
    } else {
        Err(format!(
            "`{text}` is no name; use 1 to 63 letters, digits, `_`, `.` or `-`"
        ))
    }
}

/// An absolute path.
pub(super) fn path(value: &DeValue) -> Result<PathBuf, String> {
    let path = PathBuf::from(string(value)?);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err("must be an absolute path, one that begins with /".into())
    }
}

/// An address, or a prefix of addresses.
pub(super) fn prefix(value: &DeValue) -> Result<IpNet, String> {
    parse_prefix(&string(value)?).map_err(|error| error.to_string())
}

/// `true` or `false`.
pub(super) fn boolean(value: &DeValue) -> Result<bool, String> {
    match value {
        DeValue::Boolean(value) => Ok(*value),
        other => Err(format!("must be true or false, not {}", kind(other))),
    }
}

/// A whole number within bounds.
pub(super) fn integer<T>(value: &DeValue, bounds: RangeInclusive<T>) -> Result<T, String>
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display,
{
    let wrong = || {
        format!(
            "must be a whole number from {} to {}",
            bounds.start(),
            bounds.end()
        )
    };
    let DeValue::Integer(integer) = value else {
        return Err(format!("{}, not {}", wrong(), kind(value)));
    };
    i64::from_str_radix(integer.as_str(), integer.radix())
        .ok()
        .and_then(|number| T::try_from(number).ok())
        .filter(|number| bounds.contains(number))
        .ok_or_else(wrong)
}

/// A duration such as `"2s"` within bounds.
pub(super) fn duration(
    value: &DeValue,
    bounds: RangeInclusive<Duration>,
) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "must be a duration from {} to {}, such as \"2s\", \"500ms\" or \"1m\"",
            humantime::format_duration(*bounds.start()),
            humantime::format_duration(*bounds.end())
        )
    };
    let DeValue::String(text) = value else {
        return Err(format!("{}, not {}", wrong(), kind(value)));
    };
    humantime::parse_duration(text)
        .ok()
        .filter(|duration| bounds.contains(duration))
        .ok_or_else(wrong)
}

/// An address and port where something listens; port 0 lets the system choose.
pub(super) fn listen(value: &DeValue) -> Result<SocketAddr, String> {
    endpoint(&string(value)?)
}

/// Where clients connect to: an address that belongs to no single host, and a port.
pub(super) fn vip(value: &DeValue) -> Result<SocketAddr, String> {
    let address = destination(value)?;
    let ip = address.ip();
    if ip.is_loopback() {
        return Err(format!(
            "{ip} is a loopback address, which no client can reach; use an address that is \
             routed to this node"
        ));
    }
    Ok(address)
}

/// Where a single peer can be reached by packets: no wildcard, group or broadcast address, and a
/// port.
pub(super) fn destination(value: &DeValue) -> Result<SocketAddr, String> {
    let address = endpoint(&string(value)?)?;
    let ip = address.ip();
    if address.port() == 0 {
        return Err("port 0 is none; name the port after the last colon".into());
    }
    let reason = match ip {
        _ if ip.is_unspecified() => "the unspecified address",
        _ if ip.is_multicast() => "a multicast address",
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            "an IPv4 address in IPv6 notation; write it as IPv4"
        }
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            "a link-local address, which means something else on each interface"
        }
        _ => return Ok(address),
    };
    Err(format!("{ip} is {reason}"))
}

fn endpoint(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| {
        let hint = match text.parse::<IpAddr>() {
            Ok(ip) => format!("add the port, as in {}", SocketAddr::new(ip, 80)),
            Err(_) => "write IP:PORT, as in 198.51.100.10:80 or [2001:db8::10]:80".into(),
        };
        format!("`{text}` is no address with a port; {hint}")
    })?;
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => Err(format!(
            "`{text}` names an interface; write the address without `%` and what follows"
        )),
        _ => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: std::fmt::Debug>(
        toml: &str,
        read: impl FnOnce(&DeValue) -> Result<T, String>,
    ) -> String {
        let value = DeValue::parse(toml).unwrap();
        match read(value.get_ref()) {
            Ok(value) => format!("{value:?}"),
            Err(reason) => reason,
        }
    }

    /// Rows of a VIP and what becomes of it.
    #[test]
    fn vips() {
        let rows = [
            (r#""198.51.100.10:80""#, "198.51.100.10:80"),
            (r#""[2001:db8::1]:80""#, "[2001:db8::1]:80"),
            (r#""198.51.100.10""#, "add the port, as in 198.51.100.10:80"),
            (r#""2001:db8::1""#, "add the port, as in [2001:db8::1]:80"),
            (r#""echo:80""#, "write IP:PORT"),
            (r#""198.51.100.10:65536""#, "write IP:PORT"),
            (r#""198.51.100.10:0""#, "port 0"),
            (r#""0.0.0.0:80""#, "unspecified"),
            (r#""[::]:80""#, "unspecified"),
            (r#""224.0.0.1:80""#, "multicast"),
            (r#""[ff02::1]:80""#, "multicast"),
            (r#""255.255.255.255:80""#, "broadcast"),
            (r#""127.0.0.1:80""#, "loopback"),
            (r#""[::1]:80""#, "loopback"),
            (r#""[::ffff:192.0.2.1]:80""#, "write it as IPv4"),
            (r#""[fe80::1]:80""#, "link-local"),
            (r#""[2001:db8::1%3]:80""#, "names an interface"),
            ("80", "must be a string in quotes, not an integer"),
        ];
        for (toml, expected) in rows {
            let result = read(toml, vip);
            assert!(result.contains(expected), "{toml}: {result}");
        }
    }

    /// Rows of a number from 1 to 100 and what becomes of it.
    #[test]
    fn integers() {
        let rows = [
            ("1", "1"),
            ("100", "100"),
            ("0x1_0", "16"),
            ("+7", "7"),
            ("0", "must be a whole number from 1 to 100"),
            ("-1", "must be a whole number from 1 to 100"),
            ("101", "must be a whole number from 1 to 100"),
            (
                "99999999999999999999",
                "must be a whole number from 1 to 100",
            ),
            ("1.0", "not a float"),
            ("\"1\"", "not a string"),
        ];
        for (toml, expected) in rows {
            let result = read(toml, |value| integer(value, 1u8..=100));
            assert!(result.ends_with(expected), "{toml}: {result}");
        }
    }

    /// Rows of a duration from 50 ms to an hour and what becomes of it.
    #[test]
    fn durations() {
        let bounds = Duration::from_millis(50)..=Duration::from_secs(3600);
        let wrong = "must be a duration from 50ms to 1h, such as";
        let rows = [
            (r#""50ms""#, "50ms"),
            (r#""1h""#, "3600s"),
            (r#""1m 30s""#, "90s"),
            (r#""1.5s""#, "1.5s"),
            (r#""49ms""#, wrong),
            (r#""3601s""#, wrong),
            (r#""2""#, wrong),
            (r#""-2s""#, wrong),
            (r#""soon""#, wrong),
            ("2", wrong),
        ];
        for (toml, expected) in rows {
            let result = read(toml, |value| duration(value, bounds.clone()));
            assert!(result.starts_with(expected), "{toml}: {result}");
        }
    }

    /// Rows of names and paths.
    #[test]
    fn words() {
        assert_eq!(read("\"a-B_9.x\"", name), "\"a-B_9.x\"");
        let long = format!("\"{}\"", "x".repeat(64));
        for toml in ["\"\"", "\"a b\"", "\"a/b\"", "\"ä\"", &long] {
            assert!(read(toml, name).contains("is no name"), "{toml}");
        }
        assert_eq!(read("\"/var/lib\"", path), "\"/var/lib\"");
        for toml in ["\"\"", "\"var\"", "\"./x\""] {
            assert!(read(toml, path).contains("absolute"), "{toml}");
        }
        assert_eq!(read("\"two words\"", word), "\"two words\"");
        assert_eq!(read("\"\"", word), "must not be empty");
        for toml in ["\" x\"", "\"x\\n\"", "\"x\\u0000y\""] {
            assert!(read(toml, word).contains("control"), "{toml}");
        }
    }
}
