//! What an error says of the agent's rights.

use std::io;

use super::*;

/// However deep it lies.
#[test]
fn what_is_denied() {
    #[derive(Debug, thiserror::Error)]
    #[error("opening: {0}")]
    struct Opening(#[source] io::Error);
    for (code, expected) in [
        (libc::EACCES, true),
        (libc::EPERM, true),
        (libc::ENOMEM, false),
    ] {
        let error = || io::Error::from_raw_os_error(code);
        assert_eq!(KernelError::new("trying", error()).is_denied(), expected);
        let deep = KernelError::new("trying", Opening(error()));
        assert_eq!(deep.is_denied(), expected);
    }
    assert!(!KernelError::new("trying", "no").is_denied());
}
