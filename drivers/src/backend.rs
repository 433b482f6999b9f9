//! What a backend with a [`Home`] says for itself; the rest of the contract is the same for all of
//! them and written here once, above all who holds which lock: whoever changes a layer's data owns
//! its gate, whoever reads the data shares it.
//!
//! A backend implements [`Backend`], and is a [`Driver`] thereby.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use cow::change::Changeset;
use cow::root::Root;

use crate::call::{Call, HomeCall};
use crate::driver::{
    Access, Applied, Capabilities, CreateOptions, Driver, Finding, LayerInfo, LayerRecord, Mount,
    Pool, State, Usage,
};
use crate::error::{Error, ErrorKind, Result};
use crate::home::check::Required;
use crate::home::commit::{Flush, Manner, Sealing};
use crate::home::meta::Meta;
use crate::home::mounts::Ending;
use crate::home::{Home, Layer};
use crate::id::LayerId;
use crate::id_map::IdMaps;
use crate::options::Given;
use crate::quota;
use crate::whole::writable;

/// The options that a layer of any backend takes.
const KNOWN_OF_LAYER: [&str; 1] = ["size"];

/// A storage backend over a [`Home`].
pub(crate) trait Backend: Send + Sync + Debug {
    /// Where it keeps its layers.
    fn home(&self) -> &Home;

    /// See [`Driver::capabilities`].
    fn able(&self) -> Capabilities;

    /// What [`Home::commit`](crate::home::Home::commit) syncs for it.
    fn flush(&self) -> Flush {
        Flush::FileSystem
    }

    /// Sees that a layer can be limited to a size.
    fn check_size(&self, call: HomeCall, size: u64) -> Result<()> {
        refuse_size(call, self.home(), Some(size))
    }

    /// What the tree of a new layer on `parent` is made from ([`Meta::origin`]).
    fn origin(&self, _call: Call<'_>, _parent: &LayerId) -> Result<Option<String>> {
        Ok(None)
    }

    /// Sees that a layer of this state can be made on `parent`.
    fn check_new(&self, _call: Call<'_>, _parent: Option<&LayerId>, _state: State) -> Result<()> {
        Ok(())
    }

    /// Fills the directory of a new layer, which is as yet under a temporary name. What it notes in the metadata is
    /// kept with the layer.
    fn build(&self, call: Call<'_>, meta: &mut Meta, dir: BorrowedFd<'_>) -> Result<()>;

