//! A token server: it gives who knows the password a token that Debian's docker-registry accepts
//! (<https://distribution.github.io/distribution/spec/auth/jwt/>).

use std::io::{self, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::gate::read_head;
use crate::process::Finished;
use crate::registry::USER;

/// The name of both the server and the registry in tokens.
const NAME: &str = "tests";

/// The server. It stands as long as the test's process.
pub(crate) struct Tokens {
    port: u16,
    signer: Arc<Signer>,
}

/// What tokens are signed with: a key and its certificate, `server.key` and `server.crt`.
struct Signer(PathBuf);

impl Tokens {
    /// A server whose key is in `directory`.
    pub(crate) fn start(directory: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let signer = Arc::new(Signer(directory.to_owned()));
        let inside = signer.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Clients may leave early.
                let _ = inside.answer(client);
            }
        });
        Self { port, signer }
    }

    /// The registry's configuration that lets it trust this server.
    pub(crate) fn registry_configuration(&self) -> String {
        format!(
            "auth:\n  token:\n    realm: http://127.0.0.1:{}/token\n    service: {NAME}\n    \
             issuer: {NAME}\n    rootcertbundle: {}/ca.crt\n",
            self.port,
            self.signer.0.display()
        )
    }

    /// A token for all of the repository `name`.
    pub(crate) fn for_pushing(&self, name: &str) -> String {
        self.signer.token(name, &["pull", "push"])
    }
}

impl Signer {
    fn answer(&self, mut client: TcpStream) -> io::Result<()> {
        let head = read_head(&mut BufReader::new(client.try_clone()?))?;
        let (status, body) = match self.known(&head) {
            true => {
                let scope =
                    head.split(['?', '&', ' ']).find_map(|word| word.strip_prefix("scope="));
                let scope = scope.unwrap_or_default().replace("%3A", ":").replace("%2F", "/");
                let scope = scope.replace("%2C", ",");
                let mut parts = scope.split(':').skip(1);
                let name = parts.next().unwrap_or_default();
                let actions: Vec<&str> = parts.next().unwrap_or_default().split(',').collect();
                ("200 OK", json!({ "token": self.token(name, &actions) }))
            }
            false => {
                let error = json!({ "code": "UNAUTHORIZED", "message": "wrong password" });
                ("401 Unauthorized", json!({ "errors": [error] }))
            }
        };
        let body = body.to_string();
        let length = body.len();
        write!(
            client,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
    }

    /// Whether a request has the right name and password.
    fn known(&self, head: &str) -> bool {
        let script = r#"printf %s "$1" | openssl base64 -d -A"#;
        head.lines().any(|line| {
            let Some((name, value)) = line.split_once(": Basic ") else { return false };
            let decoded = Finished::run("sh", &["-c", script, "sh", value], b"").success();
            let (user, password) = USER;
            name.eq_ignore_ascii_case("authorization")
                && decoded.stdout == format!("{user}:{password}")
        })
    }

    fn token(&self, name: &str, actions: &[&str]) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
        let access = json!({ "type": "repository", "name": name, "actions": actions });
        let claims = json!({
            "iss": NAME, "aud": NAME, "sub": USER.0, "jti": now.to_string(),
            "iat": now, "nbf": now - 60, "exp": now + 600, "access": [access],
        });
        let script = r#"
            set -e; cd "$1"
            safe() { openssl base64 -A | tr '+/' '-_' | tr -d =; }
            certificate=$(openssl x509 -in server.crt -outform DER | openssl base64 -A)
            head=$(printf '{"typ":"JWT","alg":"RS256","x5c":["%s"]}' "$certificate" | safe)
            text="$head.$(printf %s "$2" | safe)"
            printf '%s.%s' "$text" \
                "$(printf %s "$text" | openssl dgst -sha256 -sign server.key -binary | safe)"
        "#;
        let directory = self.0.to_str().expect("a path");
        let args = ["-c", script, "sh", directory, &claims.to_string()];
        Finished::run("sh", &args, b"").success().stdout
    }
}
