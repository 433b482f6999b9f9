//! The tree's pane: which directories are open, which rows that leaves, which is selected.

use std::collections::HashMap;

use super::forest::{Forest, Id};
use super::list::List;
use super::view::{Row, View};

/// A view with at most so many rows is shown with all directories open.
const FEW: usize = 200;

/// Which directories are open, by their paths.
#[derive(Clone, Debug, Default)]
struct Folds {
    /// What holds for all that are not in the map: none for what seems best.
    all: Option<bool>,
    one: HashMap<Id, bool>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Tree {
    view: Option<View>,
    folds: Folds,
    /// Those while a name is looked for, forgotten afterwards.
    search_folds: Folds,
    /// Places in the view's rows that the open directories leave to be seen.
    visible: Vec<u32>,
    /// Which of those is selected, and which is the first on the screen.
    pub(super) list: List,
}

impl Tree {
    /// The view that is shown.
    pub(super) fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    /// How many rows are to be seen.
    pub(super) fn len(&self) -> usize {
        self.visible.len()
    }

    /// The rows to be seen from one on.
    pub(super) fn rows(&self, from: usize) -> impl Iterator<Item = &Row> {
        let rows = self.view.as_ref().map_or(&[][..], |view| &view.rows);
        self.visible.iter().skip(from).filter_map(|at| rows.get(*at as usize))
    }

    /// The selected row.
    pub(super) fn selected(&self) -> Option<&Row> {
        self.rows(self.list.selected).next()
    }

    /// Takes a new view; the selected path stays selected, or the directory around it.
    pub(super) fn show(&mut self, forest: &Forest, view: View) {
        let selected = self.selected().map(|row| row.id);
        let searched = self.view.as_ref().is_some_and(|view| !view.spec.matcher.is_all());
        if view.spec.matcher.is_all() || !searched {
            self.search_folds = Folds::default();
        }
        self.view = Some(view);
        self.refresh(forest, selected);
    }

    /// Whether a directory is open.
    pub(super) fn is_open(&self, row: &Row, forest: &Forest) -> bool {
        let Some(view) = &self.view else { return false };
        let searching = !view.spec.matcher.is_all();
        let folds = if searching { &self.search_folds } else { &self.folds };
        if let Some(open) = folds.one.get(&row.id).copied() {
            return open;
        }
        let top = forest.parent(row.id).is_none();
        top || folds.all.unwrap_or(if searching { !row.hit } else { view.rows.len() <= FEW })
    }

    fn folds(&mut self) -> &mut Folds {
        let searching = self.view.as_ref().is_some_and(|view| !view.spec.matcher.is_all());
        if searching { &mut self.search_folds } else { &mut self.folds }
    }

    /// Opens or closes the selected directory; whether that changed anything.
    pub(super) fn set_open(&mut self, forest: &Forest, open: bool) -> bool {
        let Some(row) = self.selected().copied() else { return false };
        if !row.is_dir || self.is_open(&row, forest) == open {
            return false;
        }
        self.folds().one.insert(row.id, open);
        self.refresh(forest, Some(row.id));
        true
    }

    /// Opens the selected directory if it is closed, and the other way round.
    pub(super) fn toggle(&mut self, forest: &Forest) {
        let open = self.selected().is_some_and(|row| self.is_open(row, forest));
        self.set_open(forest, !open);
    }

    /// Opens or closes all directories.
    pub(super) fn set_all_open(&mut self, forest: &Forest, open: bool) {
        let selected = self.selected().map(|row| row.id);
        *self.folds() = Folds { all: Some(open), one: HashMap::new() };
        self.refresh(forest, selected);
    }

    /// Selects the directory around the selected row.
    pub(super) fn select_parent(&mut self, forest: &Forest) {
        let parent = self.selected().and_then(|row| forest.parent(row.id));
        if let Some(place) = parent.and_then(|id| self.place_of(forest, id)) {
            self.list.selected = place;
        }
    }

    /// Selects a path and opens what is around it; whether it is in the view.
    pub(super) fn select(&mut self, forest: &Forest, id: Id) -> bool {
        if !self.view.as_ref().is_some_and(|view| view.rows.iter().any(|row| row.id == id)) {
            return false;
        }
        let mut dir = id;
        while let Some(parent) = forest.parent(dir) {
            self.folds().one.insert(parent, true);
            dir = parent;
        }
        self.refresh(forest, Some(id));
        true
    }

    /// Finds out which rows are to be seen, and selects a path or what is around it.
    fn refresh(&mut self, forest: &Forest, selected: Option<Id>) {
        let mut visible = std::mem::take(&mut self.visible);
        visible.clear();
        let rows = self.view.as_ref().map_or(&[][..], |view| &view.rows);
        let mut at = 0;
        while let Some(row) = rows.get(at) {
            visible.push(u32::try_from(at).unwrap_or(u32::MAX));
            at = if row.is_dir && !self.is_open(row, forest) { row.end as usize } else { at + 1 };
        }
        self.visible = visible;
        let place = selected.and_then(|id| self.place_of(forest, id));
        self.list.selected = place.unwrap_or(self.list.selected);
        self.list.clamp(self.visible.len());
    }

    /// Where among the rows to be seen a path is, or the nearest directory around it.
    fn place_of(&self, forest: &Forest, id: Id) -> Option<usize> {
        let mut id = id;
        loop {
            if let Some(place) = self.rows(0).position(|row| row.id == id) {
                return Some(place);
            }
            id = forest.parent(id)?;
        }
    }
}
