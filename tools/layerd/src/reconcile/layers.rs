//! The catalogue against the layers of one driver.

use std::collections::{BTreeSet, HashMap, HashSet};

use cow::digest::ChainId;
use drivers::{LayerId, LayerInfo, State};

use super::{Mend, Step};
use crate::catalogue::owner::Owner;
use crate::catalogue::{
    Container, Layer, Lookup, Snapshot, SnapshotKind, is_image_child, sharer_child,
};
use crate::error::Result;

/// Compares one driver's layers with the catalogue.
pub(crate) fn plan(rows: &impl Lookup, driver: &str, infos: &[LayerInfo]) -> Result<Vec<Step>> {
    let mut plan = Plan {
        driver,
        infos: infos.iter().map(|info| (&info.id, info)).collect(),
        containers: rows.containers()?.into_iter().map(|c| (c.id.clone(), c)).collect(),
        chains: HashSet::new(),
        keys: HashSet::new(),
        sharers: Vec::new(),
        owned: HashSet::new(),
        steps: Vec::new(),
    };
    for (theirs, chain, layer) in rows.layers()? {
        if theirs == driver {
            plan.layer_row(chain, layer);
        }
    }
    for (namespace, snapshot) in rows.snapshots()? {
        if snapshot.driver == driver {
            plan.snapshot_row(namespace, snapshot);
        } else {
            plan.keys.insert((namespace, snapshot.key));
        }
    }
    for info in infos {
        plan.layer_file(info);
    }
    plan.children(rows)?;
    Ok(plan.steps)
}

struct Plan<'a> {
    driver: &'a str,
    infos: HashMap<&'a LayerId, &'a LayerInfo>,
    containers: HashMap<String, Container>,
    /// Chains that have a row and a layer.
    chains: HashSet<ChainId>,
    /// Keys of snapshots that are taken.
    keys: HashSet<(String, String)>,
    /// Snapshots that share layers of images, as children of those layers.
    sharers: Vec<(LayerId, String)>,
    /// Layers that a row stands for, or will.
    owned: HashSet<LayerId>,
    steps: Vec<Step>,
}

