//! Registries as the daemon's configuration says: private authorities, passwords, tokens.

use std::fs;

use berth_tests::{Access, Engine, Finished, Image, Registry, USER};

/// A started daemon with `settings` for `registry`.
fn configured(engine: &mut Engine, registry: &Registry, settings: &str) {
    engine.stop_daemon(nix::sys::signal::Signal::SIGTERM);
    engine.configure(&format!("[registries.\"{}\"]\n{settings}\n", registry.host()));
    engine.start_daemon();
}

/// Settings of a user with `password`.
fn login(engine: &Engine, password: &str) -> String {
    let file = engine.path("password");
    fs::write(&file, format!("{password}\n")).unwrap();
    format!("username = \"{}\"\npassword_file = \"{}\"", USER.0, file.display())
}

/// Pulls `name` in vain, after which there is nothing of it.
fn refused(engine: &Engine, name: &str) -> Finished {
    let pull = engine.cli(&["pull", name]).exited(1);
    assert_eq!(engine.cli(&["images", "-q"]).success().stdout, "");
    assert_eq!(engine.ctr(&["content", "ls", "-q"]).success().stdout, "");
    pull
}

fn works(engine: &Engine, name: &str) {
    engine.cli(&["pull", name]).success();
    assert_eq!(engine.cli(&["run", "--rm", name, "echo", "x"]).success().stdout, "x\n");
}

#[test]
fn cli_registries_with_a_private_authority_need_it() {
    let Some(mut engine) = Engine::prepare() else { return };
    let registry = Registry::with(true, Access::Anyone);
    let other = Registry::with(true, Access::Anyone);
    registry.push(&Image::busybox("box"));
    let name = registry.reference("box");
    let trusting = |of: &Registry| format!("ca = [\"{}\"]", of.authority().display());
    configured(&mut engine, &registry, &trusting(&other));
    refused(&engine, &name).complains("not signed by a trusted authority");
    configured(&mut engine, &registry, "ca = [\"/nowhere/ca.crt\"]");
    refused(&engine, &name).complains("/nowhere/ca.crt");
    configured(&mut engine, &registry, &trusting(&registry));
    works(&engine, &name);
}

#[test]
fn cli_registries_on_loopback_need_no_authority() {
    let Some(engine) = Engine::berth() else { return };
    let registry = Registry::with(true, Access::Anyone);
    registry.push(&Image::busybox("box"));
    works(&engine, &registry.reference("box"));
}

/// With the right password only, at a registry that asks for it in its way.
fn asks_for_the_password(tls: bool, access: Access) {
    let Some(mut engine) = Engine::prepare() else { return };
    let registry = Registry::with(tls, access);
    registry.push(&Image::busybox("team/box:1"));
    let name = registry.reference("team/box:1");
    configured(&mut engine, &registry, "");
    refused(&engine, &name).complains("password_file under [registries.\"HOST\"]");
    let wrong = login(&engine, "wrong");
    configured(&mut engine, &registry, &wrong);
    refused(&engine, &name).complains("401 Unauthorized");
    let right = login(&engine, USER.1);
    configured(&mut engine, &registry, &right);
    works(&engine, &name);
}

#[test]
fn cli_registries_with_passwords_take_the_configured_one() {
    asks_for_the_password(true, Access::Password);
}

#[test]
fn cli_registries_with_passwords_take_it_over_plain_http_on_loopback() {
    asks_for_the_password(false, Access::Password);
}

#[test]
fn cli_registries_with_tokens_take_the_configured_password() {
    asks_for_the_password(false, Access::Token);
}

#[test]
fn cli_registries_over_plain_http_are_not_asked_for_tls() {
    let Some(mut engine) = Engine::prepare() else { return };
    let registry = Registry::with(true, Access::Anyone);
    registry.push(&Image::busybox("box"));
    configured(&mut engine, &registry, "plain_http = true");
    refused(&engine, &registry.reference("box")).complains("400 Bad Request");
    let registry = Registry::start();
    registry.push(&Image::busybox("box"));
    configured(&mut engine, &registry, "plain_http = true");
    works(&engine, &registry.reference("box"));
}

#[test]
fn cli_registries_have_mirrors() {
    let Some(mut engine) = Engine::prepare() else { return };
    let (mut registry, mirror) = (Registry::start(), Registry::start());
    mirror.push(&Image::busybox("box"));
    let name = registry.reference("box");
    let place = engine.path("certs.d").join(registry.host());
    fs::create_dir_all(&place).unwrap();
    let hosts =
        format!("[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n", mirror.host());
    fs::write(place.join("hosts.toml"), hosts).unwrap();
    engine.configure(&format!("[registry]\nconfig_path = {:?}\n", engine.path("certs.d")));
    engine.start_daemon();
    registry.stop();
    works(&engine, &name);
    assert!(mirror.blob_fetches() > 0);
}

#[test]
fn cli_registries_take_the_logins_of_docker_and_its_helpers() {
    use std::os::unix::fs::PermissionsExt;
    let Some(mut engine) = Engine::prepare() else { return };
    let registry = Registry::with(false, Access::Password);
    registry.push(&Image::busybox("box"));
    let name = registry.reference("box");
    let programs = engine.path("programs");
    fs::create_dir(&programs).unwrap();
    let helper = programs.join("docker-credential-tests");
    // The protocol: the server on standard input, a document or words on standard output.
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = get ] && [ \"$(cat)\" = {} ] || {{\n  \
         echo credentials not found in native keychain; exit 1\n}}\n\
         echo '{{\"ServerURL\":\"x\",\"Username\":\"{}\",\"Secret\":\"{}\"}}'\n",
        registry.host(),
        USER.0,
        USER.1
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let file = engine.path("config.json");
    fs::write(&file, "{}").unwrap();
    engine.configure(&format!("[registry]\ndocker_config = {file:?}\n"));
    engine.add_to_path(programs);
    engine.start_daemon();
    refused(&engine, &name).complains("log in");
    fs::write(&file, r#"{"credsStore": "none-there"}"#).unwrap();
    refused(&engine, &name).complains("docker-credential-none-there");
    fs::write(&file, r#"{"credsStore": "tests"}"#).unwrap();
    works(&engine, &name);
}
