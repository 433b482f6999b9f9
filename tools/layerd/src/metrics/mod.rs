//! Figures of the daemon for Prometheus, in its text format (exposition formats, version 0.0.4).
//!
//! What is done is counted as it is done ([`Metrics`]). What there is (`scrape`) is read when it is
//! asked for, from the catalogue and the kernel's tables: nothing is walked, and no lock is held that
//! another call waits for.

mod process;
mod scrape;

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

pub(crate) use scrape::scrape;

use crate::error::{Error, ErrorKind, Result};

/// The media type of the format.
pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of the classes of latencies in seconds: a snapshot's life is milliseconds, an import
/// minutes.
const LATENCIES: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    120.0,
];

/// What is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    operations: IntCounterVec,
    latencies: HistogramVec,
    /// Bytes of layer tars that were applied.
    pub(crate) imported: IntCounter,
    /// Bytes of layer tars that were written for clients.
    pub(crate) exported: IntCounter,
}

impl Metrics {
    /// Everything at zero.
    ///
    /// # Errors
    /// When a name is none, or there twice.
    pub(crate) fn new() -> Result<Self> {
        let made = || -> prometheus::Result<Self> {
            let registry = Registry::new();
            let operations = IntCounterVec::new(
                Opts::new("layerd_operations_total", "Requests by what came of them."),
                &["dialect", "operation", "result"],
            )?;
            let help = "Time from a request to the beginning of its answer.";
            let options = HistogramOpts::new("layerd_operation_duration_seconds", help);
            let latencies =
                HistogramVec::new(options.buckets(LATENCIES.to_vec()), &["dialect", "operation"])?;
            let help = "Bytes of uncompressed layer tars that were applied.";
            let imported = IntCounter::new("layerd_imported_bytes_total", help)?;
            let help = "Bytes of uncompressed layer tars that clients took.";
            let exported = IntCounter::new("layerd_exported_bytes_total", help)?;
            registry.register(Box::new(operations.clone()))?;
            registry.register(Box::new(latencies.clone()))?;
            registry.register(Box::new(imported.clone()))?;
            registry.register(Box::new(exported.clone()))?;
            Ok(Self { registry, operations, latencies, imported, exported })
        };
        made().map_err(failed)
    }

    /// Counts a request.
    pub(crate) fn operation(&self, dialect: &str, operation: &str, result: &str, took: Duration) {
        self.operations.with_label_values(&[dialect, operation, result]).inc();
        let latencies = self.latencies.with_label_values(&[dialect, operation]);
        latencies.observe(took.as_secs_f64());
    }
}

fn failed(error: prometheus::Error) -> Error {
    Error::refused("make metrics", "", error.to_string(), ErrorKind::Io)
}
