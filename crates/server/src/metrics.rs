//! What the server counts, and the page on which it says so (`/metrics`, in the text format of Prometheus 0.0.4).
//!
//! Counting is one addition to a number that is there already: no lock, no allocation, no text. Names of components, tags and
//! clients never become labels, so that the page has the same size whatever is asked.

use std::fmt::{self, Write as _};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, StatusCode};
use semel_store::health::Figures;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The media type of the page.
pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "other"];

/// Those that the server gives; any other is counted as the first of its hundred.
const STATUSES: [u16; 29] = [
    100, 200, 201, 202, 204, 206, 300, 304, 307, 400, 401, 403, 404, 405, 408, 409, 412, 413, 414, 415, 416,
    422, 429, 500, 501, 502, 503, 507, 508,
];

/// The upper ends of the classes of durations, in microseconds. Above the last one is one more class.
const DURATIONS_MICROS: [u64; 11] =
    [100, 250, 1_000, 2_500, 10_000, 25_000, 100_000, 250_000, 1_000_000, 10_000_000, 60_000_000];

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Base,
    Catalog,
    Blob,
    Upload,
    Manifest,
    Tags,
    Referrers,
    Api,
    Health,
    Metrics,
    Other,
}

const KINDS: [(Kind, &str); 11] = [
    (Kind::Base, "base"),
    (Kind::Catalog, "catalog"),
    (Kind::Blob, "blob"),
    (Kind::Upload, "upload"),
    (Kind::Manifest, "manifest"),
    (Kind::Tags, "tags"),
    (Kind::Referrers, "referrers"),
    (Kind::Api, "api"),
    (Kind::Health, "healthz"),
    (Kind::Metrics, "metrics"),
    (Kind::Other, "other"),
];

impl Kind {
    /// By the form of a path alone: it need not be well-formed otherwise.
    fn of(path: &str) -> Self {
        match path {
            "/healthz" => return Self::Health,
            "/metrics" => return Self::Metrics,
            "/v2" | "/v2/" => return Self::Base,
            "/v2/_catalog" => return Self::Catalog,
            _ if path.starts_with("/api/") => return Self::Api,
            _ if !path.starts_with("/v2/") => return Self::Other,
            _ => {}
        }
        let mut words = path.rsplit('/');
        match (words.next(), words.next(), words.next()) {
            (_, Some("uploads"), Some("blobs")) | (Some("uploads"), Some("blobs"), _) => Self::Upload,
            (_, Some("blobs"), _) => Self::Blob,
            (_, Some("manifests"), _) => Self::Manifest,
            (_, Some("referrers"), _) => Self::Referrers,
            (Some("list"), Some("tags"), _) => Self::Tags,
            _ => Self::Other,
        }
    }
}

/// A number that only grows, or one that also falls.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    pub(crate) fn subtract(&self, number: u64) {
        self.0.fetch_sub(number, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything that is counted while the server runs.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// By kind, method and status, in this order.
    requests: Vec<Count>,
    /// By kind.
    durations: Vec<Durations>,
    /// Bytes from clients, with the heads of their requests.
    pub(crate) received_bytes: Count,
    /// Bytes to clients, with the heads of the answers.
    pub(crate) sent_bytes: Count,
    /// Connections that are open now.
    pub(crate) connections: Count,
    /// Reads that were answered from memory.
    pub(crate) memory_hits: Count,
    /// Reads for which the database was asked.
    pub(crate) memory_misses: Count,
    /// Reads that found bytes damaged or gone.
    pub(crate) damaged: Count,
}

#[derive(Debug, Default)]
struct Durations {
    classes: [Count; DURATIONS_MICROS.len() + 1],
    sum_micros: Count,
}

impl Default for Metrics {
    fn default() -> Self {
        let requests = KINDS.len() * METHODS.len() * STATUSES.len();
        Self {
            requests: std::iter::repeat_with(Count::default).take(requests).collect(),
            durations: std::iter::repeat_with(Durations::default).take(KINDS.len()).collect(),
            received_bytes: Count::default(),
            sent_bytes: Count::default(),
            connections: Count::default(),
            memory_hits: Count::default(),
            memory_misses: Count::default(),
            damaged: Count::default(),
        }
    }
}