    /// Applies a tar to a layer, whose gate is owned.
    fn fill(&self, call: Call<'_>, layer: &Layer, tar: &mut dyn Read) -> Result<Applied>;

    /// Puts the data of a layer that is being committed in its final form, and measures it.
    fn seal(&self, sealing: &Sealing<'_>) -> Result<Usage>;

    /// Frees what a committed layer no longer needs.
    fn sealed(&self, _id: &LayerId) {}

    /// Drops what is kept for layers on one that is removed now.
    fn removed(&self, _id: &LayerId) {}

    /// See [`Driver::mounts`].
    fn describe(&self, call: Call<'_>, layer: &Layer, access: Access) -> Result<Vec<Mount>>;

    /// See [`Driver::mount`]; the layer's gate is shared. As described, unless the backend has more to do.
    fn show(&self, call: Call<'_>, layer: &Layer, access: Access) -> Result<PathBuf> {
        let mounts = self.describe(call, layer, access)?;
        self.home().take_mount(call, layer, writable(layer, access), |target| {
            mounts.iter().try_for_each(|mount| attach(call, layer, mount, target))
        })
    }

    /// See [`Driver::unmount`]. The end of a bind mount takes no time.
    fn hide(&self, call: Call<'_>, layer: &Layer) -> Result<()> {
        self.home().drop_mount(call, layer, Ending::Quick, || Ok(()))
    }

    /// How a layer differs from `base`, or from the layer below it; the layer's gate is shared.
    fn difference(
        &self,
        call: Call<'_>,
        layer: &Layer,
        base: Option<&LayerId>,
    ) -> Result<Difference<'_>>;

    /// The space that a layer takes now; it is no view and its gate is shared.
    fn measure(&self, id: &LayerId) -> cow::Result<Usage>;

    /// See [`Driver::metadata`].
    fn keys(&self, call: Call<'_>, layer: &Layer) -> Result<BTreeMap<String, String>>;

    /// See [`Driver::status`].
    fn facts(&self) -> Vec<(&'static str, String)>;

    /// The directories that a layer must have.
    fn required(&self, layer: &Layer) -> Vec<Required>;

    /// The user and the group that own a committed layer's root.
    fn owner_of_root(&self, id: &LayerId) -> cow::Result<(u32, u32)>;

    /// What else can be wrong, for [`Driver::check`].
    fn inspect(&self) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    /// Mends what [`Backend::inspect`] calls repairable and says what it did.
    fn mend(&self) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    /// Lets go of what is held outside of the home when everything is unmounted.
    fn let_go(&self) -> Result<()> {
        Ok(())
    }

    /// See [`Driver::pool`].
    fn pool(&self) -> Option<&dyn Pool> {
        None
    }
}

/// How a layer differs from one below it.
#[derive(Debug)]
pub(crate) struct Difference<'h> {
    /// The changed paths.
    pub(crate) changes: Changeset,
    /// What their locations are in.
    pub(crate) roots: Vec<Root>,
    /// What the roots show is kept as long as this, which goes after them.
    pub(crate) held: Option<Box<dyn Debug + 'h>>,
}

impl Difference<'_> {
    /// A difference whose roots need nothing to be kept.
    pub(crate) fn new(changes: Changeset, roots: Vec<Root>) -> Self {
        Self { changes, roots, held: None }
    }
}

impl<B: Backend> Driver for B {
    fn name(&self) -> &'static str {
        self.home().driver()
    }

    fn capabilities(&self) -> Capabilities {
        self.able()
    }

    fn create(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        options: &CreateOptions,
    ) -> Result<()> {
        let home = self.home();
        let call = home.call("create", id);
        let size = size_of(self, call, options)?;
        if options.state == State::Committed {
            return Err(call.refused(ErrorKind::InvalidArgument, "a layer is not made committed"));
        }
        self.check_new(call, parent, options.state)?;
        let mut meta = Meta::new(id.clone(), parent.cloned(), options.state);
        meta.record.labels = options.labels.clone();
        meta.size = size;
        meta.id_map = id_map_of(self, call, parent, options)?;
        if let Some(parent) = parent.filter(|_| options.state == State::Active) {
            meta.origin = self.origin(call, parent)?;
        }
        home.create(call, meta, |dir, meta| self.build(call, meta, dir))
    }

    fn apply(&self, id: &LayerId, tar: &mut dyn Read) -> Result<Applied> {
        let call = self.home().call("apply", id);
        let layer = self.home().layer(call)?;
        let _gate = layer.own(call)?;
        self.home().check_appliable(call, &layer)?;
        self.fill(call, &layer, tar)
    }

    fn commit(&self, id: &LayerId, record: &LayerRecord) -> Result<LayerInfo> {
        let call = self.home().call("commit", id);
        let infos = self.commit_many(&[(id.clone(), record.clone())])?;
        infos.into_iter().next().ok_or_else(|| call.not_found())
    }

    fn commit_many(&self, batch: &[(LayerId, LayerRecord)]) -> Result<Vec<LayerInfo>> {
        let manner = Manner { rebase: self.able().rebase, flush: self.flush() };
        let infos = self.home().commit(batch, manner, |sealing| self.seal(sealing))?;
        for (id, _) in batch {
            self.sealed(id);
        }
        Ok(infos)
    }

    fn relabel(&self, id: &LayerId, labels: &BTreeMap<String, String>) -> Result<()> {
        self.home().relabel(self.home().call("relabel", id), labels)
    }

    fn remove(&self, id: &LayerId) -> Result<()> {
        self.home().remove(self.home().call("remove", id))?;
        self.removed(id);
        Ok(())
    }

    fn info(&self, id: &LayerId) -> Result<LayerInfo> {
        Ok(self.home().layer(self.home().call("info", id))?.meta().info())
    }

    fn list(&self) -> Result<Vec<LayerInfo>> {
        Ok(self.home().layers().iter().map(|layer| layer.meta().info()).collect())
    }

    fn mounts(&self, id: &LayerId, access: Access) -> Result<Vec<Mount>> {
        let call = self.home().call("mounts", id);
        if !self.able().client_mounts {
            let reason = "only the daemon can mount the layers of this driver";
            return Err(call.refused(ErrorKind::Unsupported, reason));
        }
        let layer = self.home().layer(call)?;
        if layer.meta().id_map.is_some() {
            let reason = "only the daemon can mount a layer with mapped ids";
            return Err(call.refused(ErrorKind::Unsupported, reason));
        }
        self.describe(call, &layer, access)
    }

    fn mount(&self, id: &LayerId, access: Access) -> Result<PathBuf> {
        let call = self.home().call("mount", id);
        let layer = self.home().layer(call)?;
        let _gate = layer.share(call)?;
        self.show(call, &layer, access)
    }

    fn unmount(&self, id: &LayerId) -> Result<()> {
        let call = self.home().call("unmount", id);
        let layer = self.home().layer(call)?;
        self.hide(call, &layer)
    }

    fn release(&self, id: &LayerId) -> Result<()> {
        let call = self.home().call("unmount", id);
        let layer = self.home().layer(call)?;
        self.home().let_go(&layer);
        self.hide(call, &layer)
    }

    fn changes(&self, id: &LayerId, base: Option<&LayerId>) -> Result<Changeset> {
        let call = self.home().call("changes", id);
        let layer = self.home().layer(call)?;
        let _gate = layer.share(call)?;
        self.difference(call, &layer, base).map(|difference| difference.changes)
    }

    fn diff(&self, id: &LayerId, base: Option<&LayerId>, out: &mut dyn Write) -> Result<u64> {
        let call = self.home().call("diff", id);
        let layer = self.home().layer(call)?;
        let _gate = layer.share(call)?;
        let Difference { held: _held, roots, changes } = self.difference(call, &layer, base)?;
        cow::pack::pack(&changes, &roots, out).map_err(|error| call.failed(error))
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        let call = self.home().call("usage", id);
        let layer = self.home().layer(call)?;
        let _gate = layer.share(call)?;
        let meta = layer.meta();
        match (meta.usage, meta.state, &meta.parent) {
            (Some(usage), ..) => Ok(usage),
            (None, State::View, Some(_)) => Ok(Usage::default()),
            (None, ..) => self.measure(id).map_err(|error| call.failed(error)),
        }
    }

    fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        let call = self.home().call("metadata", id);
        self.keys(call, &*self.home().layer(call)?)
    }

    fn status(&self) -> Vec<(String, String)> {
        self.facts().into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    fn check(&self) -> Result<Vec<Finding>> {
        let mut findings = self.home().check(|layer| self.required(layer))?;
        findings.extend(self.inspect()?);
        Ok(findings)
    }

    fn repair(&self) -> Result<Vec<Finding>> {
        let mut done = self.home().repair(|layer| self.required(layer))?;
        done.extend(self.mend()?);
        Ok(done)
    }

    fn cleanup(&self) -> Result<()> {
        self.home().unmount_all()?;
        self.let_go()
    }

    fn pool(&self) -> Option<&dyn Pool> {
        Backend::pool(self)
    }
}

/// The size that a new layer is limited to.
fn size_of(backend: &impl Backend, call: Call<'_>, options: &CreateOptions) -> Result<Option<u64>> {
    let given = HomeCall { driver: call.driver, op: call.op };
    let size = Given::of_layer(given, &KNOWN_OF_LAYER, &options.options)?.size(given, "size")?;
    let Some(size) = size.or(options.size) else { return Ok(None) };
    match backend.check_size(given, size) {
        Ok(()) => Ok(Some(size)),
        Err(Error::Driver { reason, kind, .. }) => Err(call.refused(kind, reason)),
        Err(error) => Err(error),
    }
}

/// The maps of a layer that is being made, unless its parent was shifted by them before.
fn id_map_of(
    backend: &impl Backend,
    call: Call<'_>,
    parent: Option<&LayerId>,
    options: &CreateOptions,
) -> Result<Option<IdMaps>> {
    let Some(maps) = options.id_map.as_ref().filter(|maps| !maps.is_identity()) else {
        return Ok(None);
    };
    if let Some(parent) = parent {
        // What is wrong with the parent is told by whoever reserves it.
        let Ok(owner) = backend.owner_of_root(parent) else { return Ok(None) };
        if owner == maps.root() {
            return Ok(None);
        }
    }
    if !backend.able().id_map {
        let reason = "this driver cannot map ids here: that takes id-mapped mounts of the kernel";
        return Err(call.refused(ErrorKind::Unsupported, reason));
    }
    Ok(Some(maps.clone()))
}

/// The user and the group that own a directory.
pub(crate) fn owner_of(dir: impl AsFd) -> cow::Result<(u32, u32)> {
    let meta = cow::at::meta_of(dir).map_err(|errno| cow::Error::sys("statx", "", errno))?;
    Ok((meta.uid, meta.gid))
}

/// Makes the mount that `describe` tells of a layer, with the layer's maps, on `target`.
pub(crate) fn attach(call: Call<'_>, layer: &Layer, mount: &Mount, target: &OwnedFd) -> Result<()> {
    let meta = layer.meta();
    let namespace = meta.id_map.as_ref().map(IdMaps::namespace).transpose();
    let namespace = namespace.map_err(|source| call.sys("map ids", "", source))?;
    cow_sys::mount::mount_mapped_at(
        &mount.fstype,
        &mount.source,
        &mount.options,
        namespace.as_ref().map(AsFd::as_fd),
        target,
    )
    .map_err(|error| call.refused(ErrorKind::of_io(error.io()), error.to_string()))
}

/// Refuses a size for all layers of a home that can keep none.
pub(crate) fn refuse_size(call: HomeCall, home: &Home, size: Option<u64>) -> Result<()> {
    if size.is_none() {
        return Ok(());
    }
    quota::refuse(home.root(), home.path())
        .map_err(|why| call.refused(ErrorKind::Unsupported, format!("option size: {why}")))
}
