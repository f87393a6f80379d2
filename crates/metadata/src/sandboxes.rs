//! Sandboxes: records of environments that containers share. What runs of them is not here.

use berth_proto::containerd::types::Sandbox;
use berth_types::filter::{Fields, Filter};
use berth_types::{Error, Result, id};

use crate::rows::SANDBOXES;
use crate::{Scope, labels, namespaces};

/// The sandboxes of a namespace.
pub struct Sandboxes<'a>(pub(crate) &'a Scope);

impl Sandboxes<'_> {
    /// The sandbox called `id`.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, id: &str) -> Result<Sandbox> {
        self.0.read(|transaction| SANDBOXES.get(transaction, self.0.namespace(), id))
    }

    /// The sandboxes that pass `filters`, which know `id`, `sandboxer`, `runtime.name` and
    /// `labels.*`.
    ///
    /// # Errors
    /// `InvalidArgument` for a malformed filter.
    pub fn list(&self, filters: &[String]) -> Result<Vec<Sandbox>> {
        let filter = Filter::parse(filters)?;
        let passes = |sandbox: &Sandbox| filter.matches(&View(sandbox));
        self.0.read(|transaction| SANDBOXES.list(transaction, self.0.namespace(), passes))
    }

    /// Makes a sandbox; its times are set here.
    ///
    /// # Errors
    /// `InvalidArgument` when id or labels are not acceptable; `AlreadyExists`.
    pub async fn create(&self, mut sandbox: Sandbox) -> Result<Sandbox> {
        check(&mut sandbox)?;
        let ns = self.0.namespace().to_owned();
        self.0
            .write(move |transaction| {
                if SANDBOXES.find(transaction, &ns, &sandbox.sandbox_id)?.is_some() {
                    return Err(SANDBOXES.exists(&sandbox.sandbox_id));
                }
                sandbox.created_at = labels::now();
                sandbox.updated_at = sandbox.created_at;
                namespaces::ensure(transaction, &ns)?;
                SANDBOXES.put(transaction, &ns, &sandbox.sandbox_id, &sandbox)?;
                Ok(sandbox)
            })
            .await
    }

    /// Changes a sandbox by the fields `paths`: `labels`, `labels.KEY`, `extensions`,
    /// `extensions.KEY`, `runtime`, `spec`; none replaces all of these. Nothing is changed on an
    /// error.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for any other path, without paths also when the runtime's
    /// name differs, and as for [`create`](Self::create).
    pub async fn update(&self, sandbox: Sandbox, paths: Vec<String>) -> Result<Sandbox> {
        if sandbox.sandbox_id.is_empty() {
            return Err(Error::invalid_argument("must specify a sandbox id"));
        }
        let ns = self.0.namespace().to_owned();
        self.0
            .write(move |transaction| {
                let mut updated = SANDBOXES.get(transaction, &ns, &sandbox.sandbox_id)?;
                apply(&mut updated, &sandbox, paths)?;
                check(&mut updated)?;
                updated.updated_at = labels::now();
                SANDBOXES.put(transaction, &ns, &updated.sandbox_id, &updated)?;
                Ok(updated)
            })
            .await
    }

    /// Deletes the sandbox called `id`.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete(&self, id: &str) -> Result<()> {
        let (ns, id) = (self.0.namespace().to_owned(), id.to_owned());
        self.0
            .write_from_reserve(move |transaction| SANDBOXES.delete(transaction, &ns, &id))
            .await?;
        self.0.metadata().trigger();
        Ok(())
    }
}

fn apply(to: &mut Sandbox, from: &Sandbox, mut paths: Vec<String>) -> Result<()> {
    if paths.is_empty() {
        if runtime_name(to) != runtime_name(from) {
            return Err(Error::invalid_argument(format!(
                "sandbox runtime name is immutable: it is {:?}",
                runtime_name(to)
            )));
        }
        paths = ["labels", "extensions", "spec", "runtime"].map(String::from).into();
    }
    for path in paths {
        match path.as_str() {
            "runtime" => to.runtime.clone_from(&from.runtime),
            "spec" => to.spec.clone_from(&from.spec),
            path => {
                let known = labels::apply(path, "labels", &mut to.labels, &from.labels)
                    || labels::apply(path, "extensions", &mut to.extensions, &from.extensions);
                if !known {
                    let noun = format!("sandbox {:?}", to.sandbox_id);
                    return Err(labels::immutable(&noun, path));
                }
            }
        }
    }
    Ok(())
}

fn check(sandbox: &mut Sandbox) -> Result<()> {
    id::validate("sandbox id", &sandbox.sandbox_id)?;
    labels::check(&mut sandbox.labels)
}

fn runtime_name(sandbox: &Sandbox) -> &str {
    sandbox.runtime.as_ref().map_or("", |runtime| &runtime.name)
}

/// A sandbox as filters see it.
struct View<'a>(&'a Sandbox);

impl Fields for View<'_> {
    fn field(&self, path: &[String]) -> Option<&str> {
        match path.first()?.as_str() {
            "id" => labels::present(&self.0.sandbox_id),
            "sandboxer" => labels::present(&self.0.sandboxer),
            "runtime" if path.get(1)? == "name" => labels::present(runtime_name(self.0)),
            "labels" => labels::field(&path[1..], &self.0.labels),
            _ => None,
        }
    }
}
