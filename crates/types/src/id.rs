//! Identifiers of containers, namespaces, snapshots and their like.

use crate::{Error, Result};

/// The longest identifier that containerd accepts, in bytes.
pub const MAX_LENGTH: usize = 76;

/// Checks an identifier by containerd's rule: 1 to [`MAX_LENGTH`] ASCII letters and digits,
/// with single `.`, `_` or `-` between them. It is then safe as a file name.
///
/// # Errors
/// [`Kind::InvalidArgument`](crate::Kind::InvalidArgument), naming `what` is wrong and why.
pub fn validate(what: &str, id: &str) -> Result<()> {
    if id.is_empty() {
        return Err(Error::invalid_argument(format!("{what} must not be empty")));
    }
    if id.len() > MAX_LENGTH {
        return Err(Error::invalid_argument(format!(
            "{what} {id:?} is {} characters long, the most is {MAX_LENGTH}",
            id.len()
        )));
    }
    let well_formed = id
        .split(['.', '_', '-'])
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()));
    if !well_formed {
        return Err(Error::invalid_argument(format!(
            "{what} {id:?} must be letters and digits with single '.', '_' or '-' between them"
        )));
    }
    Ok(())
}

/// Checks an identifier by the OCI runtimes' rule, which has more room: up to 255 ASCII letters,
/// digits, `_`, `+`, `-` and `.`, safe as a file name.
///
/// # Errors
/// As [`validate`].
pub fn validate_for_runtime(what: &str, id: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    match id {
        "" => Err(Error::invalid_argument(format!("{what} must not be empty"))),
        "." | ".." => Err(Error::invalid_argument(format!("{what} must not be {id:?}"))),
        _ if id.len() > 255 => Err(Error::invalid_argument(format!(
            "{what} {id:?} is {} characters long, the most is 255",
            id.len()
        ))),
        _ if id.bytes().all(plain) => Ok(()),
        _ => Err(Error::invalid_argument(format!(
            "{what} {id:?} must be letters, digits, '_', '+', '-' and '.'"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_accept_more() {
        for id in ["a", "my__name", "-a", "a..b", "_", "a+b", &"a".repeat(255)] {
            assert!(validate_for_runtime("id", id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", "a/b", "a b", "a:b", "a\0", "é", &"a".repeat(256)] {
            assert!(validate_for_runtime("id", id).is_err(), "{id}");
        }
    }

    #[test]
    fn accepts_what_containerd_accepts() {
        for id in ["default", "k8s.io", "a", "Default1_a-b.c", &"a".repeat(76)] {
            assert!(validate("id", id).is_ok(), "{id}");
        }
    }

    #[test]
    fn refuses_what_containerd_refuses() {
        for id in ["", ".", "..", "a/b", "-a", "a-", "a..b", "a\0", "é", &"a".repeat(77)] {
            assert!(validate("id", id).is_err(), "{id}");
        }
    }
}
