//! The contract's part that is the driver's own.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

use cow::apply::ApplyOptions;
use cow::change::Changeset;
use cow::whiteout::WhiteoutFormat;
use cow_sys::mount_attr;

use super::changes::Compared;
use super::dm::Use;
use super::layer;
use super::volume::{self, Shown};
use super::{DeviceMapper, crash, seal, status};
use crate::backend::{self, Backend, Difference};
use crate::call::{Call, HomeCall};
use crate::driver::{Access, Applied, Capabilities, Finding, Mount, Pool, State, Usage};
use crate::error::{Error, ErrorKind, Result};
use crate::home::check::Required;
use crate::home::commit::Sealing;
use crate::home::meta::Meta;
use crate::home::mounts::{Ending, MERGED};
use crate::home::shift::map_mount;
use crate::home::{Home, Layer};
use crate::id::LayerId;
use crate::id_map::IdMaps;
use crate::whole::writable;

impl Backend for DeviceMapper {
    fn home(&self) -> &Home {
        &self.home
    }

    fn able(&self) -> Capabilities {
        let id_map = self.maps_ids();
        Capabilities { quota: true, client_mounts: true, id_map, ..Capabilities::default() }
    }

    fn check_size(&self, _call: HomeCall, _size: u64) -> Result<()> {
        Ok(())
    }

    fn build(&self, call: Call<'_>, meta: &mut Meta, dir: BorrowedFd<'_>) -> Result<()> {
        if meta.state == State::View {
            return Ok(());
        }
        let build = || {
            let device = self.make_device(meta)?;
            device.write(dir).inspect_err(|_| {
                let _ = self.pool.delete(device.thin(meta.state));
            })?;
            crash::point("layer made");
            Ok(())
        };
        build().map_err(|error| call.failed(error))
    }

    fn fill(&self, call: Call<'_>, layer: &Layer, tar: &mut dyn Read) -> Result<Applied> {
        let options = ApplyOptions { writeback: true, ..ApplyOptions::new(WhiteoutFormat::Remove) };
        let apply = || {
            let held = self.devices.hold(self.shown(&layer.meta())?.0, Use::Write)?;
            let root = self.volumes.open(&held.name, Shown::Writable)?;
            let applied = cow::apply::apply(&root, tar, &options)?;
            volume::sync(&root)?;
            Ok(Applied {
                tar_size: applied.tar_size,
                content_size: applied.content_size,
                entries: applied.entries,
            })
        };
        apply().map_err(|error| call.failed(error))
    }

    fn seal(&self, sealing: &Sealing<'_>) -> Result<Usage> {
        let call = self.home.call("commit", &sealing.layer.id);
        self.seal_layer(sealing).map_err(|error| seal::in_use(call, error))
    }

    fn sealed(&self, id: &LayerId) {
        self.settle_committed(id);
    }

    fn describe(&self, call: Call<'_>, layer: &Layer, access: Access) -> Result<Vec<Mount>> {
        let describe = || {
            let (thin, how) = self.shown(&layer.meta())?;
            let name = self.devices.pin(thin, how, &layer.id)?;
            let shown = if writable(layer, access) { Shown::Writable } else { Shown::Sealed };
            Ok(vec![self.volumes.describe(&name, shown)])
        };
        describe().map_err(|error| call.failed(error))
    }

    fn show(&self, call: Call<'_>, layer: &Layer, access: Access) -> Result<PathBuf> {
        let writable = writable(layer, access);
        self.home.take_mount(call, layer, writable, |target| {
            let show = || {
                let (thin, how) = self.shown(&layer.meta())?;
                // The device stays for as long as it is mounted.
                let held = self.devices.hold(thin, how)?;
                let shown = match (how, writable) {
                    (Use::Read, _) => Shown::Sealed,
                    (Use::Write, true) => Shown::Writable,
                    (Use::Write, false) => Shown::Look,
                };
                let mount = self.volumes.mount(&held.name, shown)?;
                if shown == Shown::Look {
                    mount_attr::set(&mount, &mount_attr::Change::READ_ONLY, false)
                        .map_err(|errno| cow::Error::sys("mount_setattr", &held.name, errno))?;
                }
                if let Some(maps) = &layer.meta().id_map {
                    map_mount(&mount, maps)?;
                }
                cow_sys::mount::attach(&mount, target).map_err(|error| {
                    let kind = ErrorKind::of_io(error.io());
                    cow::Error::refused("mount", &held.name, error.to_string(), kind)
                })
            };
            show().map_err(|error| call.failed(error))
        })
    }

