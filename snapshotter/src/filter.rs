//! Snapshots as filters see them: `kind`, `name`, `parent` and `labels.*`.

use berth_types::filter::Fields;

use crate::contract::{Info, Kind};

impl Fields for Info {
    fn field(&self, path: &[String]) -> Option<&str> {
        let value = match path.first()?.as_str() {
            "kind" => match self.kind {
                Kind::View => "view",
                Kind::Active => "active",
                Kind::Committed => "committed",
            },
            "name" => &self.key,
            // It is present even where there is none.
            "parent" => return Some(&self.parent),
            "labels" => self.labels.get(&path[1..].join("."))?,
            _ => return None,
        };
        Some(value).filter(|value| !value.is_empty())
    }
}
