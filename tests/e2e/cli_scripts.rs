//! What scripts rely on: fields of `inspect`, formats and filters of lists, files of variables, and
//! `restart`, `pause`, `unpause`, `rename` and `top`.

use std::fs;

use berth_tests::{Engine, Image, wait_until};
use serde_json::{Value, json};

const IMAGE: &str = "docker.io/library/busybox:latest";
const BUSYBOX: &str = "busybox";

fn engine() -> Option<Engine> {
    let engine = Engine::berth()?;
    engine.import(&Image::busybox(IMAGE));
    Some(engine)
}

/// Runs a shell in the background.
fn background(engine: &Engine, name: &str, script: &str) -> String {
    let run = engine.cli(&["run", "-d", "--name", name, BUSYBOX, "sh", "-c", script]);
    run.success().line().to_owned()
}

fn inspect(engine: &Engine, object: &str) -> Value {
    let text = engine.cli(&["inspect", object]).success().stdout;
    let mut all: Vec<Value> = serde_json::from_str(&text).unwrap();
    all.remove(0)
}

/// A field, as a template prints it.
#[track_caller]
fn field(engine: &Engine, template: &str, object: &str) -> String {
    engine.cli(&["inspect", "-f", template, object]).success().line().to_owned()
}

#[test]
fn cli_inspect_has_dockers_shape() {
    let Some(engine) = engine() else { return };
    let there = engine.path("there");
    let bind = format!("{}:/mnt:ro", there.display());
    let flags = ["-e", "A=b", "-l", "x=y", "-v", &bind, "-u", "5", "-w", "/tmp", "-h", "box"];
    let run = [&["run", "-d", "--name", "one"], &flags[..], &[BUSYBOX, "sleep", "1000"]].concat();
    engine.cli(&run).success();
    let one = inspect(&engine, "one");
    assert_eq!(one["Name"], "/one");
    assert_eq!(one["Image"], inspect(&engine, BUSYBOX)["Id"]);
    assert!(one["Image"].as_str().unwrap().starts_with("sha256:"), "{}", one["Image"]);
    let config = &one["Config"];
    let env: Vec<_> = config["Env"].as_array().unwrap().iter().collect();
    assert!(env.contains(&&json!("FLAVOUR=busybox")) && env.contains(&&json!("A=b")), "{env:?}");
    assert_eq!(config["Cmd"], json!(["sleep", "1000"]));
    for (field, value) in
        [("User", "5"), ("WorkingDir", "/tmp"), ("Hostname", "box"), ("Image", BUSYBOX)]
    {
        assert_eq!(config[field], value, "{config}");
    }
    assert_eq!(config["Labels"]["x"], "y");
    let mount = &one["Mounts"][0];
    assert_eq!((&mount["Destination"], &mount["RW"]), (&json!("/mnt"), &json!(false)));
    assert_eq!(one["NetworkSettings"]["Networks"]["none"]["IPAddress"], "");
    assert_eq!((&one["RestartCount"], &one["State"]["Error"]), (&json!(0), &json!("")));
    assert_eq!(one["State"]["Running"], true);
    assert!(one["State"]["StartedAt"].as_str() >= one["Created"].as_str(), "{}", one["State"]);
    // What the image says is known while it is there.
    engine.cli(&["kill", "one"]).success();
    engine.cli(&["rmi", "-f", BUSYBOX]).success();
    assert_eq!(inspect(&engine, "one")["Config"]["Cmd"], json!(["sleep", "1000"]));
    engine.cli(&["rm", "one"]).success();
}

