//! The commands, one file each.

pub(crate) mod attach;
pub(crate) mod create;
pub(crate) mod exec;
pub(crate) mod images;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod logs;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod rm;
pub(crate) mod rmi;
pub(crate) mod run;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod tag;
pub(crate) mod version;
pub(crate) mod wait;

use crate::failure::{Failure, Outcome};
use crate::output::{complain, say};

/// Does something for each of several objects: prints what each answers, reports every failure
/// and goes on, as Docker does.
async fn for_each<F>(objects: Vec<String>, mut action: impl FnMut(String) -> F) -> Outcome
where
    F: Future<Output = Outcome<String>>,
{
    let mut code = 0;
    for object in objects {
        match action(object).await {
            Ok(answer) => say(&answer),
            Err(failure) => {
                complain(&failure);
                code = failure.code();
            }
        }
    }
    Ok(code)
}

/// A signal from its name or number, for flags.
fn parse_signal(text: &str) -> Result<u32, String> {
    berth_types::signal::parse(text).map(|signal| signal as u32).map_err(|error| error.to_string())
}

/// A detached session is reported where the container's output was.
fn report_detached() -> Outcome {
    complain("read escape sequence");
    Ok(0)
}

/// What the daemon should have said.
fn missing(what: &str) -> Failure {
    Failure::new(format!("the daemon's answer has no {what}: is it older than this command?"))
}
