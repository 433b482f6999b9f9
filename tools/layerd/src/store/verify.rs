//! Whether layers still hold what their diffIDs say.
//!
//! A diffID is the digest of a tar, and a tree can be packed in many ways. So an import takes down
//! what a layer's tar has besides the contents of files, its *recipe* (`files/<hex>.recipe`, zstd):
//! with the files of the layer it gives the same tar again, byte for byte. A layer that was made here
//! has none; its tar was written by the driver, which writes it the same way again.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use cow::at;
use cow::digest::{ChainId, DiffId, Digest, Digester};
use cow::root::{Resolve, Root};
use cow::tar::{self, Entry};
use drivers::Access;

use super::Store;
use crate::catalogue::{Layer, Lookup as _};
use crate::error::{Error, Result};
use crate::root::{self, FILES};

/// How the names of recipes end.
pub(super) const RECIPE: &str = ".recipe";

/// What came of holding a layer against its diffID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its content is what the diffID says.
    Sound,
    /// It is not, and why.
    Damaged(String),
    /// Its tar cannot be put together again, and why.
    Unknown(String),
}

impl Store {
    /// Holds a layer of images against its diffID, in each driver that keeps it. Reads all content.
    ///
    /// # Errors
    /// `NotFound`; what is wrong with a layer is no error but a verdict.
    pub fn verify_layer(&self, chain: &ChainId) -> Result<Vec<(String, Verdict)>> {
        let rows = self.catalogue.read()?.layers()?;
        let kept: Vec<_> = rows.into_iter().filter(|(_, other, _)| other == chain).collect();
        if kept.is_empty() {
            return Err(Error::not_found("find layer", chain.to_string()));
        }
        kept.into_iter()
            .map(|(driver, _, layer)| {
                let verdict = self.verdict(&driver, chain, &layer)?;
                Ok((driver, verdict))
            })
            .collect()
    }

    fn verdict(&self, driver: &str, chain: &ChainId, layer: &Layer) -> Result<Verdict> {
        let mut digester = Digester::new(io::sink());
        let recipe = self.recipe(&layer.diff_id)?;
        let recorded = recipe.is_some();
        let written = match recipe {
            Some(recipe) => self.rebuild(driver, layer, recipe, &mut digester),
            None => self.image_layer_diff(driver, chain, &mut digester),
        };
        let (_, found, _) = digester.finish();
        let expected: &Digest = layer.diff_id.digest();
        Ok(match written {
            Err(error) if recorded => Verdict::Damaged(error.to_string()),
            Err(error) => return Err(error),
            Ok(_) if found == *expected => Verdict::Sound,
            Ok(_) if recorded => Verdict::Damaged(format!("its content is that of {found}")),
            Ok(_) => Verdict::Unknown("the tar that it was made of was not taken down".to_owned()),
        })
    }

    /// Keeps a layer's recipe.
    pub(crate) fn keep_recipe(&self, diff_id: &DiffId, recipe: &[u8]) -> Result<()> {
        root::write_whole(self.root.subdir(FILES)?, &name(diff_id), recipe)
    }

    /// A layer's recipe, if it was taken down.
    pub(super) fn recipe(&self, diff_id: &DiffId) -> Result<Option<File>> {
        root::open_opt(self.root.subdir(FILES)?, &name(diff_id))
    }

    /// Writes the tar that a layer was made of, from its recipe and its files; the answer is its
    /// length.
    ///
    /// # Errors
    /// `Corrupt` for a file that is not as long as it was.
    pub(super) fn rebuild(
        &self,
        driver: &str,
        layer: &Layer,
        recipe: File,
        out: &mut dyn Write,
    ) -> Result<u64> {
        const OP: &str = "put layer together";
        let driver = self.driver(Some(driver))?;
        let failed = |error| Error::driver(OP, error);
        let path = driver.mount(&layer.layer, Access::ReadOnly).map_err(failed)?;
        let written = write(&path, recipe, out);
        driver.unmount(&layer.layer).map_err(failed)?;
        written.map_err(|error| Error::refused(OP, "", error.to_string(), error.kind()))
    }
}

fn name(diff_id: &DiffId) -> String {
    format!("{}{RECIPE}", diff_id.digest().hex())
}

fn write(tree: &Path, recipe: File, mut out: &mut dyn Write) -> cow::Result<u64> {
    let root = Root::open(tree)?;
    let recipe = zstd::Decoder::new(recipe).map_err(|e| cow::Error::sys("read recipe", "", e))?;
    tar::rebuild(recipe, &mut out, |entry, out| content(&root, entry, *out))
}

/// Writes the stored bytes of an entry's file, which must be as long as it was.
fn content(root: &Root, entry: &Entry, out: &mut dyn Write) -> cow::Result<u64> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = Path::new(std::ffi::OsStr::from_bytes(&entry.path));
    let failed = |error| cow::Error::sys("read file", path, error);
    let (dir, name) = root.parent(path, Resolve::InRoot)?;
    let file = at::open_file_at(&dir, name).map_err(|errno| root.error("open", path, errno))?;
    let mut file = File::from(file);
    let length = file.metadata().map_err(failed)?.len();
    let changed = || cow::Error::corrupt("read file", path, "it is not as long as it was");
    if length != entry.size {
        return Err(changed());
    }
    let whole = [tar::Segment { offset: 0, len: entry.size }];
    let mut written = 0;
    for segment in entry.sparse.as_deref().unwrap_or(&whole) {
        file.seek(SeekFrom::Start(segment.offset)).map_err(failed)?;
        let copied = io::copy(&mut (&mut file).take(segment.len), out).map_err(failed)?;
        if copied != segment.len {
            return Err(changed());
        }
        written += copied;
    }
    Ok(written)
}
