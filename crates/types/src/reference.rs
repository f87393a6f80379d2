//! References: how people name images, such as `busybox`, `ghcr.io/org/app:1.2` or
//! `[::1]:5000/app@sha256:…`.
//!
//! Docker's rules: a name without a registry is one of `docker.io`, a single word there is in
//! `library/`, repository names are lower case. The first part of a name is a registry when it
//! has a dot or a colon, has an upper-case letter or is `localhost`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::{Digest, Error, Result};

/// The registry of names that name none.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// The tag of references that have neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";

const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
/// The longest repository path, in bytes.
const MAX_PATH: usize = 255;
/// The longest tag, in bytes.
const MAX_TAG: usize = 128;
/// How much of a malformed reference a message shows, in characters.
const MAX_SHOWN: usize = 300;

/// A parsed and normalized reference. [`Display`](fmt::Display) writes it in full, as containerd's
/// clients name images: `docker.io/library/busybox:latest`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry, with its port if one is given: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Registry and repository: `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The tag, if one is given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one is given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The reference under which Docker records an image: a digest alone if there is one, else a
    /// tag, which is `latest` where none is given.
    #[must_use]
    pub fn canonical(mut self) -> Self {
        if self.digest.is_some() {
            self.tag = None;
        } else if self.tag.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The same repository with `tag` alone.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`](crate::Kind::InvalidArgument) for a malformed tag.
    pub fn with_tag(mut self, tag: &str) -> Result<Self> {
        if !is_tag(tag) {
            return Err(invalid(tag, TAG_RULE));
        }
        (self.tag, self.digest) = (Some(tag.to_owned()), None);
        Ok(self)
    }

    /// The same repository with `digest` alone.
    #[must_use]
    pub fn with_digest(mut self, digest: Digest) -> Self {
        (self.tag, self.digest) = (None, Some(digest));
        self
    }

    /// The repository as Docker shows it: `busybox` for `docker.io/library/busybox`. It is the
    /// full name where the short one would mean something else.
    pub fn familiar_name(&self) -> String {
        let full = self.name();
        if self.domain != DEFAULT_DOMAIN {
            return full;
        }
        let short = match self.path.strip_prefix(OFFICIAL_PREFIX) {
            Some(rest) if !rest.contains('/') => rest,
            _ => &self.path,
        };
        let means_the_same =
            short.parse::<Self>().is_ok_and(|r| r.domain == self.domain && r.path == self.path);
        if means_the_same { short.to_owned() } else { full }
    }

    /// The reference as Docker shows it: [`Reference::familiar_name`] with tag and digest.
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_name(), self.suffix())
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_deref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
        tag + &digest
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.domain, self.path, self.suffix())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|e: Error| e.context(shown(text)))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (domain, rest) = split_domain(rest);
        // Only the domain may have further colons, as in `host:5000/name:tag`.
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if digest.is_none() && tag.is_none() && is_image_id(text) {
            return Err(invalid(text, "is an image id, not a name"));
        }
        let path = if domain == DEFAULT_DOMAIN && !path.contains('/') {
            format!("{OFFICIAL_PREFIX}{path}")
        } else {
            path.to_owned()
        };
        check(text, domain, &path, tag)?;
        Ok(Self { domain: domain.to_owned(), path, tag: tag.map(str::to_owned), digest })
    }
}

fn split_domain(name: &str) -> (&str, &str) {
    let Some((first, rest)) = name.split_once('/') else {
        return (DEFAULT_DOMAIN, name);
    };
    let is_domain = first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|b| b.is_ascii_uppercase());
    match (is_domain, first) {
        (true, LEGACY_DOMAIN) => (DEFAULT_DOMAIN, rest),
        (true, domain) => (domain, rest),
        (false, _) => (DEFAULT_DOMAIN, name),
    }
}

fn check(text: &str, domain: &str, path: &str, tag: Option<&str>) -> Result<()> {
    if !is_domain(domain) {
        return Err(invalid(text, "has a malformed registry host"));
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        // Docker's words, which people search for.
        let path: String = path.chars().take(MAX_SHOWN).collect();
        return Err(Error::invalid_argument(format!(
            "invalid reference format: repository name ({path}) must be lowercase"
        )));
    }
    if path.len() > MAX_PATH {
        return Err(invalid(text, "has a repository name of more than 255 characters"));
    }
    if !path.split('/').all(is_path_component) {
        return Err(invalid(
            text,
            "must have a repository name of lower-case letters and digits, with '.', '_', '__' or \
             '-' between them",
        ));
    }
    match tag {
        Some(tag) if !is_tag(tag) => Err(invalid(text, TAG_RULE)),
        _ => Ok(()),
    }
}

const TAG_RULE: &str = "must have a tag of at most 128 letters, digits, '_', '.' and '-'";

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() => ("v6", port),
            _ => return false,
        },
        None => match domain.find(':') {
            Some(colon) => domain.split_at(colon),
            None => (domain, ""),
        },
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let port_is_valid = match port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    port_is_valid && host.split('.').all(is_label)
}

/// Letters and digits, with one `.`, one or two `_`, or any number of `-` between them.
fn is_path_component(component: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends_well = component.starts_with(is_alphanumeric) && component.ends_with(is_alphanumeric);
    ends_well
        && component.split(is_alphanumeric).all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
}

fn is_image_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn shown(text: &str) -> String {
    let short: String = text.chars().take(MAX_SHOWN).collect();
    format!("invalid reference format: {short:?}")
}

fn invalid(text: &str, why: &str) -> Error {
    Error::invalid_argument(format!("{} {why}", shown(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(text: &str) -> Reference {
        text.parse().unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn normalizes_as_docker_does() {
        let digest = format!("busybox@sha256:{HEX}");
        let full_digest = format!("docker.io/library/busybox@sha256:{HEX}");
        let cases = [
            ("busybox", "docker.io/library/busybox"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("docker.io/busybox", "docker.io/library/busybox"),
            ("index.docker.io/busybox:x", "docker.io/library/busybox:x"),
            ("a/b", "docker.io/a/b"),
            ("library/a/b", "docker.io/library/a/b"),
            ("localhost/a", "localhost/a"),
            ("localhost", "docker.io/library/localhost"),
            ("localhost:5000/a:5000", "localhost:5000/a:5000"),
            ("localhost:5000", "docker.io/library/localhost:5000"),
            ("host:5000/a/b:t", "host:5000/a/b:t"),
            ("example.com/a", "example.com/a"),
            ("HOST/a", "HOST/a"),
            ("127.0.0.1:5000/a", "127.0.0.1:5000/a"),
            ("[::1]/a", "[::1]/a"),
            ("[2001:db8::1]:5000/a:t", "[2001:db8::1]:5000/a:t"),
            ("a__b-c---d/f_g.h", "docker.io/a__b-c---d/f_g.h"),
            (&digest, &full_digest),
        ];
        for (text, full) in cases {
            assert_eq!(parse(text).to_string(), full, "{text}");
        }
    }

    #[test]
    fn keeps_tag_and_digest_apart() {
        let reference = parse(&format!("localhost:5000/a/b:t@sha256:{HEX}"));
        assert_eq!(reference.domain(), "localhost:5000");
        assert_eq!(reference.path(), "a/b");
        assert_eq!(reference.tag(), Some("t"));
        assert_eq!(reference.digest().map(Digest::hex), Some(HEX));
        assert_eq!(reference.canonical().to_string(), format!("localhost:5000/a/b@sha256:{HEX}"));
        assert_eq!(parse("a").canonical().to_string(), "docker.io/library/a:latest");
    }

    #[test]
    fn refuses_what_docker_refuses() {
        let long_tag = format!("a:{}", "t".repeat(129));
        let long_path = "a/".repeat(128) + "a";
        let upper_digest = format!("a@sha256:{}", HEX.to_uppercase());
        let cases = [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a:",
            "a@",
            "a:t:t",
            "a/B",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            "é",
            "a b",
            "a\n",
            "a:-t",
            "a:.t",
            "[::1/a",
            "[nothex]/a",
            "::1/a",
            "host:/a",
            "host:port/a",
            "host:99999/a",
            "host:+1/a",
            "-host.x/a",
            "http://x/a",
            "a@sha256:12",
            "a@md5:x",
            "../a.b/c",
            "a.b/../c",
            HEX,
            &long_tag,
            &long_path,
            &upper_digest,
        ];
        for text in cases {
            let result = text.parse::<Reference>();
            assert!(result.is_err(), "{text}: {result:?}");
        }
    }

    /// As Docker 28 answers: what stands before the first slash may be a host in any case.
    #[test]
    fn upper_case_is_refused_in_docker_s_words_and_only_after_the_host() {
        for (text, path) in
            [("Upper", "library/Upper"), ("upper/Case", "upper/Case"), ("UPPER/Case", "Case")]
        {
            let error = text.parse::<Reference>().unwrap_err();
            let words =
                format!("invalid reference format: repository name ({path}) must be lowercase");
            assert_eq!(error.message(), words);
        }
        assert_eq!(parse("UPPER/case").domain(), "UPPER");
    }

    #[test]
    fn familiar_form_parses_to_the_same() {
        let cases = [
            ("docker.io/library/busybox:1", "busybox:1"),
            ("docker.io/a/b", "a/b"),
            ("docker.io/library/a/b", "library/a/b"),
            ("localhost:5000/a", "localhost:5000/a"),
            ("docker.io/a.b/c", "docker.io/a.b/c"),
            ("docker.io/localhost/c", "docker.io/localhost/c"),
        ];
        for (full, familiar) in cases {
            let reference = parse(full);
            assert_eq!(reference.familiar(), familiar);
            assert_eq!(parse(familiar), reference);
        }
        let hex_name = parse(&format!("docker.io/library/{HEX}"));
        assert_eq!(parse(&hex_name.familiar()), hex_name);
    }

    #[test]
    fn with_tag_and_digest_replace_each_other() {
        let reference = parse(&format!("a@sha256:{HEX}"));
        let tagged = reference.clone().with_tag("v1").unwrap();
        assert_eq!(tagged.to_string(), "docker.io/library/a:v1");
        assert!(reference.with_tag("a/b").is_err());
        let digest: Digest = format!("sha256:{HEX}").parse().unwrap();
        assert_eq!(tagged.with_digest(digest).familiar(), format!("a@sha256:{HEX}"));
    }
}
