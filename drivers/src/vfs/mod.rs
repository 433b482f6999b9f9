//! The vfs driver: each layer is a full tree of its own.
//!
//! ```text
//! layers/<id>/
//!     layer.json   see `home`
//!     tree/        everything the layer shows
//!     merged/      the mount point, only while mounted
//! ```
//!
//! It works on every file system and asks nothing of the kernel but bind mounts. A layer costs a
//! copy of its parent, by reflink where the file system has them; a view is its parent's tree. As
//! nothing is merged there is nothing to get wrong, which makes it the oracle that the tests hold the
//! other drivers to.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::Path;

use cow::copy::Options;
use cow::root::Root;

use crate::backend::{self, Backend, Difference, refuse_size};
use crate::backing;
use crate::call::{Call, HomeCall};
use crate::driver::{Access, Applied, Capabilities, Mount, Usage};
use crate::error::Result;
use crate::home::check::Required;
use crate::home::commit::Sealing;
use crate::home::meta::Meta;
use crate::home::mounts::MERGED;
use crate::home::{self, Home, Layer, fs};
use crate::id::LayerId;
use crate::options::Given;
use crate::whole::{self, has_tree, shown, writable};

/// The driver's name.
pub(crate) const NAME: &str = "vfs";

/// A layer's content.
const TREE: &str = "tree";

/// The options that the driver and its layers take.
const KNOWN: [&str; 1] = ["size"];

/// The driver. See the [module](self).
#[derive(Debug)]
pub(crate) struct Vfs {
    home: Home,
}

impl Vfs {
    /// Opens a home.
    pub(crate) fn open<S: AsRef<str>>(path: &Path, list: &[S]) -> Result<Self> {
        let call = HomeCall { driver: NAME, op: "open" };
        let size = Given::parse(call, &KNOWN, list)?.size(call, "size")?;
        let home = Home::open(NAME, path, &[])?;
        refuse_size(call, &home, size)?;
        Ok(Self { home })
    }

    /// Sees whether the driver works below `dir`, without leaving anything there.
    pub(crate) fn probe(dir: &Path) -> Result<()> {
        let call = HomeCall { driver: NAME, op: "probe" };
        home::try_in(call, dir, |home| Self::open::<&str>(home, &[]).map(drop))
    }

    fn tree(&self, id: &LayerId) -> cow::Result<Root> {
        let dir = self.home.open_in_layer(id, TREE)?;
        Ok(Root::from_fd(dir, self.home.layer_path(id, TREE)))
    }
}

impl Backend for Vfs {
    fn home(&self) -> &Home {
        &self.home
    }

    fn able(&self) -> Capabilities {
        let id_map = self.home.maps_ids();
        Capabilities { client_mounts: true, id_map, ..Capabilities::default() }
    }

    fn build(&self, call: Call<'_>, meta: &mut Meta, dir: BorrowedFd<'_>) -> Result<()> {
        if !has_tree(meta) {
            return Ok(());
        }
        let build = || {
            let tree = fs::make_dir(dir, TREE, 0o755)?;
            if let Some(parent) = &meta.parent {
                let path = self.home.layer_path(&meta.id, TREE);
                let to = Root::from_fd(tree, path);
                cow::copy::tree(&self.tree(parent)?, &to, Options::default())?;
            }
            Ok(())
        };
        build().map_err(|error| call.failed(error))
    }

    fn fill(&self, call: Call<'_>, layer: &Layer, tar: &mut dyn Read) -> Result<Applied> {
        let is_bottom = layer.meta().parent.is_none();
        let applied = self.tree(&layer.id).and_then(|tree| whole::apply(&tree, tar, is_bottom));
        applied.map_err(|error| call.failed(error))
    }

    fn seal(&self, sealing: &Sealing<'_>) -> Result<Usage> {
        let call = self.home.call("commit", &sealing.layer.id);
        self.measure(&sealing.layer.id).map_err(|error| call.failed(error))
    }

    fn describe(&self, _call: Call<'_>, layer: &Layer, access: Access) -> Result<Vec<Mount>> {
        let writable = writable(layer, access);
        Ok(vec![Mount {
            fstype: "bind".to_owned(),
            source: self.home.layer_path(&shown(&layer.meta()), TREE),
            options: vec!["rbind".to_owned(), if writable { "rw" } else { "ro" }.to_owned()],
        }])
    }

    fn difference(
        &self,
        call: Call<'_>,
        layer: &Layer,
        base: Option<&LayerId>,
    ) -> Result<Difference<'_>> {
        let meta = layer.meta();
        let below = self.home.compared_with(call, &meta, base)?;
        let compare = || {
            let lower = below.as_ref().map(|id| self.tree(id)).transpose()?;
            let upper = self.tree(&shown(&meta))?;
            Ok(Difference::new(cow::diff::trees(lower.as_ref(), &upper)?, vec![upper]))
        };
        compare().map_err(|error| call.failed(error))
    }

    /// All of the tree, as nothing is shared with the parent that the file system could tell.
    fn measure(&self, id: &LayerId) -> cow::Result<Usage> {
        let usage = cow::usage::usage(&self.tree(id)?)?;
        Ok(Usage { bytes: usage.bytes, inodes: usage.inodes, content: usage.content })
    }

    fn keys(&self, _call: Call<'_>, layer: &Layer) -> Result<BTreeMap<String, String>> {
        let path = |name| self.home.layer_path(&layer.id, name).display().to_string();
        Ok(BTreeMap::from([
            ("UpperDir".to_owned(), path(TREE)),
            ("MergedDir".to_owned(), path(MERGED)),
        ]))
    }

    fn owner_of_root(&self, id: &LayerId) -> cow::Result<(u32, u32)> {
        backend::owner_of(self.home.open_in_layer(id, TREE)?)
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        vec![("Backing Filesystem", backing::name(self.home.root()).to_owned())]
    }

    fn required(&self, layer: &Layer) -> Vec<Required> {
        let own = has_tree(&layer.meta());
        own.then_some(Required { name: TREE, data: true }).into_iter().collect()
    }
}
