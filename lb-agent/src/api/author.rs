//! Who is at the other end of the socket, as the kernel tells it (`SO_PEERCRED` of unix(7)).

use std::time::SystemTime;

use nix::unistd::{Uid, User};
use tonic::{Request, transport::server::UdsConnectInfo};

use crate::domain::author::Author;

/// The person who makes a request; `None`: the kernel does not tell.
pub(super) fn author<T>(request: &Request<T>) -> Option<Author> {
    let connection = request.extensions().get::<UdsConnectInfo>()?;
    let uid = connection.peer_cred?.uid();
    Some(Author {
        user: name(uid),
        at: SystemTime::now(),
    })
}

/// The user's name, or `uid NUMBER` for one who has none.
fn name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => format!("uid {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_names_or_numbers() {
        assert_eq!(name(0), "root");
        assert_eq!(name(3_999_999_999), "uid 3999999999");
        assert_eq!(author(&Request::new(())), None);
    }
}
