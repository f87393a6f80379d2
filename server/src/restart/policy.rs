//! What a container's labels ask for.

use std::collections::HashMap;

/// The state that the container is to be in; without this label it is left alone.
pub(super) const STATUS: &str = "containerd.io/restart.status";
/// When it is to run again: `always`, `on-failure[:MOST]`, `unless-stopped` or `no`.
const POLICY: &str = "containerd.io/restart.policy";
/// How often it was started again.
pub(super) const COUNT: &str = "containerd.io/restart.count";
/// `true` once somebody has stopped it on purpose.
const EXPLICITLY_STOPPED: &str = "containerd.io/restart.explicitly-stopped";
/// Where its output goes: a URI that shims understand.
const LOG_URI: &str = "containerd.io/restart.loguri";
/// The same, of old: a file.
const LOG_PATH: &str = "containerd.io/restart.logpath";

/// What a container with these labels is to do.
pub(super) struct Wish<'a>(pub(super) &'a HashMap<String, String>);

impl Wish<'_> {
    fn label(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Whether it is to run.
    pub(super) fn runs(&self) -> bool {
        self.label(STATUS) == "running"
    }

    /// Whether it is to be stopped.
    pub(super) fn stops(&self) -> bool {
        self.label(STATUS) == "stopped"
    }

    /// Whether it is to be started again after it ended with `code`. A policy that is not
    /// understood starts nothing.
    pub(super) fn again(&self, code: u32) -> bool {
        let (policy, most) = match self.label(POLICY).split_once(':') {
            Some((policy, most)) => (policy, most.parse::<u32>().ok()),
            None => (self.label(POLICY), Some(0)),
        };
        match (policy, most) {
            ("" | "always", Some(0)) => true,
            ("unless-stopped", Some(0)) => self.label(EXPLICITLY_STOPPED) != "true",
            ("on-failure", Some(0)) => code != 0,
            ("on-failure", Some(most)) => code != 0 && self.count() < most,
            _ => false,
        }
    }

    /// How often it was started again.
    pub(super) fn count(&self) -> u32 {
        self.label(COUNT).parse().unwrap_or(0)
    }

    /// Where its output goes; empty for nowhere.
    pub(super) fn output(&self) -> String {
        match (self.label(LOG_URI), self.label(LOG_PATH)) {
            ("", "") => String::new(),
            ("", path) => format!("file://{path}"),
            (uri, _) => uri.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(entries: &[(&str, &str)], code: u32) -> bool {
        let labels = entries.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Wish(&labels).again(code)
    }

    #[test]
    fn policies_are_containerds() {
        let of = |policy, code| again(&[(POLICY, policy)], code);
        assert!(again(&[], 0) && of("always", 0) && of("always", 1));
        assert!(of("on-failure", 1) && !of("on-failure", 0));
        assert!(!of("no", 1) && !of("sometimes", 1) && !of("always:3", 1));
        let counted = |count| again(&[(POLICY, "on-failure:2"), (COUNT, count)], 1);
        assert!(counted("") && counted("1") && !counted("2"));
        assert!(!of("on-failure:", 1) && !of("on-failure:x", 1));
        let stopped = |word| again(&[(POLICY, "unless-stopped"), (EXPLICITLY_STOPPED, word)], 1);
        assert!(stopped("") && stopped("false") && !stopped("true"));
    }

    #[test]
    fn output_goes_to_a_uri() {
        let output =
            |name: &str, value: &str| Wish(&[(name.to_owned(), value.to_owned())].into()).output();
        assert_eq!(output(LOG_PATH, "/a/b"), "file:///a/b");
        assert_eq!(output(LOG_URI, "binary:///c"), "binary:///c");
        assert_eq!(output("other", "x"), "");
    }
}