impl Plan<'_> {
    fn layer_row(&mut self, chain: ChainId, layer: Layer) {
        let sound = self.infos.get(&layer.layer).is_some_and(|info| info.state == State::Committed);
        if sound {
            self.chains.insert(chain);
            self.owned.insert(layer.layer);
            return;
        }
        let problem = format!("{}: layer {} of chain {chain} is missing", self.driver, layer.layer);
        let mend = Mend::DropLayer { driver: self.driver.to_owned(), chain, layer: layer.layer };
        self.steps.push(Step::behind(problem, mend));
    }

    fn snapshot_row(&mut self, namespace: String, snapshot: Snapshot) {
        let shown = format!("{}: snapshot {:?} of {namespace}", self.driver, snapshot.key);
        let key = snapshot.key.clone();
        let Some(info) = self.infos.get(&snapshot.layer) else {
            let problem = format!("{shown}: its layer {} is missing", snapshot.layer);
            let mend = Mend::DropSnapshot { namespace, key };
            let lost = snapshot.kind == SnapshotKind::Committed;
            self.steps.push(match lost {
                true => Step::damage(problem, mend),
                false => Step::leftover(problem, mend),
            });
            self.drop_container(&snapshot.key);
            return;
        };
        let kind = SnapshotKind::from(info.state);
        if snapshot.kind != kind {
            // A crash came between the driver's commit and the catalogue's.
            let problem = format!("{shown}: is {} in the driver", kind.as_str());
            self.steps.push(Step::behind(problem, Mend::DropSnapshot { namespace, key }));
            return;
        }
        let told = Owner::snapshots_of(info, self.driver);
        let told = told.into_iter().find(|(theirs, s)| *theirs == namespace && s.key == key);
        if snapshot.shared.is_some() {
            if told.is_none() {
                // A crash cut its removal short.
                let problem = format!("{shown}: does not share layer {}", snapshot.layer);
                self.steps.push(Step::behind(problem, Mend::DropSnapshot { namespace, key }));
                return;
            }
            self.sharers.push((snapshot.layer, sharer_child(&namespace, &key)));
        } else {
            self.owned.insert(snapshot.layer);
        }
        self.keys.insert((namespace, key));
        if let Some((namespace, told)) = told.filter(|(_, told)| told.updated > snapshot.updated) {
            let problem = format!("{shown}: its labels changed since");
            self.steps.push(Step::behind(problem, Mend::PutSnapshot { namespace, snapshot: told }));
        }
    }

    /// A container whose changes are gone cannot be shown as if it were there.
    fn drop_container(&mut self, id: &str) {
        if let Some(container) = self.containers.remove(id) {
            let problem = format!("container {} lost its snapshot", container.name);
            self.steps.push(Step::leftover(problem, Mend::DropContainer(Box::new(container))));
        }
    }

    fn layer_file(&mut self, info: &LayerInfo) {
        match Owner::of_info(info) {
            Some(Owner::Image { content_size, sharers }) => {
                if !self.owned.contains(&info.id) {
                    self.adopt_layer(info, content_size);
                }
                if !sharers.is_empty() && self.owned.contains(&info.id) {
                    self.adopt_snapshots(info);
                }
            }
            Some(Owner::Snapshot { container, .. })
                if !self.owned.contains(&info.id) && self.adopt_snapshots(info) =>
            {
                self.owned.insert(info.id.clone());
                self.adopt_container(container);
            }
            _ => {}
        }
    }

    fn adopt_layer(&mut self, info: &LayerInfo, content_size: u64) {
        let (Some(chain), Some(diff_id), State::Committed) =
            (info.record.chain_id, info.record.diff_id, info.state)
        else {
            return;
        };
        if !self.chains.insert(chain) {
            return;
        }
        let below = info.parent.clone();
        let parent = below
            .as_ref()
            .and_then(|below| self.infos.get(below))
            .and_then(|below| below.record.chain_id);
        let layer = Layer {
            layer: info.id.clone(),
            parent,
            diff_id,
            tar_size: info.record.tar_size.unwrap_or_default(),
            content_size,
            usage: info.usage.unwrap_or_default(),
        };
        self.owned.insert(info.id.clone());
        let problem =
            format!("{}: layer {} of chain {chain} is not in the catalogue", self.driver, info.id);
        let driver = self.driver.to_owned();
        self.steps.push(Step::behind(problem, Mend::PutLayer { driver, chain, layer, below }));
    }

    /// Takes in the snapshots that a metadata file tells of and whose keys are free; the answer is
    /// whether there are any.
    fn adopt_snapshots(&mut self, info: &LayerInfo) -> bool {
        let mut any = false;
        for (namespace, snapshot) in Owner::snapshots_of(info, self.driver) {
            if !self.keys.insert((namespace.clone(), snapshot.key.clone())) {
                continue;
            }
            any = true;
            if snapshot.shared.is_some() {
                self.sharers.push((info.id.clone(), sharer_child(&namespace, &snapshot.key)));
            }
            let problem = format!(
                "{}: snapshot {:?} of {namespace} (layer {}) is not in the catalogue",
                self.driver, snapshot.key, info.id
            );
            self.steps.push(Step::behind(problem, Mend::PutSnapshot { namespace, snapshot }));
        }
        any
    }

    fn adopt_container(&mut self, container: Option<Box<Container>>) {
        let Some(mut container) = container else { return };
        if self.containers.contains_key(&container.id) {
            return;
        }
        if self.containers.values().any(|other| other.name == container.name) {
            container.name = container.id.chars().take(12).collect();
        }
        self.containers.insert(container.id.clone(), (*container).clone());
        let problem = format!("container {} is not in the catalogue", container.name);
        self.steps.push(Step::behind(problem, Mend::PutContainer(container)));
    }

    fn children(&mut self, rows: &impl Lookup) -> Result<()> {
        let expected: BTreeSet<(&str, &str)> = self
            .infos
            .values()
            .filter(|info| self.owned.contains(&info.id))
            .filter_map(|info| Some((info.parent.as_ref()?.as_str(), info.id.as_str())))
            .chain(self.sharers.iter().map(|(layer, child)| (layer.as_str(), child.as_str())))
            .collect();
        let children = rows.children()?;
        let actual: BTreeSet<(&str, &str)> = children
            .iter()
            .filter(|(driver, _, child)| driver == self.driver && !is_image_child(child))
            .map(|(_, parent, child)| (parent.as_str(), child.as_str()))
            .collect();
        let change = |&(parent, child): &(&str, &str), put: bool| {
            let driver = self.driver.to_owned();
            let problem = format!("{driver}: the catalogue misjudges who lies on layer {parent}");
            let (parent, child) = (parent.to_owned(), child.to_owned());
            let mend = match put {
                true => Mend::PutChild { driver, parent, child },
                false => Mend::DropChild { driver, parent, child },
            };
            Step::behind(problem, mend)
        };
        // The parents of layers that are put now are noted with them.
        let put: HashSet<&str> = self
            .steps
            .iter()
            .filter_map(|step| match &step.mend {
                Mend::PutLayer { layer, .. } => Some(layer.layer.as_str()),
                _ => None,
            })
            .collect();
        let missing = expected.difference(&actual).filter(|(_, child)| !put.contains(child));
        let mut steps: Vec<Step> = missing.map(|pair| change(pair, true)).collect();
        steps.extend(actual.difference(&expected).map(|pair| change(pair, false)));
        for (driver, parent, child) in &children {
            let image = is_image_child(child) && driver == self.driver;
            if image && !self.infos.keys().any(|id| id.as_str() == parent) {
                steps.push(change(&(parent, child), false));
            }
        }
        self.steps.append(&mut steps);
        Ok(())
    }
}
