//! Credentials that `docker login` keeps: in its `config.json`, or with a helper program
//! (<https://docs.docker.com/reference/cli/docker/login/#credential-helper-protocol>).

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use berth_types::{Error, Result, ResultExt};
use serde::Deserialize;

use crate::config::Credentials;

/// How Docker calls its own registry.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// How long a helper may take: it may ask a keychain that is locked.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(5);
/// In place of a name, it says that the secret is an identity token.
const TOKEN: &str = "<token>";

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct File {
    auths: HashMap<String, Login>,
    creds_store: String,
    cred_helpers: HashMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Login {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// What `docker login` keeps for the registry `domain`, in `path` or where that says. Anyone when
/// there is nothing.
///
/// # Errors
/// Those of reading; `FailedPrecondition` for what can't be understood and for a helper that
/// fails.
pub(crate) async fn credentials(path: PathBuf, domain: String) -> Result<Credentials> {
    let found = tokio::task::spawn_blocking(move || look_up(&path, &domain));
    found.await.map_err(|error| Error::internal(format!("look for a login: {error}")))?
}

fn look_up(path: &Path, domain: &str) -> Result<Credentials> {
    let what = || format!("read {}", path.display());
    let text = match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Credentials::Anonymous);
        }
        text => text.context(what)?,
    };
    let malformed = |why: &dyn std::fmt::Display| {
        Error::failed_precondition(format!("{}: {why}: log in anew with docker login", what()))
    };
    let mut file: File = serde_json::from_slice(&text).map_err(|error| malformed(&error))?;
    let server = if domain == "docker.io" { DOCKER_HUB } else { domain };
    let helper = file.cred_helpers.remove(server).unwrap_or(file.creds_store);
    if !helper.is_empty() {
        return ask(&helper, server);
    }
    let login = file.auths.into_iter().find(|(key, _)| key == server || host_of(key) == domain);
    let Some((_, login)) = login else { return Ok(Credentials::Anonymous) };
    login.credentials().ok_or_else(|| malformed(&format!("the login for {server} is damaged")))
}

/// The host of a key, which older releases of Docker wrote as a URL.
fn host_of(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    match rest.split('/').next().unwrap_or_default() {
        "index.docker.io" => "docker.io",
        host => host,
    }
}

impl Login {
    fn credentials(self) -> Option<Credentials> {
        if !self.identitytoken.is_empty() {
            return Some(Credentials::IdentityToken(self.identitytoken));
        }
        let (username, password) = match self.auth.as_str() {
            "" => (self.username, self.password),
            auth => {
                let text = String::from_utf8(BASE64.decode(auth).ok()?).ok()?;
                let (username, password) = text.split_once(':')?;
                // Old releases padded it.
                (username.to_owned(), password.trim_end_matches('\0').to_owned())
            }
        };
        match username.is_empty() {
            true => Some(Credentials::Anonymous),
            false => Some(Credentials::Password { username, password }),
        }
    }
}

/// Asks the helper for a login.
fn ask(helper: &str, server: &str) -> Result<Credentials> {
    let program = format!("docker-credential-{helper}");
    let failed = |why: &str| {
        Error::failed_precondition(format!(
            "{program}, which keeps the login of {server}, failed: {}",
            why.trim()
        ))
    };
    if helper.contains('/') {
        return Err(failed("that is no name of a helper"));
    }
    let (code, output) = run(&program, server).map_err(|error| failed(&error.to_string()))?;
    if !code {
        return match output.contains("credentials not found") {
            true => Ok(Credentials::Anonymous),
            false => Err(failed(&output)),
        };
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let answer: Answer =
        serde_json::from_str(&output).map_err(|_| failed("its answer is not understood"))?;
    Ok(match answer.username.as_str() {
        TOKEN => Credentials::IdentityToken(answer.secret),
        _ => Credentials::Password { username: answer.username, password: answer.secret },
    })
}

/// Runs `program get` with `input`; says whether it succeeded, and its output.
fn run(program: &str, input: &str) -> std::io::Result<(bool, String)> {
    // A file, because a helper may leave processes that keep a pipe open.
    let mut output = scratch()?;
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(output.try_clone()?)
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may end without reading.
        let _ = stdin.write_all(input.as_bytes());
    }
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if began.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(PAUSE);
    };
    let mut text = String::new();
    output.rewind()?;
    output.take(1 << 20).read_to_string(&mut text)?;
    Ok((status.success(), text))
}

fn scratch() -> std::io::Result<fs::File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    Ok(rustix::fs::memfd_create("credentials", flags)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(config: &str, domain: &str) -> Result<Credentials> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), config).unwrap();
        look_up(file.path(), domain)
    }

    fn password(username: &str, password: &str) -> Credentials {
        Credentials::Password { username: username.into(), password: password.into() }
    }

    #[test]
    fn logins_are_found_as_docker_writes_them() {
        let config = r#"{ "auths": {
            "https://index.docker.io/v1/": { "auth": "dTpwOjE=" },
            "r.example.com:5000": { "identitytoken": "t" },
            "https://old.example.com/v1/": { "username": "a", "password": "b" },
            "empty.example.com": {},
            "broken.example.com": { "auth": "!" }
        } }"#;
        assert!(found(config, "docker.io").unwrap() == password("u", "p:1"));
        let token = found(config, "r.example.com:5000").unwrap();
        assert!(token == Credentials::IdentityToken("t".into()));
        assert!(found(config, "old.example.com").unwrap() == password("a", "b"));
        for nobody in ["empty.example.com", "other.example.com", "r.example.com"] {
            assert!(found(config, nobody).unwrap() == Credentials::Anonymous, "{nobody}");
        }
        assert!(found(config, "broken.example.com").is_err());
        assert!(found("{", "docker.io").is_err());
        let absent = look_up(Path::new("/nowhere/config.json"), "docker.io").unwrap();
        assert!(absent == Credentials::Anonymous);
    }

    #[test]
    fn a_helper_must_be_there_and_be_a_name() {
        for helper in ["berth-nowhere", "../../bin/sh"] {
            let config = format!(r#"{{ "credHelpers": {{ "r.example.com": "{helper}" }} }}"#);
            let error = found(&config, "r.example.com").unwrap_err();
            assert!(error.message().contains(helper), "{error}");
            assert!(found(&config, "other.example.com").unwrap() == Credentials::Anonymous);
        }
    }
}
