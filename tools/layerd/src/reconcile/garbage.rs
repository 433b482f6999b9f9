//! What nothing refers to.

use std::collections::{HashMap, HashSet};

use cow::digest::ChainId;
use drivers::{LayerId, LayerInfo};

use crate::catalogue::Lookup;
use crate::error::Result;

/// A layer that can go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Waste {
    /// Its stack, for a layer of images on which nothing lies any more; none for a layer that the
    /// catalogue does not know, because a crash left it.
    pub(crate) chain: Option<ChainId>,
    /// The layer.
    pub(crate) info: LayerInfo,
}

/// Finds what can go of one driver's layers, those on top first.
pub(crate) fn find(rows: &impl Lookup, driver: &str, infos: &[LayerInfo]) -> Result<Vec<Waste>> {
    let by_id: HashMap<&str, &LayerInfo> =
        infos.iter().map(|info| (info.id.as_str(), info)).collect();
    let chains: HashMap<LayerId, ChainId> = rows
        .layers()?
        .into_iter()
        .filter(|(theirs, ..)| theirs == driver)
        .map(|(_, chain, layer)| (layer.layer, chain))
        .collect();
    let snapshots: HashSet<LayerId> = rows
        .snapshots()?
        .into_iter()
        .filter(|(_, snapshot)| snapshot.driver == driver)
        .map(|(_, snapshot)| snapshot.layer)
        .collect();

    let mut above = children(rows, driver, infos)?;
    let mut waste = Vec::new();
    let mut todo: Vec<&LayerInfo> = infos
        .iter()
        .filter(|info| above.get(info.id.as_str()).is_none_or(HashSet::is_empty))
        .collect();
    while let Some(info) = todo.pop() {
        if snapshots.contains(&info.id) {
            continue;
        }
        waste.push(Waste { chain: chains.get(&info.id).copied(), info: info.clone() });
        let Some(parent) = &info.parent else { continue };
        if let Some(others) = above.get_mut(parent.as_str()) {
            others.remove(info.id.as_str());
            if others.is_empty() {
                todo.extend(by_id.get(parent.as_str()));
            }
        }
    }
    Ok(waste)
}

/// Who lies on each layer, by the driver's word and by the catalogue's.
fn children(
    rows: &impl Lookup,
    driver: &str,
    infos: &[LayerInfo],
) -> Result<HashMap<String, HashSet<String>>> {
    let mut above: HashMap<String, HashSet<String>> = HashMap::new();
    let mut note = |parent: &str, child: &str| {
        above.entry(parent.to_owned()).or_default().insert(child.to_owned());
    };
    for info in infos {
        if let Some(parent) = &info.parent {
            note(parent.as_str(), info.id.as_str());
        }
    }
    for (theirs, parent, child) in rows.children()? {
        if theirs == driver {
            note(&parent, &child);
        }
    }
    Ok(above)
}
