//! Images that a new container needs and that are not here yet: they are fetched first.

use berth_proto::berth::v1::ContainerOptions;
use berth_types::Reference;

use super::pull::{self, Teller};
use crate::client::Daemon;
use crate::failure::Outcome;
use crate::output::complain;

/// Does `make` with options whose image is here: fetched before, where the options say so, or once
/// the daemon has said that there is none.
pub(crate) async fn with_image<T>(
    daemon: &Daemon,
    options: ContainerOptions,
    make: impl AsyncFn(ContainerOptions) -> Outcome<T>,
) -> Outcome<T> {
    let image = options.image.clone();
    let fetch = || pull::fetch(daemon, &image, String::new(), Teller::Stderr);
    let may_fetch = options.pull == "missing";
    if options.pull == "always" {
        fetch().await?;
    }
    let options = ContainerOptions { pull: "never".to_owned(), ..options };
    match make(options.clone()).await {
        Err(failure) if may_fetch && failure.is_missing_image() => {
            let reference = image.parse::<Reference>();
            let named = reference.map_or_else(|_| image.clone(), |known| pull::shown(&known));
            complain(format_args!("Unable to find image '{named}' locally"));
            fetch().await?;
            make(options).await
        }
        made => made,
    }
}
