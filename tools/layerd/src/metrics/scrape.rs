//! What there is in the store at the moment.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use drivers::{NAMES, PoolReport};
use prometheus::core::Collector;
use prometheus::{Counter, Gauge, GaugeVec, Opts, Registry, TextEncoder};

use super::{failed, process};
use crate::catalogue::{Lookup as _, SnapshotKind, Status};
use crate::error::Result;
use crate::store::Store;

/// Everything, as text; `connections` is how many clients there are.
///
/// # Errors
/// When the catalogue cannot be read.
pub(crate) fn scrape(store: &Store, connections: usize) -> Result<String> {
    let counted = Counted::of(store)?;
    let write = || -> prometheus::Result<String> {
        let mut gauges = Gauges::default();
        gauges.family(
            "layerd_build_info",
            "What is running.",
            &["version"],
            [([env!("CARGO_PKG_VERSION")], 1)],
        )?;
        counted.gather(&mut gauges)?;
        mounts(
            &mut gauges,
            store.root(),
            &String::from_utf8_lossy(&fs::read("/proc/self/mountinfo")?),
        )?;
        pools(&mut gauges, store)?;
        gauges.one("layerd_connections", "Clients that are connected.", connections as f64)?;
        let told = store.events.newest() as f64;
        gauges.counter("layerd_events_total", "Events that were told.", told)?;
        process::gather(&mut gauges)?;
        let mut families = store.metrics.registry.gather();
        families.extend(gauges.0.gather());
        TextEncoder::new().encode_to_string(&families)
    };
    write().map_err(failed)
}

/// Gauges that live as long as one answer.
#[derive(Default)]
pub(super) struct Gauges(Registry);

impl Gauges {
    /// Adds a gauge without labels.
    pub(super) fn one(&mut self, name: &str, help: &str, value: f64) -> prometheus::Result<()> {
        let gauge = Gauge::new(name, help)?;
        gauge.set(value);
        self.0.register(Box::new(gauge))
    }

    /// Adds a counter that is counted elsewhere.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: f64) -> prometheus::Result<()> {
        let counter = Counter::new(name, help)?;
        counter.inc_by(value);
        self.0.register(Box::new(counter))
    }

    /// Adds a gauge with a value for each set of labels; one without any value is left out.
    pub(super) fn family<const N: usize, V: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str; N],
        values: impl IntoIterator<Item = ([V; N], u64)>,
    ) -> prometheus::Result<()> {
        let gauge = GaugeVec::new(Opts::new(name, help), labels)?;
        for (labels, value) in values {
            let labels = labels.each_ref().map(AsRef::as_ref);
            gauge.with_label_values(&labels).set(value as f64);
        }
        if gauge.collect().iter().all(|family| family.get_metric().is_empty()) {
            return Ok(());
        }
        self.0.register(Box::new(gauge))
    }
}

/// How many rows the catalogue has, and what they take.
#[derive(Debug, Default)]
struct Counted {
    images: u64,
    images_by_driver: BTreeMap<[String; 1], u64>,
    layers: BTreeMap<[String; 1], u64>,
    layer_bytes: BTreeMap<[String; 1], u64>,
    /// By driver, kind and namespace.
    snapshots: BTreeMap<[String; 3], u64>,
    snapshot_bytes: BTreeMap<[String; 1], u64>,
    /// By driver and state.
    containers: BTreeMap<[String; 2], u64>,
}

impl Counted {
    fn of(store: &Store) -> Result<Self> {
        let mut counted = Self::default();
        let rows = store.catalogue.read()?;
        for image in rows.images()? {
            counted.images += 1;
            for driver in image.drivers {
                *counted.images_by_driver.entry([driver]).or_default() += 1;
            }
        }
        for (driver, _, layer) in rows.layers()? {
            *counted.layers.entry([driver.clone()]).or_default() += 1;
            *counted.layer_bytes.entry([driver]).or_default() += layer.usage.bytes;
        }
        for (namespace, snapshot) in rows.snapshots()? {
            // The layer of a shared one is counted among those of images.
            if snapshot.kind == SnapshotKind::Committed && snapshot.shared.is_none() {
                let bytes = snapshot.usage.map_or(0, |usage| usage.bytes);
                *counted.snapshot_bytes.entry([snapshot.driver.clone()]).or_default() += bytes;
            }
            let kind = snapshot.kind.as_str().to_owned();
            *counted.snapshots.entry([snapshot.driver, kind, namespace]).or_default() += 1;
        }
        drop(rows);
        for container in store.containers()? {
            let state = match container.status {
                Status::Created => "created",
                Status::Running { .. } => "running",
                Status::Exited { .. } => "exited",
            };
            let key = [container.driver, state.to_owned()];
            *counted.containers.entry(key).or_default() += 1;
        }
        Ok(counted)
    }

