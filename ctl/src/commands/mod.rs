//! The commands, one file each.

pub(crate) mod attach;
pub(crate) mod create;
pub(crate) mod exec;
pub(crate) mod images;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod load;
pub(crate) mod logs;
pub(crate) mod missing;
pub(crate) mod pause;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod rename;
pub(crate) mod restart;
pub(crate) mod rm;
pub(crate) mod rmi;
pub(crate) mod run;
pub(crate) mod save;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod system;
pub(crate) mod tag;
pub(crate) mod top;
pub(crate) mod unpause;
pub(crate) mod version;
pub(crate) mod wait;

use crate::failure::{Failure, Outcome};
use crate::output::{complain, say};
use crate::session::{self, End};

/// Does something for each of several objects: prints what each answers, if anything, reports
/// every failure and goes on, as Docker does.
async fn for_each<F, A>(objects: Vec<String>, mut action: impl FnMut(String) -> F) -> Outcome
where
    F: Future<Output = Outcome<A>>,
    A: Into<Option<String>>,
{
    let mut code = 0;
    for object in objects {
        match action(object).await {
            Ok(answer) => answer.into().into_iter().for_each(say),
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

/// The exit status after a session.
fn finish(end: End) -> i32 {
    match end {
        End::Exited(code) => code,
        End::Started => 0,
        // Reported where the container's output was.
        End::Detached => {
            complain("read escape sequence");
            0
        }
        End::Unanswered => {
            complain(
                "The container does not answer the signals and goes on: 'berth stop' or 'berth \
                 kill' ends it.",
            );
            session::INTERRUPTED
        }
    }
}

/// What the daemon should have said.
fn missing(what: &str) -> Failure {
    Failure::new(format!("the daemon's answer has no {what}: is it older than this command?"))
}
