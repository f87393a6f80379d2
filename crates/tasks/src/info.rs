//! What a runtime says of itself.

use std::process::Command;
use std::time::Duration;

use berth_proto::containerd::types::RuntimeInfo;
use berth_types::{Error, Result, ResultExt};
use prost::Message;
use prost_types::Any;

use crate::runtime::Runtime;
use crate::{DEFAULT_RUNTIME, Tasks, child};

const INFO: Duration = Duration::from_secs(5);

impl Tasks {
    /// Asks the shim of `runtime`, a name or an absolute path, for its version and features; empty
    /// means the default runtime. `options` are those that a container would have.
    ///
    /// # Errors
    /// As for an unknown runtime in [`Tasks::create`]; `Internal` when the shim does not say.
    pub async fn info(&self, runtime: &str, options: Option<&Any>) -> Result<RuntimeInfo> {
        let name = if runtime.is_empty() { DEFAULT_RUNTIME } else { runtime };
        let resolved = Runtime::resolve(&self.config, name)?;
        let mut command = Command::new(resolved.binary(&self.config));
        command.arg("-info");
        let input = options.map(Message::encode_to_vec).unwrap_or_default();
        let output = child::run(command, &input, INFO)
            .await
            .context(|| format!("ask runtime {name} for its features"))?;
        RuntimeInfo::decode(&*output).map_err(|error| {
            Error::internal(format!("runtime {name} describes itself in another way: {error}"))
        })
    }
}