impl Metrics {
    /// Counts an answer. `duration` is the time until its head was there.
    pub(crate) fn answered(&self, method: &Method, path: &str, status: StatusCode, duration: Duration) {
        let kind = Kind::of(path) as usize;
        self.requests[place(kind, method_index(method), status_index(status))].add(1);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let class = DURATIONS_MICROS.partition_point(|end| *end < micros);
        self.durations[kind].classes[class].add(1);
        self.durations[kind].sum_micros.add(micros);
    }

    /// Bytes from and to clients: while this grows, something gets on.
    pub(crate) fn moved_bytes(&self) -> u64 {
        self.received_bytes.get().wrapping_add(self.sent_bytes.get())
    }

    /// The page.
    pub(crate) fn page(&self, store: &Figures) -> String {
        let mut page = Page::default();
        page.family("semel_build_info", "gauge", "The program that answers");
        page.line("semel_build_info", format_args!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1);
        self.write_requests(&mut page);
        self.write_durations(&mut page);
        for (name, kind, help, value) in [
            (
                "semel_http_received_bytes_total",
                "counter",
                "Bytes from clients",
                Some(self.received_bytes.get()),
            ),
            ("semel_http_sent_bytes_total", "counter", "Bytes to clients", Some(self.sent_bytes.get())),
            ("semel_http_connections", "gauge", "Connections that are open", Some(self.connections.get())),
            (
                "semel_memory_hits_total",
                "counter",
                "Reads answered from memory",
                Some(self.memory_hits.get()),
            ),
            (
                "semel_memory_misses_total",
                "counter",
                "Reads that asked the database",
                Some(self.memory_misses.get()),
            ),
            (
                "semel_damaged_reads_total",
                "counter",
                "Reads that found bytes damaged or gone",
                Some(self.damaged.get()),
            ),
            (
                "semel_uploads_open",
                "gauge",
                "Uploads that have begun and not ended",
                Some(store.open_uploads),
            ),
            (
                "semel_trash_bytes",
                "gauge",
                "Bytes that collection has not yet given back",
                Some(store.trash_bytes),
            ),
            ("semel_ledger_leaves", "gauge", "Leaves of the ledger", Some(store.ledger_leaves)),
            (
                "process_resident_memory_bytes",
                "gauge",
                "Resident memory of the process",
                resident_memory_bytes(),
            ),
        ] {
            if let Some(value) = value {
                page.family(name, kind, help);
                page.line(name, format_args!(""), value);
            }
        }
        page.0
    }

    fn write_requests(&self, page: &mut Page) {
        const NAME: &str = "semel_http_requests_total";
        page.family(NAME, "counter", "Requests that were answered");
        for (kind, (_, kind_name)) in KINDS.iter().enumerate() {
            for (method, method_name) in METHODS.iter().enumerate() {
                for (status, status_name) in STATUSES.iter().enumerate() {
                    let value = self.requests[place(kind, method, status)].get();
                    if value > 0 {
                        let labels = format_args!(
                            "{{kind=\"{kind_name}\",method=\"{method_name}\",status=\"{status_name}\"}}"
                        );
                        page.line(NAME, labels, value);
                    }
                }
            }
        }
    }

    fn write_durations(&self, page: &mut Page) {
        page.family(
            "semel_http_request_duration_seconds",
            "histogram",
            "Time until the head of the answer was there",
        );
        for ((_, kind), durations) in KINDS.iter().zip(&self.durations) {
            let mut below = 0;
            let ends = DURATIONS_MICROS.iter().map(|micros| seconds(*micros).to_string());
            let ends = ends.chain(["+Inf".to_owned()]);
            let counts: Vec<u64> = durations.classes.iter().map(Count::get).collect();
            if counts.iter().all(|count| *count == 0) {
                continue;
            }
            for (end, count) in ends.zip(counts) {
                below += count;
                let labels = format_args!("{{kind=\"{kind}\",le=\"{end}\"}}");
                page.line("semel_http_request_duration_seconds_bucket", labels, below);
            }
            let labels = format_args!("{{kind=\"{kind}\"}}");
            let sum = seconds(durations.sum_micros.get());
            page.line("semel_http_request_duration_seconds_sum", labels, sum);
            page.line("semel_http_request_duration_seconds_count", labels, below);
        }
    }
}

