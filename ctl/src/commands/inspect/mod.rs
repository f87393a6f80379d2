//! `berth inspect`

mod container;
mod image;

use berth_proto::berth::v1::{InspectImageRequest, InspectRequest};
use clap::Args;
use serde_json::Value;

use crate::client::Daemon;
use crate::failure::{Failure, Outcome};
use crate::output::{complain, say};
use crate::{table, template};

/// Return low-level information on containers and images
#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// What to print of each: a template of Go's, such as {{.State.Status}} or {{json .Config}}
    #[arg(short, long, value_name = "TEMPLATE", value_parser = parse_format)]
    format: Option<String>,
    /// Containers or images, by name or id
    #[arg(required = true)]
    objects: Vec<String>,
}

/// `json` is a template too, of one line.
fn parse_format(text: &str) -> Result<String, String> {
    let text = if text == "json" { "{{json .}}" } else { text };
    template::check(text).map(|()| text.to_owned())
}

impl Inspect {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let (mut found, mut code) = (Vec::new(), 0);
        for object in self.objects {
            match inspect(daemon, &object).await {
                Ok(value) => found.push(value),
                Err(failure) if failure.is_not_found() => {
                    complain(format_args!("Error: No such object: {object}"));
                    code = 1;
                }
                Err(failure) => return Err(failure),
            }
        }
        match self.format {
            Some(template) => table::print_each(&template, &found)?,
            None => say(format_args!("{:#}", Value::Array(found))),
        }
        Ok(code)
    }
}

/// A container of that name, or else an image.
async fn inspect(daemon: &Daemon, object: &str) -> Outcome<Value> {
    let request = InspectRequest { container: object.to_owned() };
    match daemon.containers().await?.inspect(request).await.map_err(Failure::from) {
        Ok(response) => return Ok(container::document(response.into_inner())),
        Err(failure) if failure.is_not_found() => {}
        Err(failure) => return Err(failure),
    }
    let request = InspectImageRequest { image: object.to_owned() };
    Ok(image::document(daemon.images().await?.inspect(request).await?.into_inner()))
}

/// JSON as the daemon stored it; null where it is none.
fn parse(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap_or_default()
}
