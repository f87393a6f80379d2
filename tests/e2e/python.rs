//! A client in another language: Python, with stubs that are made here from the definitions.

use std::path::Path;
use std::process::Command;

use berth_tests::{Engine, Finished, Image};
use serde_json::{Value, json};

const IMAGE: &str = "docker.io/library/busybox:latest";

/// Debian's, which has the package python3-grpcio.
const PYTHON: &str = "/usr/bin/python3";

/// The services that the client uses.
const SERVICES: [&str; 7] =
    ["containers", "content", "events", "images", "snapshots", "tasks", "version"];

/// Makes Python's side of the definitions.
fn make_stubs(directory: &Path) {
    let definitions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let mut files: Vec<_> =
        SERVICES.map(|name| format!("containerd/services/{name}/v1/{name}.proto")).to_vec();
    for kind in ["descriptor", "event", "metrics", "mount", "platform", "task/task"] {
        files.push(format!("containerd/types/{kind}.proto"));
    }
    let mut command = Command::new("protoc");
    command.arg("-I.").arg("--plugin=protoc-gen-grpc_python=/usr/bin/grpc_python_plugin");
    command.arg("--python_out").arg(directory).arg("--grpc_python_out").arg(directory);
    Finished::leaving(command.args(files).current_dir(definitions)).success();
}

#[test]
fn python_runs_a_containers_whole_life() {
    let engine = Engine::start();
    engine.import(&Image::busybox(IMAGE));
    let (stubs, output) = (engine.path("stubs"), engine.path("output"));
    for directory in [&stubs, &output] {
        std::fs::create_dir(directory).unwrap();
    }
    make_stubs(&stubs);

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/python/life.py");
    let mut command = Command::new(PYTHON);
    command.arg(script).arg(engine.address()).arg(engine.namespace()).arg(IMAGE).arg(&output);
    command.env("PYTHONPATH", &stubs).env("PYTHONDONTWRITEBYTECODE", "1");
    let seen = Finished::leaving(&mut command).success().stdout;
    let seen: Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(seen["exec"], json!(["inside", 3]));
    assert_eq!(seen["missing"], "NOT_FOUND");
    assert_eq!((&seen["exit"], &seen["output"]), (&json!(137), &json!("hello from 1")));
    let topics: Vec<_> =
        seen["topics"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    let expected = [
        "/containers/create",
        "/tasks/create",
        "/tasks/start",
        "/tasks/exec-added",
        "/tasks/exec-started",
        "/tasks/exit",
        "/tasks/exit",
        "/tasks/delete",
        "/containers/delete",
    ];
    assert_eq!(topics, expected);
}