    fn gather(self, gauges: &mut Gauges) -> prometheus::Result<()> {
        gauges.one("layerd_images", "Images.", self.images as f64)?;
        let help = "Images by the drivers that keep them.";
        gauges.family("layerd_images_by_driver", help, &["driver"], self.images_by_driver)?;
        gauges.family("layerd_layers", "Layers of images.", &["driver"], self.layers)?;
        let help = "Bytes that layers of images take on disk, as measured when they came.";
        gauges.family("layerd_layers_bytes", help, &["driver"], self.layer_bytes)?;
        let labels = &["driver", "kind", "namespace"];
        gauges.family("layerd_snapshots", "Snapshots of clients.", labels, self.snapshots)?;
        let help = "Bytes that committed snapshots take on disk, as measured at their commit.";
        gauges.family("layerd_snapshots_bytes", help, &["driver"], self.snapshot_bytes)?;
        gauges.family("layerd_containers", "Containers.", &["driver", "state"], self.containers)
    }
}

/// The mounts below the root of the store, by driver, from the text of the kernel's table.
fn mounts(gauges: &mut Gauges, root: &Path, table: &str) -> prometheus::Result<()> {
    let root = escaped(root);
    let (mut by_driver, mut layerfs) = (BTreeMap::new(), 0);
    for name in NAMES {
        by_driver.insert([name], 0);
    }
    for line in table.lines() {
        // proc(5): the mount point is the fifth field, the type the first behind the hyphen.
        let Some(below) = line.split(' ').nth(4).and_then(|point| point.strip_prefix(&*root))
        else {
            continue;
        };
        let driver = below.strip_prefix('/').and_then(|below| below.split('/').next());
        if let Some(count) = driver.and_then(|driver| by_driver.get_mut(&[driver])) {
            *count += 1;
            let kind = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').next());
            layerfs += u64::from(kind == Some("fuse.layerfs"));
        }
    }
    by_driver.retain(|_, count| *count > 0);
    let total: u64 = by_driver.values().sum();
    gauges.one("layerd_mounts", "Mounts that the daemon made in its root.", total as f64)?;
    let help = "Mounts in the root by driver.";
    gauges.family("layerd_mounts_by_driver", help, &["driver"], by_driver)?;
    gauges.one("layerd_layerfs_mounts", "Mounts of layerfs among them.", layerfs as f64)
}

/// A path as the kernel's tables write it: white space and backslashes in octal.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for character in path.to_string_lossy().chars() {
        match character {
            ' ' | '\t' | '\n' | '\\' => text.push_str(&format!("\\{:03o}", u32::from(character))),
            other => text.push(other),
        }
    }
    text
}

/// The pools of drivers that keep layers on block devices.
fn pools(gauges: &mut Gauges, store: &Store) -> prometheus::Result<()> {
    let drivers = store.open_drivers();
    let reports: Vec<(&str, PoolReport)> = drivers
        .iter()
        .filter_map(|driver| Some((driver.name(), driver.pool()?.report().ok()?)))
        .collect();
    type Figure = fn(&PoolReport) -> u64;
    let figures: [(&str, &str, Figure); 6] = [
        ("layerd_pool_data_used_bytes", "Data that layers use.", |pool| pool.data.used),
        ("layerd_pool_data_bytes", "Data that there is room for.", |pool| pool.data.total),
        ("layerd_pool_metadata_used_bytes", "Metadata in use.", |pool| pool.metadata.used),
        ("layerd_pool_metadata_bytes", "Room for metadata.", |pool| pool.metadata.total),
        ("layerd_pool_spare_bytes", "What a pool can still grow by.", |pool| pool.spare),
        ("layerd_pool_writable", "Whether a pool takes all writes.", |pool| {
            u64::from(pool.mode == "rw")
        }),
    ];
    for (name, help, figure) in figures {
        let values = reports.iter().map(|(driver, pool)| ([*driver, &*pool.name], figure(pool)));
        gauges.family(name, help, &["driver", "pool"], values)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_in_the_root_are_counted_by_driver() {
        let table = r"1 0 8:1 / / rw - ext4 /dev/sda rw
2 1 0:30 / /a\040b/overlay2/layers/1/merged rw shared:1 - overlay overlay rw
3 1 0:31 / /a\040b/fuse/layers/2/merged rw - fuse.layerfs layerfs rw
4 1 0:32 / /a\040b/fuse rw - tmpfs tmpfs rw
5 1 0:33 / /a\040bc/vfs/x rw - tmpfs tmpfs rw
6 1 0:33 / /a\040b/other rw - tmpfs tmpfs rw";
        let mut gauges = Gauges::default();
        mounts(&mut gauges, Path::new("/a b"), table).expect("figures");
        let text = TextEncoder::new().encode_to_string(&gauges.0.gather()).expect("text");
        for line in [
            "layerd_mounts 3",
            "layerd_mounts_by_driver{driver=\"overlay2\"} 1",
            "layerd_mounts_by_driver{driver=\"fuse\"} 2",
            "layerd_layerfs_mounts 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("vfs"), "nothing is mounted there:\n{text}");
    }
}
