//! Where on the screen everything is: for drawing, and to know what a click hits.

use ratatui::layout::{Rect, Size};

use super::app::Focus;

/// The smallest terminal that is made use of.
pub(super) const LEAST: Size = Size { width: 40, height: 10 };
/// Narrower terminals show one pane at a time.
const TWO_PANES: u16 = 64;
/// Lower terminals show no details of the layer.
const DETAILS: u16 = 16;
/// The narrowest pane.
const NARROWEST: u16 = 20;

/// See the [module](self). Areas of panes are with their frames; what is not shown is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Areas {
    /// The line at the top.
    pub(super) title: Rect,
    /// The list of layers.
    pub(super) layers: Rect,
    /// What is known of the selected layer.
    pub(super) details: Rect,
    /// The tree.
    pub(super) tree: Rect,
    /// The line at the bottom.
    pub(super) status: Rect,
    /// What an overlay may cover.
    pub(super) middle: Rect,
}

/// Divides a screen that is large enough. `split` is the width of the left side, if it was chosen.
pub(super) fn areas(size: Size, split: Option<u16>, focus: Focus, layers: usize) -> Areas {
    let Size { width, height } = size;
    let middle = Rect::new(0, 1, width, height.saturating_sub(2));
    let mut areas = Areas {
        title: Rect::new(0, 0, width, 1),
        status: Rect::new(0, height.saturating_sub(1), width, 1),
        middle,
        ..Areas::default()
    };
    let left = left_width(width, split);
    let (left, right) = match (width < TWO_PANES, focus) {
        (true, Focus::Layers) => (middle, Rect::default()),
        (true, Focus::Tree) => (Rect::default(), middle),
        (false, _) => {
            (Rect { width: left, ..middle }, Rect { x: left, width: width - left, ..middle })
        }
    };
    areas.tree = right;
    areas.layers = left;
    if height >= DETAILS && left.width > 0 {
        // The frame and the heading; half of the side is the details' in any case.
        let wanted = u16::try_from(layers + 3).unwrap_or(u16::MAX);
        let list = wanted.clamp(5, left.height / 2);
        areas.layers.height = list;
        areas.details = Rect { y: left.y + list, height: left.height - list, ..left };
    }
    areas
}

/// The width of the left side.
pub(super) fn left_width(width: u16, split: Option<u16>) -> u16 {
    let wanted = split.unwrap_or((width * 2 / 5).min(64));
    wanted.clamp(NARROWEST, width.saturating_sub(NARROWEST).max(NARROWEST))
}

/// The lines of a pane within its frame, below a heading.
pub(super) fn lines(area: Rect) -> usize {
    area.height.saturating_sub(3).into()
}

/// The area of an overlay: most of the middle, or not more than it needs.
pub(super) fn overlay(middle: Rect, needed: Option<Size>) -> Rect {
    let Some(needed) = needed else { return middle };
    let width = needed.width.saturating_add(4).min(middle.width);
    let height = needed.height.saturating_add(2).min(middle.height);
    Rect {
        x: middle.x + (middle.width - width) / 2,
        y: middle.y + (middle.height - height) / 2,
        width,
        height,
    }
}