fn place(kind: usize, method: usize, status: usize) -> usize {
    (kind * METHODS.len() + method) * STATUSES.len() + status
}

fn method_index(method: &Method) -> usize {
    METHODS.iter().position(|name| *name == method.as_str()).unwrap_or(METHODS.len() - 1)
}

fn status_index(status: StatusCode) -> usize {
    let find = |status| STATUSES.binary_search(&status);
    find(status.as_u16()).or_else(|_| find(status.as_u16() / 100 * 100)).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "durations are told to three digits or so")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1_000_000.0
}

/// A connection whose bytes are counted, and which counts itself while it is open.
pub(crate) struct Measured<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S> Measured<S> {
    pub(crate) fn new(inner: S, metrics: Arc<Metrics>) -> Self {
        metrics.connections.add(1);
        Self { inner, metrics }
    }

    fn sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.metrics.sent_bytes.add(*bytes as u64);
        }
        written
    }
}

impl<S> Drop for Measured<S> {
    fn drop(&mut self) {
        self.metrics.connections.subtract(1);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Measured<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        self.metrics.received_bytes.add((buffer.filled().len() - before) as u64);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Measured<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.sent(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, pieces);
        self.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP {name} {help}.\n# TYPE {name} {kind}")
            .expect("a text takes what is written");
    }

    fn line(&mut self, name: &str, labels: fmt::Arguments<'_>, value: impl fmt::Display) {
        writeln!(self.0, "{name}{labels} {value}").expect("a text takes what is written");
    }
}

/// The line `VmRSS:    14460 kB` of `/proc/self/status` (proc(5)); nothing where there is no such file.
fn resident_memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_its_kind() {
        let cases = [
            ("/v2/", Kind::Base),
            ("/v2/_catalog", Kind::Catalog),
            ("/v2/a/b/blobs/sha256:00", Kind::Blob),
            ("/v2/a/blobs/uploads", Kind::Upload),
            ("/v2/a/blobs/uploads/", Kind::Upload),
            ("/v2/a/blobs/uploads/x", Kind::Upload),
            ("/v2/a/manifests/1.0.0", Kind::Manifest),
            ("/v2/a/tags/list", Kind::Tags),
            ("/v2/a/referrers/sha256:00", Kind::Referrers),
            ("/api/v1/status", Kind::Api),
            ("/healthz", Kind::Health),
            ("/metrics", Kind::Metrics),
            ("/", Kind::Other),
            ("/v2/a", Kind::Other),
            ("/v2x/manifests/a", Kind::Other),
        ];
        for (path, kind) in cases {
            assert_eq!(Kind::of(path), kind, "{path}");
        }
        assert!(KINDS.iter().enumerate().all(|(index, (kind, _))| *kind as usize == index));
    }

    #[test]
    fn what_is_counted_is_on_the_page() {
        let metrics = Metrics::default();
        let get = |status, micros| {
            let status = StatusCode::from_u16(status).unwrap();
            metrics.answered(&Method::GET, "/v2/a/manifests/x", status, Duration::from_micros(micros));
        };
        get(200, 90);
        get(200, 3_000);
        get(418, 90_000_000);
        metrics.memory_hits.add(2);
        let page = metrics.page(&Figures { ledger_leaves: 7, open_uploads: 1, trash_bytes: 42 });
        for line in [
            "semel_http_requests_total{kind=\"manifest\",method=\"GET\",status=\"200\"} 2",
            "semel_http_requests_total{kind=\"manifest\",method=\"GET\",status=\"400\"} 1",
            "semel_http_request_duration_seconds_bucket{kind=\"manifest\",le=\"0.0001\"} 1",
            "semel_http_request_duration_seconds_bucket{kind=\"manifest\",le=\"0.01\"} 2",
            "semel_http_request_duration_seconds_bucket{kind=\"manifest\",le=\"60\"} 2",
            "semel_http_request_duration_seconds_bucket{kind=\"manifest\",le=\"+Inf\"} 3",
            "semel_http_request_duration_seconds_sum{kind=\"manifest\"} 90.00309",
            "semel_http_request_duration_seconds_count{kind=\"manifest\"} 3",
            "semel_memory_hits_total 2",
            "semel_ledger_leaves 7",
            "semel_uploads_open 1",
            "semel_trash_bytes 42",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing:\n{page}");
        }
    }
}
