//! What the guest had begun and what had been acknowledged, and so what must be there.

/// What was known of a thing at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It was acknowledged that it is there.
    There,
    /// It was never begun, or it was acknowledged that it is gone.
    Gone,
    /// It was coming or going.
    Moving,
}

/// The marks up to a moment.
#[derive(Clone, Copy)]
pub(crate) struct Steps<'a>(pub(crate) &'a [(usize, String)]);

impl Steps<'_> {
    /// What was known of the image or container `name`.
    pub(crate) fn known(&self, name: &str) -> Known {
        let words = self.0.iter().rev().map(|(_, mark)| mark.split(' ').collect::<Vec<_>>());
        let last = words.into_iter().find(|words| words.last() == Some(&name));
        match last.as_deref() {
            None | Some(["done", "rm" | "rmi", _]) => Known::Gone,
            Some(["done", ..]) => Known::There,
            Some(_) => Known::Moving,
        }
    }

    /// How many steps were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.0.iter().filter(|(_, mark)| mark.starts_with("done ")).count()
    }

    /// The names of all containers so far.
    pub(crate) fn containers(&self) -> Vec<&str> {
        let runs = self.0.iter().filter_map(|(_, mark)| mark.strip_prefix("begin run "));
        runs.collect()
    }
}