    fn hide(&self, call: Call<'_>, layer: &Layer) -> Result<()> {
        self.home.drop_mount(call, layer, Ending::Quick, || {
            // Without deferred removal it is still there; holding it for a moment takes it away.
            let touch = || {
                let (thin, how) = self.shown(&layer.meta())?;
                if self.pool.dm.info(&self.pool.device_name(thin.id))?.is_some() {
                    drop(self.devices.hold(thin, how)?);
                }
                Ok(())
            };
            touch().map_err(|error: cow::Error| call.failed(error))
        })
    }

    fn difference(
        &self,
        call: Call<'_>,
        layer: &Layer,
        base: Option<&LayerId>,
    ) -> Result<Difference<'_>> {
        let meta = layer.meta();
        let below = self.home.compared_with(call, &meta, base)?;
        if meta.state == State::View && below == meta.parent {
            return Ok(Difference::new(Changeset::default(), Vec::new()));
        }
        let compared = self.compare(&meta, below.as_ref());
        compared.map(Compared::difference).map_err(|error| call.failed(error))
    }

    fn measure(&self, id: &LayerId) -> cow::Result<Usage> {
        let layer = self
            .home
            .layer(self.home.call("usage", id))
            .map_err(|error| cow::Error::refused("measure", id, error.to_string(), error.kind()))?;
        let meta = layer.meta();
        if meta.state == State::View {
            return Ok(Usage { inodes: 1, ..Usage::default() });
        }
        self.compare(&meta, meta.parent.as_ref())?.usage()
    }

    fn keys(&self, _call: Call<'_>, layer: &Layer) -> Result<BTreeMap<String, String>> {
        let mut keys = BTreeMap::from([(
            "MergedDir".to_owned(),
            self.home.layer_path(&layer.id, MERGED).display().to_string(),
        )]);
        if let Ok((thin, _)) = self.shown(&layer.meta()) {
            keys.insert("DeviceId".to_owned(), thin.id.to_string());
            keys.insert("DeviceName".to_owned(), self.pool.device_name(thin.id));
            keys.insert("DeviceSize".to_owned(), thin.size.to_string());
            let own = self.exclusive(&layer.meta());
            keys.extend(own.map(|own| ("ExclusiveBytes".to_owned(), own.to_string())));
        }
        Ok(keys)
    }

    fn owner_of_root(&self, id: &LayerId) -> cow::Result<(u32, u32)> {
        let (_held, root) = self.look(&*self.meta(id)?)?;
        backend::owner_of(&root)
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        status::facts(self)
    }

    fn required(&self, layer: &Layer) -> Vec<Required> {
        let own = layer.state() != State::View;
        own.then_some(Required { name: layer::FILE, data: true }).into_iter().collect()
    }

    fn inspect(&self) -> Result<Vec<Finding>> {
        self.check_pool(false)
    }

    fn mend(&self) -> Result<Vec<Finding>> {
        self.check_pool(true)
    }

    fn let_go(&self) -> Result<()> {
        let call = HomeCall { driver: super::NAME, op: "cleanup" };
        self.devices.let_go().map_err(|error| call.failed(error))
    }

    fn pool(&self) -> Option<&dyn Pool> {
        Some(self)
    }
}

impl DeviceMapper {
    /// Whether this kernel mounts the file system with mapped ids.
    fn maps_ids(&self) -> bool {
        *self.maps_ids.get_or_init(|| {
            let attempt = || {
                let maps = IdMaps::trial()?;
                let held = self.devices.hold(self.base.thin(), Use::Read)?;
                map_mount(self.volumes.mount(&held.name, Shown::Sealed)?, &maps)
            };
            attempt().inspect_err(|error| tracing::debug!(%error, "no id maps")).is_ok()
        })
    }

    pub(super) fn meta(&self, id: &LayerId) -> cow::Result<Arc<Meta>> {
        let layer = self.home.layer(self.home.call("look at", id));
        let failed = |error: Error| {
            cow::Error::refused("look at layer", id, error.to_string(), error.kind())
        };
        Ok(layer.map_err(failed)?.meta())
    }
}
