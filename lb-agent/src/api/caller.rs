//! Who is at the other end of the socket, as far as the kernel tells.

use std::fs;

use tonic::{Request, transport::server::UdsConnectInfo};

/// Where the names of users stand.
const USERS: &str = "/etc/passwd";

/// The user behind a request, as in `root`, or `uid 1000` where it has no name; `None`: not known.
pub(super) fn name<T>(request: &Request<T>) -> Option<String> {
    let info = request.extensions().get::<UdsConnectInfo>()?;
    let uid = info.peer_cred?.uid();
    let users = fs::read_to_string(USERS).unwrap_or_default();
    Some(name_in(&users, uid).map_or_else(|| format!("uid {uid}"), str::to_owned))
}

/// The name of a user in a file of the format of passwd(5).
fn name_in(users: &str, uid: u32) -> Option<&str> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid) && !name.is_empty()).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_names() {
        let users = "root:x:0:0:root:/root:/bin/sh\nbroken\n:x:7:7::/:\nops:x:1000:7::/:\n";
        let rows = [(0, Some("root")), (1000, Some("ops")), (7, None), (1, None)];
        for (uid, name) in rows {
            assert_eq!(name_in(users, uid), name, "{uid}");
        }
    }
}
