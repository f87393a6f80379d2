//! Metrics for Prometheus, in its text format
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>), with the
//! names that containerd gives them.

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use futures_util::future::join_all;
use prost::Message;
use tokio::net::TcpListener;

use berth_proto::io::containerd::cgroups::{v1, v2};
use berth_tasks::{Task, Tasks};
use berth_types::{Error, Result, ResultExt};

use crate::calls::Calls;

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
pub(crate) async fn serve(listener: TcpListener, tasks: Tasks, calls: Arc<Calls>) -> Result<()> {
    let metrics = move || {
        let (tasks, calls) = (tasks.clone(), calls.clone());
        async move { ([(CONTENT_TYPE, TEXT)], all(&tasks, &calls).await) }
    };
    let router = Router::new().route("/v1/metrics", get(metrics));
    axum::serve(listener, router)
        .await
        .map_err(|error| Error::internal(format!("serve metrics: {error}")))
}

async fn all(tasks: &Tasks, calls: &Calls) -> String {
    let mut page = Page::default();
    let labels = format!("version={:?}", env!("CARGO_PKG_VERSION"));
    page.add("containerd_build_info_total", "counter", &labels, 1.0);
    process(&mut page);
    for (name, labels, count) in calls.counts() {
        page.add(name, "counter", &labels, count as f64);
    }
    let figures = tasks.all().into_iter().map(|task| async move {
        // Tasks that end meanwhile, and shims that do not answer, are left out.
        let figures = figures(&task).await?;
        Some((format!("container_id={:?},namespace={:?}", task.id(), task.namespace()), figures))
    });
    for (labels, figures) in join_all(figures).await.into_iter().flatten() {
        for (name, more, value) in figures {
            let kind = if name.starts_with("container_cpu") { "counter" } else { "gauge" };
            page.add(name, kind, &format!("{labels}{more}"), value as f64);
        }
    }
    page.text()
}

/// Names, further labels and values.
type Figures = Vec<(&'static str, String, u64)>;

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
    let mut add = |name, value| figures.push((name, String::new(), value));
    if let Some(pids) = &metrics.pids {
        add("container_pids_current", pids.current);
        add("container_pids_limit", pids.limit);
    }
    if let Some(usage) = metrics.cpu.as_ref().and_then(|cpu| cpu.usage.as_ref()) {
        add("container_cpu_total_nanoseconds", usage.total);
        add("container_cpu_kernel_nanoseconds", usage.kernel);
        add("container_cpu_user_nanoseconds", usage.user);
    }
    if let Some(memory) = &metrics.memory {
        add("container_memory_cache_bytes", memory.cache);
        add("container_memory_rss_bytes", memory.rss);
        if let Some(usage) = &memory.usage {
            add("container_memory_usage_usage_bytes", usage.usage);
            add("container_memory_usage_max_bytes", usage.max);
            add("container_memory_usage_limit_bytes", usage.limit);
        }
    }
    figures.extend(metrics.blkio.iter().flat_map(block_io));
    figures
}

/// What a container did to block devices, each entry of the kernel's with its device.
fn block_io(blkio: &v1::BlkIoStat) -> Figures {
    let lists = [
        ("container_blkio_io_merged_recursive_total", &blkio.io_merged_recursive),
        ("container_blkio_io_queued_recursive_total", &blkio.io_queued_recursive),
        ("container_blkio_io_service_bytes_recursive_bytes", &blkio.io_service_bytes_recursive),
        ("container_blkio_io_service_time_recursive_total", &blkio.io_service_time_recursive),
        ("container_blkio_io_serviced_recursive_total", &blkio.io_serviced_recursive),
        ("container_blkio_io_time_recursive_total", &blkio.io_time_recursive),
        ("container_blkio_sectors_recursive_total", &blkio.sectors_recursive),
    ];
    let mut figures = Figures::new();
    for (name, list) in lists {
        for entry in list {
            let v1::BlkIoEntry { op, device, major, minor, value } = entry;
            let labels =
                format!(",op={op:?},device={device:?},major=\"{major}\",minor=\"{minor}\"");
            figures.push((name, labels, *value));
        }
    }
    figures
}

fn of_v2(metrics: &v2::Metrics) -> Figures {
    let mut figures = Figures::new();
    let mut add = |name, value| figures.push((name, String::new(), value));
    if let Some(pids) = &metrics.pids {
        add("container_pids_current", pids.current);
        add("container_pids_limit", pids.limit);
    }
    if let Some(cpu) = &metrics.cpu {
        add("container_cpu_usage_usec_microseconds", cpu.usage_usec);
        add("container_cpu_user_usec_microseconds", cpu.user_usec);
        add("container_cpu_system_usec_microseconds", cpu.system_usec);
    }
    if let Some(memory) = &metrics.memory {
        add("container_memory_usage_bytes", memory.usage);
        add("container_memory_usage_limit_bytes", memory.usage_limit);
        add("container_memory_anon_bytes", memory.anon);
        add("container_memory_file_bytes", memory.file);
    }
    for entry in metrics.io.iter().flat_map(|io| &io.usage) {
        let labels = format!(",major=\"{}\",minor=\"{}\"", entry.major, entry.minor);
        figures.push(("container_io_rbytes_bytes", labels.clone(), entry.rbytes));
        figures.push(("container_io_wbytes_bytes", labels.clone(), entry.wbytes));
        figures.push(("container_io_rios_total", labels.clone(), entry.rios));
        figures.push(("container_io_wios_total", labels, entry.wios));
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
    fn block_devices_are_told_apart() {
        let entry = v1::BlkIoEntry {
            op: "Read".into(),
            device: "/dev/vda".into(),
            major: 254,
            minor: 1,
            value: 7,
        };
        let blkio = v1::BlkIoStat {
            io_service_bytes_recursive: vec![entry.clone()],
            io_serviced_recursive: vec![entry],
            ..Default::default()
        };
        let figures = of_v1(&v1::Metrics { blkio: Some(blkio), ..Default::default() });
        let labels = ",op=\"Read\",device=\"/dev/vda\",major=\"254\",minor=\"1\"".to_owned();
        let expected = [
            ("container_blkio_io_service_bytes_recursive_bytes", labels.clone(), 7),
            ("container_blkio_io_serviced_recursive_total", labels, 7),
        ];
        assert_eq!(figures, expected);
        let usage = v2::IoEntry { major: 254, minor: 1, rbytes: 1, wbytes: 2, rios: 3, wios: 4 };
        let io = v2::IoStat { usage: vec![usage], ..Default::default() };
        let figures = of_v2(&v2::Metrics { io: Some(io), ..Default::default() });
        let values: Vec<_> = figures.iter().map(|(name, _, value)| (*name, *value)).collect();
        let expected = [
            ("container_io_rbytes_bytes", 1),
            ("container_io_wbytes_bytes", 2),
            ("container_io_rios_total", 3),
            ("container_io_wios_total", 4),
        ];
        assert_eq!(values, expected);
        assert!(figures.iter().all(|(_, labels, _)| labels == ",major=\"254\",minor=\"1\""));
    }

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
