//! Looking inside: one model of what is looked at, wherever it is kept.
//!
//! A [`Target`] is what a user names: an image, layer or container of the store, an archive, a
//! directory. [`open`] makes a [`Subject`] of it: layers with what is known of each, and through
//! [`Subject::stack`] and [`Subject::tree`] the files in them ([`cow::stack`]). Commands gather
//! their reports from a subject and cannot tell a store from an archive.
//!
//! Archives are read where they lie and never unpacked: a compressed layer is decompressed once, as
//! a stream, and an uncompressed one is mapped, so that only its headers are touched when contents
//! are of no interest.

mod archive;
mod directory;
mod file;
mod paths;
mod pick;
mod rolled;
mod space;
mod steps;
mod store;
mod subject;
mod target;
mod text;

pub(crate) use file::{FileFacts, kind_name, lossy};
pub(crate) use paths::{mode_text, path_text};
pub(crate) use rolled::{Rolled, roll};
pub(crate) use space::{Duplicate, Space, WastedFile};
pub(crate) use steps::{Step, short_step, steps};
pub(crate) use store::{all_layers, find_layer, known};
pub(crate) use subject::{Contents, Gauge, Kind, Layer, Subject, Verified};
pub(crate) use target::{Target, split_path};
pub(crate) use text::{Texts, unified};

use std::path::Path;

use crate::context::Session;

/// Finds what a user names.
///
/// A name of a file that exists, or one that looks like a path, is an archive or directory; anything
/// else is looked for in the store.
pub(crate) fn open(session: &Session, target: &Target) -> anyhow::Result<Subject> {
    up_to(whole(session, target)?, target)
}

/// Finds two things. Of one image with layers left away, each layer is read but once.
pub(crate) fn open_both(
    session: &Session,
    a: &Target,
    b: &Target,
) -> anyhow::Result<(Subject, Subject)> {
    if a.what != b.what {
        return Ok((open(session, a)?, open(session, b)?));
    }
    let subject = whole(session, a)?;
    Ok((up_to(subject.again(), a)?, up_to(subject, b)?))
}

fn whole(session: &Session, target: &Target) -> anyhow::Result<Subject> {
    match &target.file {
        Some(file) => open_file(Path::new(file), target.image.as_deref()),
        None => store::open(&session.context()?.client, &target.what).map_err(|error| {
            let what = &target.what;
            match Path::new(what).is_dir() {
                true => error.context(format!("the directory would be written ./{what}")),
                false => error,
            }
        }),
    }
}

fn up_to(subject: Subject, target: &Target) -> anyhow::Result<Subject> {
    match &target.layer {
        Some(layer) => subject.up_to(layer),
        None => Ok(subject),
    }
}

fn open_file(path: &Path, image: Option<&str>) -> anyhow::Result<Subject> {
    if path.is_dir() && !directory::is_layout(path) {
        return directory::open(path);
    }
    archive::open(path, image)
}