#[test]
fn cli_formats_are_gos_templates() {
    let Some(engine) = engine() else { return };
    let id = background(&engine, "one", "sleep 1000");
    assert_eq!(field(&engine, "{{.State.Status}}", "one"), "running");
    assert_eq!(field(&engine, "{{json .Config.Cmd}}", "one"), r#"["sh","-c","sleep 1000"]"#);
    assert_eq!(field(&engine, "{{range .Args}}<{{.}}>{{end}}", "one"), "<-c><sleep 1000>");
    assert_eq!(field(&engine, "{{index .Config.Labels \"no\"}}", "one"), "");
    let wrong = engine.cli(&["inspect", "-f", "{{.Nosuch}}", "one"]).exited(1);
    wrong.complains("Nosuch");
    engine.cli(&["inspect", "-f", "{{.State", "one"]).exited(125).complains("--format");
    let some = engine.cli(&["inspect", "-f", "{{.Name}}", "one", "nobody"]).exited(1);
    assert_eq!(some.line(), "/one");
    some.complains("No such object: nobody");

    let ps = |format: &str| engine.cli(&["ps", "--format", format]).success().stdout;
    assert_eq!(ps("{{.ID}} {{.Names}} {{.State}}"), format!("{} one running\n", &id[..12]));
    assert_eq!(ps(r"table {{.Names}}\t{{.Image}}"), "NAMES   IMAGE\none     busybox\n");
    let images = engine.cli(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).success().stdout;
    assert_eq!(images, "busybox:latest\n");
    let version = engine.cli(&["version", "-f", "{{.Server.Os}}"]).success().stdout;
    assert_eq!(version, "linux\n");
    engine.cli(&["rm", "-fv", "one"]).success();
}

#[test]
fn cli_lists_are_filtered() {
    let Some(engine) = engine() else { return };
    let web = background(&engine, "web", "sleep 1000");
    engine.cli(&["run", "--name", "job", "-l", "kind=batch", BUSYBOX, "false"]).exited(1);
    engine.cli(&["create", "--name", "new", BUSYBOX, "true"]).success();
    let names = |flags: &[&str]| {
        let all = [&["ps", "--format", "{{.Names}}"], flags].concat();
        engine.cli(&all).success().stdout.replace('\n', " ").trim().to_owned()
    };
    assert_eq!(names(&[]), "web");
    assert_eq!(names(&["-a"]), "new job web");
    let cases: [(&[&str], &str); 10] = [
        (&["-f", "status=exited"], "job"),
        (&["-f", "status=exited", "-f", "status=created"], "new job"),
        (&["-af", "name=^/?job$"], "job"),
        (&["-a", "--filter", "label=kind"], "job"),
        (&["-a", "--filter=label=kind=other"], ""),
        (&["-a", "-f", "exited=1"], "job"),
        (&["-a", "-f", "ancestor=busybox", "-f", "name=e"], "new web"),
        (&["-a", "-f", "ancestor=nosuch"], ""),
        (&["-l"], "new"),
        (&["-n2"], "new job"),
    ];
    for (flags, expected) in cases {
        assert_eq!(names(flags), expected, "{flags:?}");
    }
    let id = format!("id={}", &web[..12]);
    assert_eq!(engine.cli(&["ps", "-qf", &id, "--no-trunc"]).success().line(), web);
    engine.cli(&["ps", "-f", "nosuch=x"]).exited(125).complains("there are filters by name");
    let all = engine.cli(&["ps", "-aq"]).success().stdout;
    let remove: Vec<_> = ["rm", "-f"].into_iter().chain(all.lines()).collect();
    engine.cli(&remove).success();
}

#[test]
fn cli_variables_come_from_files() {
    let Some(engine) = engine() else { return };
    let file = engine.path("variables");
    fs::write(&file, "# none\nA=1\nB=two words\nPATH_IS_NOT_HERE\n").unwrap();
    let file = file.to_str().unwrap();
    let args = ["run", "--rm", "--env-file", file, "-eA=2", BUSYBOX, "sh", "-c", "echo $A $B"];
    assert_eq!(engine.cli(&args).success().line(), "2 two words");
    background(&engine, "one", "sleep 1000");
    let exec = engine.cli(&["exec", "--env-file", file, "one", "sh", "-c", "echo $A"]);
    assert_eq!(exec.success().line(), "1");
    let missing = engine.cli(&["run", "--rm", "--env-file", "/nowhere", BUSYBOX, "true"]);
    missing.exited(125).complains("/nowhere");
    engine.cli(&["rm", "-f", "one"]).success();
}

#[test]
fn cli_containers_are_paused_and_go_on() {
    let Some(engine) = engine() else { return };
    background(&engine, "one", "sleep 1000");
    assert_eq!(engine.cli(&["pause", "one"]).success().line(), "one");
    assert_eq!(field(&engine, "{{.State.Status}} {{.State.Paused}}", "one"), "paused true");
    engine.cli(&["pause", "one"]).exited(1).complains("Container one is already paused");
    assert_eq!(engine.cli(&["unpause", "one"]).success().line(), "one");
    engine.cli(&["unpause", "one"]).exited(1).complains("Container one is not paused");
    assert_eq!(engine.cli(&["exec", "one", "echo", "x"]).success().line(), "x");
    engine.cli(&["kill", "one"]).success();
    engine.cli(&["pause", "one"]).exited(1).complains("is not running");
    engine.cli(&["pause", "nobody"]).exited(1).complains("No such container: nobody");
    engine.cli(&["rm", "one"]).success();
}

#[test]
fn cli_containers_are_renamed() {
    let Some(engine) = engine() else { return };
    let id = background(&engine, "one", "sleep 1000");
    background(&engine, "other", "sleep 1000");
    engine.cli(&["rename", "one", "other"]).exited(1).complains("is already in use");
    engine.cli(&["rename", "one", "one"]).exited(1).complains("same name");
    engine.cli(&["rename", "one", "a b"]).exited(1).complains("Invalid container name");
    engine.cli(&["rename", "nobody", "x"]).exited(1).complains("No such container: nobody");
    engine.cli(&["rename", "one", "two"]).success();
    assert_eq!(field(&engine, "{{.Id}} {{.Name}}", "two"), format!("{id} /two"));
    engine.cli(&["inspect", "one"]).exited(1);
    background(&engine, "one", "sleep 1000");
    engine.cli(&["rm", "-f", "one", "two", "other"]).success();
}

#[test]
fn cli_containers_are_restarted() {
    let Some(engine) = engine() else { return };
    background(&engine, "one", "echo up; sleep 1000");
    let pid = field(&engine, "{{.State.Pid}}", "one");
    wait_until("a line", || engine.cli(&["logs", "one"]).success().stdout == "up\n");
    assert_eq!(engine.cli(&["restart", "-t0", "one"]).success().line(), "one");
    assert_ne!(field(&engine, "{{.State.Pid}}", "one"), pid);
    wait_until("a line", || engine.cli(&["logs", "one"]).success().stdout == "up\nup\n");
    engine.cli(&["kill", "one"]).success();
    engine.cli(&["restart", "one"]).success();
    assert_eq!(field(&engine, "{{.State.Status}}", "one"), "running");
    engine.cli(&["restart", "nobody"]).exited(1).complains("No such container: nobody");
    engine.cli(&["run", "-d", "--rm", "--name", "gone", BUSYBOX, "sleep", "1000"]).success();
    engine.cli(&["restart", "-t", "0", "gone"]).exited(1).complains("can't be restarted");
    engine.ctr(&["run", "-d", IMAGE, "theirs", "sleep", "1000"]).success();
    engine.cli(&["restart", "-t", "0", "theirs"]).exited(1).complains("another client");
    assert_eq!(field(&engine, "{{.State.Status}}", "theirs"), "running");
    engine.cli(&["rm", "-f", "one", "gone", "theirs"]).success();
}

#[test]
fn cli_top_shows_the_containers_processes() {
    let Some(engine) = engine() else { return };
    background(&engine, "one", "sleep 998 & sleep 999; wait");
    let top = |options: &[&str]| engine.cli(&[&["top", "one"], options].concat()).success().stdout;
    wait_until("both", || top(&["-o", "pid,cmd"]).lines().count() == 4);
    let shown = top(&["-o", "pid,cmd"]);
    assert!(shown.contains("sleep 998") && shown.contains("sleep 999"), "{shown}");
    assert!(top(&[]).starts_with("UID"), "{}", top(&[]));
    engine.cli(&["kill", "one"]).success();
    engine.cli(&["top", "one"]).exited(1).complains("is not running");
    engine.cli(&["rm", "one"]).success();
}

#[test]
fn cli_nothing_is_made_up_of_other_clients_containers() {
    let Some(engine) = engine() else { return };
    engine.ctr(&["run", "-d", IMAGE, "theirs", "sleep", "1000"]).success();
    let ps = engine.cli(&["ps", "--format", "{{.Names}} {{.Status}}"]).success();
    assert_eq!(ps.line(), "theirs Up");
    assert_eq!(
        field(&engine, "{{.Name}} {{join .Config.Cmd \" \"}}", "theirs"),
        "/theirs sleep 1000"
    );
    engine.cli(&["rm", "-f", "theirs"]).success();
}
