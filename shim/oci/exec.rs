//! `exec`: a further process in a running container.

use std::fs;
use std::path::PathBuf;

use berth_sys::cgroup::Below;
use berth_types::spec::{Process, User};
use berth_types::{Error, Result, ResultExt};
use containerd_shim_berth_v1::container::{self, ExecOptions, Io};

use crate::record::{Records, Status};
use crate::{birth, foreground, streams, terminal};

/// Runs a process.
#[derive(Debug, clap::Args)]
pub(crate) struct Exec {
    /// A document that describes the process, in place of the flags and the command
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Its working directory
    #[arg(long)]
    cwd: Option<String>,
    /// A variable, NAME=VALUE
    #[arg(short, long)]
    env: Vec<String>,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Its user, UID or UID:GID
    #[arg(short, long)]
    user: Option<String>,
    /// A further group
    #[arg(short = 'g', long)]
    additional_gids: Vec<u32>,
    /// A further capability
    #[arg(short, long)]
    cap: Vec<String>,
    /// It can't gain rights by executing a file
    #[arg(long)]
    no_new_privs: bool,
    /// An AppArmor profile
    #[arg(long)]
    apparmor: Option<String>,
    /// An SELinux label
    #[arg(long)]
    process_label: Option<String>,
    /// A socket that takes the terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Write the process id there
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Don't wait for the end
    #[arg(short, long)]
    detach: bool,
    /// How many descriptors the process keeps, from 3 on
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) preserve_fds: u32,
    /// In a paused container, wait until it is resumed
    #[arg(long)]
    ignore_paused: bool,
    /// Run it in a control group below the container's, which must be there
    #[arg(long, value_name = "[CONTROLLER,…:]PATH")]
    cgroup: Vec<String>,
    /// The container's id
    id: String,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    /// The status of the process; 0 when it is not waited for.
    ///
    /// # Errors
    /// NotFound without such a container, FailedPrecondition when it doesn't run, InvalidArgument
    /// for a process that can't be.
    pub(crate) async fn run(self, records: &Records) -> Result<u8> {
        self.run_process(records).await.context(|| "exec failed")
    }

    async fn run_process(self, records: &Records) -> Result<u8> {
        let found = records.find(&self.id)?;
        if found.status()? == Status::Stopped {
            return Err(Error::failed_precondition("cannot exec in a stopped container"));
        }
        let below = Below::parse(&self.cgroup)?;
        let mut process = self.described(found.spec()?.process.unwrap_or_default())?;
        let sockets = streams::handed_in();
        streams::announce(sockets, &mut process.env);
        terminal::check(process.terminal, self.console_socket.as_deref(), self.detach)?;
        let io = if process.terminal { Io::Terminal } else { streams::inherited()? };
        let container = found.container()?;
        let options = ExecOptions {
            preserved_fds: sockets + self.preserve_fds,
            ignore_paused: self.ignore_paused,
            below,
        };
        // Before there is a process whose end a signal could be meant for.
        let attendant = (!self.detach).then(foreground::Attendant::new).transpose()?;
        let mut child = container.exec_with(&process, io, options).await?;
        let master = terminal::hand_over(child.terminal.take(), self.console_socket.as_deref())?;
        if let Some(path) = &self.pid_file {
            birth::write_pid(path, child.pid)?;
        }
        match attendant {
            Some(attendant) => attendant.with_terminal(master).attend(&child).await,
            None => Ok(0),
        }
    }

    /// The process: by the document, or as the container's first but for what the flags say.
    fn described(&self, first: Process) -> Result<Process> {
        if let Some(path) = &self.process {
            let what = || format!("read the process in {}", path.display());
            let text = fs::read(path).context(what)?;
            return container::parse(&text).context(what);
        }
        let mut process = Process { args: self.command.clone(), terminal: self.tty, ..first };
        process.console_size = None;
        process.env.extend(self.env.iter().cloned());
        if let Some(directory) = &self.cwd {
            process.cwd.clone_from(directory);
        }
        if let Some(user) = &self.user {
            process.user = numbers(user, &process.user)?;
        }
        process.user.additional_gids.extend(&self.additional_gids);
        let capabilities = process.capabilities.get_or_insert_default();
        for name in &self.cap {
            for set in [
                &mut capabilities.bounding,
                &mut capabilities.effective,
                &mut capabilities.permitted,
            ] {
                set.push(name.clone());
            }
        }
        process.no_new_privileges |= self.no_new_privs;
        process.apparmor_profile = self.apparmor.clone().or(process.apparmor_profile);
        process.selinux_label = self.process_label.clone().or(process.selinux_label);
        Ok(process)
    }
}

/// `uid` or `uid:gid` over `user`.
fn numbers(text: &str, user: &User) -> Result<User> {
    let number = |text: &str| {
        text.parse().map_err(|_| {
            Error::invalid_argument(format!("--user {text:?}: give numbers, UID or UID:GID"))
        })
    };
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (number(uid)?, number(gid)?),
        None => (number(text)?, user.gid),
    };
    Ok(User { uid, gid, username: None, ..user.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        let user = User { uid: 1, gid: 2, additional_gids: vec![3], ..User::default() };
        let only = numbers("5", &user).unwrap();
        assert_eq!((only.uid, only.gid, only.additional_gids), (5, 2, vec![3]));
        assert_eq!(numbers("5:6", &user).unwrap().gid, 6);
        assert!(numbers("app", &user).is_err());
    }
}
