//! A directory as something with one layer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use cow::index::Index;
use cow::root::Root;

use super::subject::{Contents, Kind, Layer, Layers, Sink, Subject, Verified};

#[derive(Debug)]
struct Directory {
    root: Root,
    path: PathBuf,
}

/// Opens a directory.
pub(crate) fn open(path: &Path) -> anyhow::Result<Subject> {
    let root = Root::open(path)?;
    let name = path.display().to_string();
    let source = Box::new(Directory { root, path: path.to_owned() });
    let layers = vec![Layer { number: 1, ..Layer::default() }];
    Ok(Subject::new(Kind::Directory, name, None, None, layers, source))
}

/// Whether a directory is an OCI layout (image-spec, `image-layout.md`).
pub(crate) fn is_layout(path: &Path) -> bool {
    path.join("oci-layout").is_file() && path.join("index.json").is_file()
}

impl Layers for Directory {
    fn index(&self, _: usize, contents: Contents) -> anyhow::Result<Arc<Index>> {
        let index = Index::of_tree(&self.root, contents);
        Ok(Arc::new(index.with_context(|| self.path.display().to_string())?))
    }

    fn read(
        &self,
        _: usize,
        index: &Index,
        rows: &[usize],
        sink: &mut Sink<'_>,
    ) -> anyhow::Result<()> {
        for row in rows {
            let Some(node) = index.get(*row) else { continue };
            let mut file = std::fs::File::from(self.root.open_file(node.path())?);
            sink(*row, &mut file)?;
        }
        Ok(())
    }

    fn verify(&self, _: usize) -> anyhow::Result<Vec<Verified>> {
        anyhow::bail!("{}: a directory has no diffID", self.path.display())
    }
}
