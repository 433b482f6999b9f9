//! A page about two images: in what the second differs from the first.
//!
//! The files that differ are those of `layerctl diff`, each side is what the page about one image says of it, and the
//! lists of layers and build steps are laid side by side ([`mod@align`]).

mod align;
mod page;
mod tables;
mod trees;

use std::collections::BTreeMap;

use cow::compare::Differences;
use serde::Serialize;
use serde_json::Value;

pub(crate) use page::page;

use self::align::{Pair, align};
use super::Report;
use super::sizes::Node;
use crate::commands::diff::report::{Change, Summary, gather};
use crate::inspect::Subject;

/// All that is known of two things and their differences.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Comparison {
    /// The first.
    pub(crate) a: Report,
    /// The second.
    pub(crate) b: Report,
    /// Totals, as `diff` has them.
    pub(crate) summary: Summary,
    /// In how many paths that both have what differs.
    pub(crate) differences: BTreeMap<&'static str, u64>,
    /// Layers with the same content in the same order.
    pub(crate) shared: Shared,
    /// The layers side by side.
    pub(crate) layers: Vec<Pair>,
    /// The steps of the build side by side; the same command may well have made another layer.
    pub(crate) history: Vec<Pair>,
    /// What differs in the defaults of a container.
    pub(crate) config: Vec<Setting>,
    /// The paths that differ, as `diff` has them.
    pub(crate) changes: Vec<Change>,
    /// How many bytes are added or freed, by directory.
    #[serde(skip)]
    growth: Node,
    /// Content that only the second has, by directory.
    #[serde(skip)]
    written: Node,
}

/// What both have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Shared {
    /// How many layers.
    pub(crate) layers: u64,
    /// The bytes that they store.
    pub(crate) bytes: u64,
}

/// One of the defaults of a container, or the platform.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Setting {
    /// Its name in the image config.
    pub(crate) name: String,
    /// What the first has.
    pub(crate) a: Option<Value>,
    /// What the second has.
    pub(crate) b: Option<Value>,
}

impl Comparison {
    /// Gathers it. Contents are read, for their digests.
    pub(crate) fn of(a: &Subject, b: &Subject) -> anyhow::Result<Self> {
        let diff = gather(a, b, Differences::NONE, false)?;
        let config = settings(a, b)?;
        let (a, b) = (Report::of(a)?, Report::of(b)?);
        let mut differences = BTreeMap::new();
        for what in diff.changes.iter().flat_map(|change| &change.what) {
            *differences.entry(*what).or_default() += 1;
        }
        // What has no diffID is no layer that anything else could have.
        let ids = |report: &Report, side: usize| {
            let layers = report.layers.iter();
            layers
                .map(|layer| layer.diff_id.clone().ok_or((side, layer.number)))
                .collect::<Vec<_>>()
        };
        let layers = align(&ids(&a, 0), &ids(&b, 1));
        let both = layers.iter().filter(|pair| pair.b.is_some());
        let stored = both.filter_map(|pair| Some(a.layers.get(pair.a? - 1)?.stored));
        let shared = stored.fold(Shared::default(), |shared, bytes| Shared {
            layers: shared.layers + 1,
            bytes: shared.bytes + bytes,
        });
        let steps = |report: &Report| {
            let steps = report.history.iter();
            steps.map(|step| (step.step.created_by.clone(), step.step.empty)).collect::<Vec<_>>()
        };
        let history = align(&steps(&a), &steps(&b));
        let (growth, written) = (trees::growth(&diff.changes), trees::written(&diff.changes));
        let (summary, changes) = (diff.summary, diff.changes);
        Ok(Self {
            a,
            b,
            summary,
            differences,
            shared,
            layers,
            history,
            config,
            changes,
            growth,
            written,
        })
    }
}

/// The settings that differ, of images.
fn settings(a: &Subject, b: &Subject) -> anyhow::Result<Vec<Setting>> {
    let of = |subject: &Subject| -> anyhow::Result<BTreeMap<String, Value>> {
        let Some(config) = &subject.config else { return Ok(BTreeMap::new()) };
        let mut settings = BTreeMap::new();
        if let Value::Object(members) = serde_json::to_value(&config.config)? {
            settings.extend(members.into_iter().filter(|(_, value)| !value.is_null()));
        }
        settings.insert("Platform".to_owned(), Value::String(config.platform().to_string()));
        Ok(settings)
    };
    let (mut a, mut b) = (of(a)?, of(b)?);
    let names: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).cloned().collect();
    let setting = |name: String| Setting { a: a.remove(&name), b: b.remove(&name), name };
    Ok(names.into_iter().map(setting).filter(|setting| setting.a != setting.b).collect())
}
