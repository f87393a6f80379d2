//! Authentication: what a registry asks for, and how it is answered.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use berth_types::{Error, Result};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Request, Url};
use serde::Deserialize;

use crate::config::Credentials;

/// The most that is read of a token server's answer, in bytes.
pub(crate) const MAX_TOKEN_RESPONSE: u64 = 1 << 20;
/// How long a token is good when its server doesn't say, which is also the least that
/// the specification lets a server say.
const DEFAULT_LIFETIME: u64 = 60;
/// Tokens are not used this close to their end.
const MARGIN: Duration = Duration::from_secs(10);
const CLIENT_ID: &str = "berth";

/// What a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A name and a password with every request (RFC 7617).
    Basic,
    /// A token that `realm` hands out.
    Bearer { realm: Url, service: String, scope: String },
}

impl Challenge {
    /// The challenge to answer of those in a 401 response: a token where one is offered, since it
    /// spares the password. `default_scope` stands in where the registry names none.
    pub(crate) fn choose(headers: &HeaderMap, default_scope: &str) -> Option<Self> {
        let mut basic = None;
        for header in headers.get_all(WWW_AUTHENTICATE) {
            let Ok(list) = header.to_str() else { continue };
            for challenge in http_auth::parser::ChallengeParser::new(list) {
                // What follows an error in a list can't be told apart.
                let Ok(challenge) = challenge else { break };
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Challenge::Basic);
                }
                if challenge.scheme.eq_ignore_ascii_case("bearer")
                    && let Some(bearer) = bearer(&challenge.params, default_scope)
                {
                    return Some(bearer);
                }
            }
        }
        basic
    }
}

fn bearer(params: &[(&str, http_auth::ParamValue<'_>)], default_scope: &str) -> Option<Challenge> {
    let param = |name: &str| {
        let (_, value) = params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(value.to_unescaped()).filter(|value| !value.is_empty())
    };
    let realm = Url::parse(&param("realm")?).ok()?;
    let service = param("service").unwrap_or_default();
    let scope = param("scope").unwrap_or_else(|| default_scope.to_owned());
    Some(Challenge::Bearer { realm, service, scope })
}

/// The `Authorization` header of a user.
pub(crate) fn basic(username: &str, password: &str) -> Result<HeaderValue> {
    secret("Basic", &BASE64.encode(format!("{username}:{password}")))
}

fn secret(scheme: &str, value: &str) -> Result<HeaderValue> {
    let mut header = HeaderValue::from_str(&format!("{scheme} {value}"))
        .map_err(|_| Error::unauthenticated("token has characters that no header may have"))?;
    header.set_sensitive(true);
    Ok(header)
}

/// The request that asks `realm` for a token.
pub(crate) fn token_request(
    realm: &Url,
    service: &str,
    scope: &str,
    credentials: &Credentials,
) -> Result<Request> {
    let mut fields = vec![("service", service), ("scope", scope)];
    fields.retain(|(_, value)| !value.is_empty());
    match credentials {
        Credentials::Anonymous => Ok(get_token(realm, &fields)),
        Credentials::Password { username, password } => {
            fields.push(("account", username));
            let mut request = get_token(realm, &fields);
            let header = basic(username, password)?;
            request.headers_mut().insert(reqwest::header::AUTHORIZATION, header);
            Ok(request)
        }
        Credentials::IdentityToken(token) => {
            fields.push(("grant_type", "refresh_token"));
            fields.push(("client_id", CLIENT_ID));
            fields.push(("refresh_token", token));
            Ok(post_token(realm, &fields))
        }
    }
}

fn get_token(realm: &Url, fields: &[(&str, &str)]) -> Request {
    let mut url = realm.clone();
    url.query_pairs_mut().extend_pairs(fields);
    Request::new(reqwest::Method::GET, url)
}

fn post_token(realm: &Url, fields: &[(&str, &str)]) -> Request {
    // The form's encoding is that of a query.
    let mut form = realm.clone();
    form.query_pairs_mut().clear().extend_pairs(fields);
    let mut request = Request::new(reqwest::Method::POST, realm.clone());
    *request.body_mut() = Some(form.query().unwrap_or_default().to_owned().into());
    let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
    request.headers_mut().insert(CONTENT_TYPE, form_type);
    request
}

/// A token, as the header that carries it, and until when it is good.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) header: HeaderValue,
    good_until: Instant,
}

impl Token {
    /// Reads a token server's answer.
    pub(crate) fn parse(realm: impl Display, body: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            token: String,
            #[serde(default)]
            access_token: String,
            expires_in: Option<u64>,
        }
        let answer: Answer = serde_json::from_slice(body).map_err(|e| {
            Error::unauthenticated(format!("token server {realm} answered unintelligibly: {e}"))
        })?;
        let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
        if token.is_empty() {
            return Err(Error::unauthenticated(format!("token server {realm} gave no token")));
        }
        let lifetime =
            answer.expires_in.unwrap_or(DEFAULT_LIFETIME).clamp(DEFAULT_LIFETIME, 86_400);
        let good_until = Instant::now() + Duration::from_secs(lifetime) - MARGIN;
        Ok(Self { header: secret("Bearer", &token)?, good_until })
    }
}

