//! A page about one image: what fills it, layer by layer and directory by directory, and what of
//! that is to no purpose.
//!
//! [`Report`] is gathered from a [`Subject`](crate::inspect::Subject), as JSON it is the whole
//! answer; [`mod@page`] writes it as one HTML file, whose lists end where they tire a reader. The map on
//! the page is a `SizeTree` of bounded size, laid out as a squarified treemap ([`layout`]): drawn
//! here as SVG for a browser without scripts ([`map`]), and again by the page's script, which zooms.
//!
//! Everything that an image can say of itself is text of strangers. It gets onto the page through
//! [`shown`] alone: maud escapes what HTML would take for markup, `shown` what a reader would not see
//! as it is. The policy in the page's head keeps a browser from loading or running anything else
//! than what this program wrote.

mod changes;
mod colours;
mod comparison;
mod facts;
mod kinds;
mod layout;
mod map;
mod page;
mod shell;
mod sizes;
mod tables;
mod words;

pub(crate) use comparison::{Comparison, page as comparison_page};
pub(crate) use facts::Report;
pub(crate) use page::page;

use crate::names::{cut, printable};

/// Text from outside, for a page.
pub(crate) fn shown(text: &str) -> String {
    printable(text)
}

/// The same, cut to a number of characters.
pub(crate) fn shown_at_most(text: &str, width: usize) -> String {
    cut(&printable(text), width)
}
