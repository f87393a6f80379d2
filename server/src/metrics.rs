//! Metrics for Prometheus, in its text format
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>), with the
//! names that containerd gives them.

use std::fmt::Write as _;
use std::fs;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use futures_util::future::join_all;
use prost::Message;
use tokio::net::TcpListener;

use berth_proto::io::containerd::cgroups::{v1, v2};
use berth_tasks::{Task, Tasks};
use berth_types::{Error, Result, ResultExt};

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Listens on `address`; `None` without one.
///
/// # Errors
/// Those of the address.
pub(crate) async fn listen(address: &str) -> Result<Option<TcpListener>> {
    if address.is_empty() {
        return Ok(None);
    }
    let what = || format!("metrics.address: listen on {address}");
    TcpListener::bind(address).await.context(what).map(Some)
}

/// Serves `/v1/metrics` until the future is dropped.
///
/// # Errors
/// When connections can no longer be accepted.
pub(crate) async fn serve(listener: TcpListener, tasks: Tasks) -> Result<()> {
    let metrics = move || {
        let tasks = tasks.clone();
        async move { ([(CONTENT_TYPE, TEXT)], all(&tasks).await) }
    };
    let router = Router::new().route("/v1/metrics", get(metrics));
    axum::serve(listener, router)
        .await
        .map_err(|error| Error::internal(format!("serve metrics: {error}")))
}

async fn all(tasks: &Tasks) -> String {
    let mut page = Page::default();
    let labels = format!("version={:?}", env!("CARGO_PKG_VERSION"));
    page.add("containerd_build_info_total", "counter", &labels, 1.0);
    process(&mut page);
    let figures = tasks.all().into_iter().map(|task| async move {
        // Tasks that end meanwhile, and shims that do not answer, are left out.
        let figures = figures(&task).await?;
        Some((format!("container_id={:?},namespace={:?}", task.id(), task.namespace()), figures))
    });
    for (labels, figures) in join_all(figures).await.into_iter().flatten() {
        for (name, value) in figures {
            let kind = if name.starts_with("container_cpu") { "counter" } else { "gauge" };
            page.add(name, kind, &labels, value as f64);
        }
    }
    page.text()
}

type Figures = Vec<(&'static str, u64)>;

async fn figures(task: &Task) -> Option<Figures> {
    let stats = task.stats().await.ok()?;
    match stats.type_url.rsplit('/').next()? {
        "io.containerd.cgroups.v1.Metrics" => {
            Some(of_v1(&v1::Metrics::decode(&*stats.value).ok()?))
        }
        "io.containerd.cgroups.v2.Metrics" => {
            Some(of_v2(&v2::Metrics::decode(&*stats.value).ok()?))
        }
        _ => None,
    }
}

fn of_v1(metrics: &v1::Metrics) -> Figures {
    let mut figures = Figures::new();
    if let Some(pids) = &metrics.pids {
        figures.push(("container_pids_current", pids.current));
        figures.push(("container_pids_limit", pids.limit));
    }
    if let Some(usage) = metrics.cpu.as_ref().and_then(|cpu| cpu.usage.as_ref()) {
        figures.push(("container_cpu_total_nanoseconds", usage.total));
        figures.push(("container_cpu_kernel_nanoseconds", usage.kernel));
        figures.push(("container_cpu_user_nanoseconds", usage.user));
    }
    if let Some(memory) = &metrics.memory {
        figures.push(("container_memory_cache_bytes", memory.cache));
        figures.push(("container_memory_rss_bytes", memory.rss));
        if let Some(usage) = &memory.usage {
            figures.push(("container_memory_usage_usage_bytes", usage.usage));
            figures.push(("container_memory_usage_max_bytes", usage.max));
            figures.push(("container_memory_usage_limit_bytes", usage.limit));
        }
    }
    figures
}

fn of_v2(metrics: &v2::Metrics) -> Figures {
    let mut figures = Figures::new();
    if let Some(pids) = &metrics.pids {
        figures.push(("container_pids_current", pids.current));
        figures.push(("container_pids_limit", pids.limit));
    }
    if let Some(cpu) = &metrics.cpu {
        figures.push(("container_cpu_usage_usec_microseconds", cpu.usage_usec));
        figures.push(("container_cpu_user_usec_microseconds", cpu.user_usec));
        figures.push(("container_cpu_system_usec_microseconds", cpu.system_usec));
    }
    if let Some(memory) = &metrics.memory {
        figures.push(("container_memory_usage_bytes", memory.usage));
        figures.push(("container_memory_usage_limit_bytes", memory.usage_limit));
        figures.push(("container_memory_anon_bytes", memory.anon));
        figures.push(("container_memory_file_bytes", memory.file));
    }
    figures
}

/// The daemon's own figures, by the names of Prometheus' clients.
fn process(page: &mut Page) {
    let resident = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    if let Some(pages) = resident {
        let bytes = pages * rustix::param::page_size() as u64;
        page.add("process_resident_memory_bytes", "gauge", "", bytes as f64);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        page.add("process_open_fds", "gauge", "", open.count() as f64);
    }
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
    page.add("process_cpu_seconds_total", "counter", "", seconds);
}

/// The lines of each metric, which must stand together.
#[derive(Default)]
struct Page(Vec<(&'static str, &'static str, String)>);

impl Page {
    fn add(&mut self, name: &'static str, kind: &'static str, labels: &str, value: f64) {
        let index = self.0.iter().position(|(known, ..)| *known == name);
        let index = index.unwrap_or_else(|| {
            self.0.push((name, kind, String::new()));
            self.0.len() - 1
        });
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        // Writing to a string can't fail.
        let _ = writeln!(self.0[index].2, "{name}{labels} {value}");
    }

    fn text(self) -> String {
        let metrics = self.0.into_iter();
        metrics.map(|(name, kind, lines)| format!("# TYPE {name} {kind}\n{lines}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_metric_stand_together() {
        let mut page = Page::default();
        page.add("a", "gauge", "x=\"1\"", 1.0);
        page.add("b", "counter", "", 2.5);
        page.add("a", "gauge", "x=\"2\"", 1e15);
        let expected = "# TYPE a gauge\na{x=\"1\"} 1\na{x=\"2\"} 1000000000000000\n\
                        # TYPE b counter\nb 2.5\n";
        assert_eq!(page.text(), expected);
    }
}
