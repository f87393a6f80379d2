//! Failures of one exchange with a registry: what they mean, and whether to try again.

use std::error::Error as StdError;
use std::io;
use std::time::{Duration, SystemTime};

use berth_types::{Error, Kind};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;

/// Whether trying again may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    Never,
    /// Only for a transfer that has begun: the registry was there a moment ago.
    UnderWay,
    /// After this pause, if the registry asked for one.
    After(Option<Duration>),
}

/// A failed exchange.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) retry: Retry,
}

impl Failure {
    /// A failure that trying again may mend.
    pub(crate) fn transient(error: Error) -> Self {
        Self { error, retry: Retry::After(None) }
    }

    /// A registry that takes a connection and leaves it at that.
    pub(crate) fn no_answer(host: &str, patience: Duration) -> Self {
        let error = Error::unavailable(format!(
            "registry {host} did not answer within {} s: check that a registry listens there, and \
             what is between it and this machine",
            patience.as_secs_f32()
        ));
        Self { error, retry: Retry::UnderWay }
    }

    /// What made sending to `host`, or reading from it, fail.
    pub(crate) fn transport(host: &str, error: &reqwest::Error) -> Self {
        if let Some(tls) = find::<rustls::Error>(error) {
            return explain_tls(host, tls).into();
        }
        let cause = root_cause(error);
        let unavailable = Error::unavailable(format!("registry {host}: {cause}"));
        let os_error = find::<io::Error>(error).map(io::Error::kind);
        let is_absent = error.is_connect() && os_error != Some(io::ErrorKind::ConnectionReset);
        if is_absent {
            let error = Error::unavailable(format!(
                "registry {host} can't be reached: {cause}; check the name, the network and that \
                 the registry runs"
            ));
            return Self { error, retry: Retry::UnderWay };
        }
        Self::transient(unavailable)
    }

    /// What a response without success means. `body` is its beginning; `what` was tried, unless
    /// the caller says so itself.
    pub(crate) fn status(
        host: &str,
        what: &str,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Self {
        let said = said(body).map(|said| format!(" ({said})")).unwrap_or_default();
        let (kind, retry, advice) = match status.as_u16() {
            401 => (Kind::Unauthenticated, Retry::Never, LOG_IN),
            403 => (Kind::PermissionDenied, Retry::Never, "; check what this login may do"),
            404 => (Kind::NotFound, Retry::Never, ""),
            416 => (Kind::OutOfRange, Retry::Never, ""),
            408 | 429 | 500 | 502 | 503 | 504 => {
                (Kind::Unavailable, Retry::After(pause_asked_for(headers)), "; try again later")
            }
            _ => (Kind::Unknown, Retry::Never, ""),
        };
        let what = if what.is_empty() { String::new() } else { format!("{what}: ") };
        let error =
            Error::new(kind, format!("{what}registry {host} answered {status}{said}{advice}"));
        Self { error, retry }
    }
}

impl From<Error> for Failure {
    /// Failures are final unless said otherwise.
    fn from(error: Error) -> Self {
        Self { error, retry: Retry::Never }
    }
}

/// What to do about a 401.
pub(crate) const LOG_IN: &str = "; to log in, either name the file that `docker login` writes with \
     docker_config under [registry] in the daemon's config.toml, or give username and password_file \
     under [registries.\"HOST\"] there, and start the daemon again; or check the name: some \
     registries answer so for what is not there";

/// The message in the specification's error body (`spec.md#error-codes`).
fn said(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    let entry = body.errors.into_iter().next()?;
    let text = if entry.message.is_empty() { entry.code } else { entry.message };
    let shown: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    (!shown.is_empty()).then_some(shown)
}

/// The `Retry-After` header: seconds or a date (RFC 9110, 10.2.3).
fn pause_asked_for(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

fn explain_tls(host: &str, error: &rustls::Error) -> Error {
    use rustls::CertificateError as C;
    let advice = match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            C::UnknownIssuer | C::BadSignature => {
                "its certificate is not signed by a trusted authority: put the authority's \
                 certificate into this registry's `ca` setting"
            }
            C::Expired | C::ExpiredContext { .. } => {
                "its certificate has expired: renew it, or check this machine's clock"
            }
            C::NotValidYet | C::NotValidYetContext { .. } => {
                "its certificate is not valid yet: check the clocks of both machines"
            }
            C::NotValidForName | C::NotValidForNameContext { .. } => {
                "its certificate is for another name: use a name that the certificate lists"
            }
            _ => "its certificate is not acceptable",
        },
        rustls::Error::InvalidMessage(_) => {
            "it doesn't speak TLS on this port: set `plain_http` for this registry if that is meant"
        }
        _ => "the TLS handshake failed",
    };
    Error::failed_precondition(format!("registry {host}: {advice} ({error})"))
}

/// The first cause of type `T` in a chain of errors; I/O errors are looked into, since they hide
/// what they wrap from the chain.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// The text of the innermost cause, which says most.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn StdError = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, retry_after: Option<&str>) -> Failure {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(RETRY_AFTER, value.parse().unwrap());
        }
        let body = br#"{"errors":[{"code":"X","message":"no\u0007pe"}]}"#;
        let status = StatusCode::from_u16(status).unwrap();
        Failure::status("h", "resolve a:b", status, &headers, body)
    }

    #[test]
    fn statuses_have_kinds_and_say_what_the_registry_said() {
        assert_eq!(failure(404, None).error.kind(), Kind::NotFound);
        assert_eq!(failure(401, None).error.kind(), Kind::Unauthenticated);
        assert_eq!(failure(403, None).error.kind(), Kind::PermissionDenied);
        assert_eq!(failure(418, None).error.kind(), Kind::Unknown);
        assert!(failure(404, None).error.message().contains("(nope)"));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let seconds = Retry::After(Some(Duration::from_secs(7)));
        assert_eq!(failure(429, Some("7")).retry, seconds);
        let past = failure(503, Some("Wed, 21 Oct 2015 07:28:00 GMT")).retry;
        assert_eq!(past, Retry::After(Some(Duration::ZERO)));
        assert_eq!(failure(502, Some("soon")).retry, Retry::After(None));
        assert_eq!(failure(404, Some("7")).retry, Retry::Never);
    }
}
