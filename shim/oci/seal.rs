//! Keeping this program's file out of the reach of containers.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;

use berth_sys::exec;
use berth_types::{Result, ResultExt};

/// Runs this program again through a descriptor that can't be written, if it isn't run so yet: a
/// container whose command is `/proc/self/exe` would have a way to the file (CVE-2019-5736).
///
/// # Errors
/// When that can't be done.
pub(crate) fn seal() -> Result<()> {
    match exec::is_sealed().context(|| "look at the running program")? {
        // Executed through a descriptor, it is called by that one's number until now.
        true => rustix::thread::set_name(c"berth-oci")
            .map_err(std::io::Error::from)
            .context(|| "name the process"),
        false => run_again().map(|never| match never {}),
    }
}

fn run_again() -> Result<Infallible> {
    let what = || "run this program where it can't be written";
    let program = std::env::current_exe().context(what)?;
    let sealed = exec::sealed(&program).context(what)?;
    let path = CString::new(format!("/proc/self/fd/{}", sealed.as_raw_fd()));
    let path = path.map_err(std::io::Error::from).context(what)?;
    let strings = |list: Vec<std::ffi::OsString>| -> Vec<CString> {
        list.into_iter().filter_map(|item| CString::new(item.into_vec()).ok()).collect()
    };
    let environment = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    let (arguments, environment) =
        (strings(std::env::args_os().collect()), strings(environment.collect()));
    exec::execve(&path, &arguments, &environment).context(what)
}
