//! `process.apparmorProfile`, `process.selinuxLabel` and `linux.mountLabel`: what security modules
//! of the kernel know the container's programs and files by.

use std::path::{Path, PathBuf};

use berth_sys::procfs::Procfs;
use berth_types::spec;
use berth_types::{Error, Result, ResultExt};

/// Says `Y` where the kernel has AppArmor switched on.
const APPARMOR: &str = "/sys/module/apparmor/parameters/enabled";
/// Is mounted where the kernel has SELinux switched on.
const SELINUX: &str = "/sys/fs/selinux/enforce";

/// What is written where, so that the next program of the caller runs under it.
#[derive(Debug)]
pub(super) struct Label {
    field: &'static str,
    file: PathBuf,
    value: String,
}

/// Checks what `process` is labelled with.
///
/// # Errors
/// FailedPrecondition when the kernel has no such security module.
pub(super) fn check(process: &spec::Process) -> Result<Vec<Label>> {
    let said = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    let mut labels = Vec::new();
    // `unconfined` is what there is without a profile.
    let profile = said(&process.apparmor_profile).filter(|profile| profile != "unconfined");
    if let Some(profile) = profile {
        let field = "process.apparmorProfile";
        let enabled = std::fs::read_to_string(APPARMOR).is_ok_and(|text| text.trim() == "Y");
        require(enabled, field, "AppArmor")?;
        let value = format!("exec {profile}");
        labels.push(Label { field, file: attribute("apparmor/exec", "exec"), value });
    }
    if let Some(value) = said(&process.selinux_label) {
        let field = "process.selinuxLabel";
        require_selinux(field)?;
        labels.push(Label { field, file: PathBuf::from("thread-self/attr/exec"), value });
    }
    Ok(labels)
}

/// Checks `linux.mountLabel`: the option that a new filesystem is mounted with.
///
/// # Errors
/// FailedPrecondition when the kernel has no SELinux.
pub(super) fn mount_option(label: Option<&str>) -> Result<Option<String>> {
    let Some(label) = label.filter(|label| !label.is_empty()) else { return Ok(None) };
    require_selinux("linux.mountLabel")?;
    Ok(Some(format!("context={label}")))
}

fn require_selinux(field: &str) -> Result<()> {
    require(Path::new(SELINUX).exists(), field, "SELinux")
}

fn require(has: bool, field: &str, module: &str) -> Result<()> {
    match has {
        true => Ok(()),
        false => Err(Error::failed_precondition(format!(
            "{field}: this kernel has no {module}, or it is switched off: leave the field out"
        ))),
    }
}

/// AppArmor's own file, where the kernel has one (Linux 5.8); the shared one is whose module comes
/// first.
fn attribute(own: &str, shared: &str) -> PathBuf {
    let directory = Path::new("thread-self/attr");
    match Path::new("/proc").join(directory).join(own).exists() {
        true => directory.join(own),
        false => directory.join(shared),
    }
}

impl Label {
    /// Has the caller's next program run under it.
    pub(super) fn apply(&self, procfs: &Procfs) -> Result<()> {
        procfs
            .write(&self.file, self.value.as_bytes())
            .context(|| format!("set {} to {:?}", self.field, self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::Kind;

    #[test]
    fn a_missing_security_module_is_told() {
        let process = |json: &str| serde_json::from_str(json).unwrap();
        assert!(check(&process(r#"{"apparmorProfile":"unconfined"}"#)).unwrap().is_empty());
        if !Path::new(SELINUX).exists() {
            let error = check(&process(r#"{"selinuxLabel":"a:b:c:s0"}"#)).unwrap_err();
            assert_eq!(error.kind(), Kind::FailedPrecondition);
            assert!(error.message().contains("process.selinuxLabel"), "{error}");
            assert!(mount_option(Some("a:b:c:s0")).is_err());
        }
        assert!(mount_option(None).unwrap().is_none());
    }
}