/// What a token is for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct TokenKey {
    pub(crate) realm: String,
    pub(crate) service: String,
    pub(crate) scope: String,
    pub(crate) credentials: Credentials,
}

/// Tokens that are still good.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<HashMap<TokenKey, Token>>);

impl Tokens {
    pub(crate) fn get(&self, key: &TokenKey) -> Option<HeaderValue> {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let token = tokens.get(key).filter(|token| token.good_until > Instant::now())?;
        Some(token.header.clone())
    }

    /// Keeps a token, and forgets those that have ended.
    pub(crate) fn put(&self, key: TokenKey, token: Token) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, token| token.good_until > Instant::now());
        tokens.insert(key, token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        Challenge::choose(&headers, "repository:a:pull")
    }

    #[test]
    fn prefers_a_token_to_a_password() {
        let bearer = r#"Bearer realm="https://auth.example/token",service="r",scope="a,b c""#;
        let expected = Challenge::Bearer {
            realm: Url::parse("https://auth.example/token").unwrap(),
            service: "r".into(),
            scope: "a,b c".into(),
        };
        assert_eq!(choose(&[r#"Basic realm="x""#, bearer]), Some(expected.clone()));
        assert_eq!(choose(&[&format!("Basic realm=\"x\", {bearer}")]), Some(expected));
        assert_eq!(choose(&[r#"BASIC realm="x""#]), Some(Challenge::Basic));
    }

    #[test]
    fn fills_in_the_scope_and_ignores_what_it_cannot_answer() {
        let Some(Challenge::Bearer { scope, service, .. }) =
            choose(&[r#"bearer realm="https://x/""#])
        else {
            panic!("a bearer challenge")
        };
        assert_eq!((scope.as_str(), service.as_str()), ("repository:a:pull", ""));
        for value in ["Negotiate", r#"Bearer realm="not a url""#, "Bearer", "\"", "=,,;"] {
            assert_eq!(choose(&[value]), None, "{value}");
        }
    }

    #[test]
    fn requests_for_tokens_carry_what_the_credentials_allow() {
        let realm = Url::parse("https://auth.example/token?x=1").unwrap();
        let request = |credentials| token_request(&realm, "r", "a b", &credentials).unwrap();
        let anonymous = request(Credentials::Anonymous);
        assert_eq!(anonymous.url().query(), Some("x=1&service=r&scope=a+b"));
        assert!(anonymous.headers().get("authorization").is_none());
        let (username, password) = ("u".to_owned(), "p".to_owned());
        let user = request(Credentials::Password { username, password });
        assert_eq!(user.headers()["authorization"], "Basic dTpw");
        let refresh = request(Credentials::IdentityToken("t&t".into()));
        let body = refresh.body().and_then(|body| body.as_bytes()).unwrap();
        assert!(String::from_utf8_lossy(body).ends_with("refresh_token=t%26t"));
        assert_eq!(refresh.url(), &realm);
    }
}
