//! `start`, as other daemons run it, in each of their dialects; and what needs no container.

use std::io::Write;
use std::process::{Command, Stdio};

use berth_proto::containerd::runtime::bootstrap::v1::{BootstrapParams, BootstrapResult};
use berth_proto::containerd::task::v3::{ConnectRequest, ConnectResponse, ShutdownRequest};
use berth_proto::containerd::types::RuntimeInfo;
use berth_ttrpc::{Client, Options};
use prost::Message;

use crate::rig::{HANGS, SHIM, TASK, action};

/// Runs `start` with `input`, calls the shim that it leaves, ends that, and returns the answer.
async fn start(input: &[u8], version_asked: bool) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("bundle");
    std::fs::create_dir(&bundle).unwrap();
    let mut command = action("boot", &bundle, "start");
    if version_asked {
        command.env("MAX_SHIM_VERSION", "3");
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());

    let address = std::fs::read_to_string(bundle.join("address")).unwrap();
    let socket = address.strip_prefix("unix://").unwrap();
    let client = Client::connect(socket.as_ref()).await.unwrap();
    let options = Options::timeout(HANGS);
    let request = ConnectRequest { id: "boot".into() };
    let connected: ConnectResponse =
        client.call(TASK, "Connect", &request, &options).await.unwrap();
    assert_ne!(connected.shim_pid, 0);
    let request = ShutdownRequest { id: "boot".into(), now: true };
    client.call::<_, ()>(TASK, "Shutdown", &request, &options).await.unwrap();
    client.closed().await;
    output.stdout
}

#[tokio::test]
async fn containerd_1_6_gets_an_address() {
    let address = String::from_utf8(start(b"", false).await).unwrap();
    assert!(address.starts_with("unix:///"), "{address}");
}

#[tokio::test]
async fn containerd_1_7_to_2_2_get_json() {
    let answer: serde_json::Value = serde_json::from_slice(&start(b"", true).await).unwrap();
    assert_eq!((answer["version"].as_i64(), answer["protocol"].as_str()), (Some(3), Some("ttrpc")));
}

#[tokio::test]
async fn containerd_2_3_gets_a_message() {
    let params = BootstrapParams {
        instance_id: "boot".into(),
        namespace: "test".into(),
        ..Default::default()
    };
    let answer = start(&params.encode_to_vec(), true).await;
    let answer = BootstrapResult::decode(&*answer).unwrap();
    assert_eq!((answer.version, &*answer.protocol), (3, "ttrpc"));
}

#[test]
fn info_tells_the_features() {
    let output = Command::new(SHIM).arg("-info").output().unwrap();
    let info = RuntimeInfo::decode(&*output.stdout).unwrap();
    assert_eq!(info.name, "io.containerd.berth.v1");
    let features: serde_json::Value =
        serde_json::from_slice(&info.features.unwrap().value).unwrap();
    assert!(features["mountOptions"].as_array().unwrap().contains(&"rro".into()));
}

#[test]
fn a_wrong_command_line_says_what_is_wrong() {
    for (arguments, text) in [
        (&["-colour", "start"][..], "-colour"),
        (&["-namespace", "a", "-id", "../b", "start"][..], "container id"),
        (&["-namespace", "a", "-id", "b", "dance"][..], "dance"),
    ] {
        let output = Command::new(SHIM).args(arguments).output().unwrap();
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains(text), "{arguments:?}");
    }
}
