//! Changing the metadata of a layer that stays what it is.

use std::collections::BTreeMap;

use super::fs::{self, Durability};
use super::meta::Meta;
use super::{Home, Layer, META, NEXT_META};
use crate::call::Call;
use crate::driver::State;
use crate::error::Result;

impl Home {
    /// Stores changed metadata of a layer that is not committed; not durable. The caller owns the
    /// layer's gate.
    pub(crate) fn update(&self, call: Call<'_>, layer: &Layer, meta: Meta) -> Result<()> {
        self.rewrite(layer, &meta).map_err(|error| call.failed(error))?;
        layer.set_meta(meta);
        Ok(())
    }

    /// Puts other labels into the catalogue's record of a layer, which may be in use.
    pub(crate) fn relabel(&self, call: Call<'_>, labels: &BTreeMap<String, String>) -> Result<()> {
        let layer = self.layer(call)?;
        let _gate = layer.share(call)?;
        let _rewriting = layer.rewriting();
        let mut meta = Meta::clone(&layer.meta());
        meta.record.labels.clone_from(labels);
        self.rewrite(&layer, &meta).map_err(|error| call.failed(error))?;
        layer.set_meta(meta);
        Ok(())
    }

    /// Writes the metadata file of a layer: durably where the layer is, so that a power cut never
    /// leaves an empty file in place of a committed layer's.
    fn rewrite(&self, layer: &Layer, meta: &Meta) -> cow::Result<()> {
        let dir = fs::open_dir(&self.layers, &layer.id)?;
        let bytes = meta.to_bytes()?;
        if meta.state == State::Committed {
            return fs::replace_file(&dir, META, &bytes);
        }
        fs::write_file(&dir, NEXT_META, &bytes, Durability::Later)?;
        fs::rename(&dir, NEXT_META, &dir, META)
    }
}
