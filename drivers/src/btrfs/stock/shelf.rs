//! Which parents are to have a spare snapshot, and when one is made and dropped.
//!
//! Nothing here touches the file system. A parent is worth a spare when layers were made on it twice within
//! [`IDLE`]: the layers of an image that is being imported are built upon once each, and so is the layer that
//! Docker puts below each container. It is worth one before that if it was imported and nothing is built upon it
//! within [`PAUSE`]: it is the uppermost of its image, and the next layer on it is a container's.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::id::LayerId;

/// How long a spare is kept after the last layer was made on its parent.
const IDLE: Duration = Duration::from_secs(300);
/// The most spares.
pub(super) const MOST: usize = 8;
/// The most parents that are remembered. Docker makes a parent of its own for each container.
const REMEMBERED: usize = 64;
/// How long a spare that was taken is not replaced: whoever made a layer goes on to work in it, and others may
/// come for whom one round does as well.
const PAUSE: Duration = Duration::from_millis(250);
/// How many times as long as a round of making spares took nothing is made after it, so that the calls of
/// others meet few of the transactions that it ends.
const REST: u32 = 10;

/// A snapshot that can be taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spare {
    /// The directory that it is in.
    pub(super) place: String,
    /// The transaction from which on what is written is the taker's.
    pub(super) begun: u64,
}

/// A spare that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// The parent, and the UUID of its tree.
    pub(super) parent: LayerId,
    pub(super) origin: String,
    /// The directory to make it in.
    pub(super) place: String,
}

/// What a parent has.
#[derive(Debug)]
enum Stocked {
    /// Nothing yet, as nobody needs it.
    No,
    /// Nothing until a moment.
    Due(Instant),
    /// The same, unless a layer is made on it before: then nobody needs it yet.
    Expected(Instant),
    /// One that is being made.
    Ordered,
    /// One that can be taken.
    Ready(Spare),
    /// None, as it could not be made.
    Failed,
}

/// A tree that layers were made on.
#[derive(Debug)]
struct Parent {
    id: LayerId,
    /// Its UUID. A layer that gets the id of one that was removed is another tree.
    origin: String,
    used: Instant,
    stocked: Stocked,
}

/// The spares, and the parents that they are of.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// The one that was used last comes first.
    parents: VecDeque<Parent>,
    /// Directories to be deleted, and since when there are any.
    waste: Vec<String>,
    wasted: Option<Instant>,
    /// All directories that are in use or being deleted.
    places: HashSet<String>,
    serial: u64,
    /// Until when nothing is made.
    resting: Option<Instant>,
}

impl Shelf {
    /// Notes that a layer is made on a parent, and gives a spare for it if there is one.
    pub(super) fn take(&mut self, parent: &LayerId, origin: &str, now: Instant) -> Option<Spare> {
        self.expire(now);
        let due = Stocked::Due(self.soonest(now));
        let Some(at) = self.parents.iter().position(|known| known.origin == origin) else {
            self.remember(parent, origin, Stocked::No, now);
            return None;
        };
        let mut known = self.parents.remove(at)?;
        known.used = now;
        let before = match &known.stocked {
            Stocked::No | Stocked::Ready(_) => std::mem::replace(&mut known.stocked, due),
            Stocked::Expected(_) => std::mem::replace(&mut known.stocked, Stocked::No),
            Stocked::Due(_) | Stocked::Ordered | Stocked::Failed => Stocked::No,
        };
        self.parents.push_front(known);
        match before {
            Stocked::Ready(spare) => Some(spare),
            _ => None,
        }
    }

    /// Notes that a layer was imported, on which the next may be made.
    pub(super) fn expect(&mut self, parent: &LayerId, origin: &str, now: Instant) {
        self.expire(now);
        let expected = Stocked::Expected(self.soonest(now));
        self.remember(parent, origin, expected, now);
    }

    /// When a spare can be made for somebody who asks now.
    fn soonest(&self, now: Instant) -> Instant {
        self.resting.unwrap_or(now).max(now + PAUSE)
    }

    fn remember(&mut self, parent: &LayerId, origin: &str, stocked: Stocked, now: Instant) {
        let (id, origin) = (parent.clone(), origin.to_owned());
        self.parents.push_front(Parent { id, origin, used: now, stocked });
        while self.parents.len() > REMEMBERED {
            self.drop_parent(REMEMBERED, now);
        }
    }

    /// Notes that a directory is not needed any more.
    pub(super) fn waste(&mut self, place: String, now: Instant) {
        self.waste.push(place);
        self.wasted.get_or_insert(now);
    }

    /// Forgets a parent, which is removed.
    pub(super) fn forget(&mut self, parent: &LayerId, now: Instant) {
        while let Some(at) = self.parents.iter().position(|known| known.id == *parent) {
            self.drop_parent(at, now);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self, now: Instant) {
        while !self.parents.is_empty() {
            self.drop_parent(0, now);
        }
    }

    /// Forgets the parents that nobody came for.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.parents.back().is_some_and(|last| now >= last.used + IDLE) {
            self.drop_parent(self.parents.len() - 1, now);
        }
    }

    /// What is to be made now; each is to be [`Shelf::put`] or [`Shelf::fail`]ed.
    ///
    /// When one is due, all that will be are made with it.
    pub(super) fn orders(&mut self, now: Instant) -> Vec<Order> {
        let is_due = |parent: &Parent| match parent.stocked {
            Stocked::Due(at) | Stocked::Expected(at) => now >= at,
            _ => false,
        };
        if !self.parents.iter().any(is_due) {
            return Vec::new();
        }
        let (mut orders, mut room) = (Vec::new(), MOST);
        for parent in &mut self.parents {
            match parent.stocked {
                Stocked::Ready(_) | Stocked::Ordered => room = room.saturating_sub(1),
                // Others are used more.
                Stocked::Due(_) if room == 0 => parent.stocked = Stocked::No,
                // It may yet turn out that nobody needs it.
                Stocked::Expected(at) if now < at => {}
                Stocked::Expected(_) if room == 0 => parent.stocked = Stocked::No,
                Stocked::Due(_) | Stocked::Expected(_) => {
                    room -= 1;
                    let place = self.serial.to_string();
                    self.serial += 1;
                    self.places.insert(place.clone());
                    parent.stocked = Stocked::Ordered;
                    let (parent, origin) = (parent.id.clone(), parent.origin.clone());
                    orders.push(Order { parent, origin, place });
                }
                Stocked::No | Stocked::Failed => {}
            }
        }
        orders
    }

    /// Puts what was ordered on the shelf. It is waste if the parent was forgotten meanwhile.
    pub(super) fn put(&mut self, order: Order, begun: u64, now: Instant) {
        let spare = Spare { place: order.place, begun };
        match self.ordered(&order.origin) {
            Some(parent) => parent.stocked = Stocked::Ready(spare),
            None => self.waste(spare.place, now),
        }
        self.keep_spares(now);
    }

    /// Notes that what was ordered could not be made, and is not to be tried again.
    pub(super) fn fail(&mut self, order: Order, now: Instant) {
        if let Some(parent) = self.ordered(&order.origin) {
            parent.stocked = Stocked::Failed;
        }
        self.waste(order.place, now);
    }

    fn ordered(&mut self, origin: &str) -> Option<&mut Parent> {
        let is_it = |parent: &&mut Parent| {
            parent.origin == origin && matches!(parent.stocked, Stocked::Ordered)
        };
        self.parents.iter_mut().find(is_it)
    }

    /// Notes how long a round took, which ends now.
    pub(super) fn rest(&mut self, took: Duration, now: Instant) {
        let until = now + took.saturating_mul(REST);
        self.resting = Some(until);
        for parent in &mut self.parents {
            if let Stocked::Due(at) | Stocked::Expected(at) = &mut parent.stocked {
                *at = until.max(*at);
            }
        }
    }

    /// The directories to be deleted; each is to be [`Shelf::deleted`].
    pub(super) fn wasted(&mut self, now: Instant) -> Vec<String> {
        match self.wasted.filter(|since| now >= *since + PAUSE) {
            Some(_) => self.all_wasted(),
            None => Vec::new(),
        }
    }

    /// The same without waiting for more.
    pub(super) fn all_wasted(&mut self) -> Vec<String> {
        self.wasted = None;
        std::mem::take(&mut self.waste)
    }

    /// Notes that a directory is gone, or stays for a check to find.
    pub(super) fn deleted(&mut self, place: &str) {
        self.places.remove(place);
    }

    /// Whether a directory is in use or being deleted.
    pub(super) fn knows(&self, place: &str) -> bool {
        self.places.contains(place)
    }

    /// How many spares can be taken.
    pub(super) fn spares(&self) -> usize {
        self.parents.iter().filter(|parent| matches!(parent.stocked, Stocked::Ready(_))).count()
    }

    /// When there is something to do next; none while nothing is there that is to be dropped one day.
    pub(super) fn next(&self) -> Option<Instant> {
        let of_parent = |parent: &Parent| match parent.stocked {
            Stocked::Due(at) | Stocked::Expected(at) => Some(at),
            Stocked::Ready(_) => Some(parent.used + IDLE),
            Stocked::No | Stocked::Ordered | Stocked::Failed => None,
        };
        let parents = self.parents.iter().filter_map(of_parent);
        parents.chain(self.wasted.map(|since| since + PAUSE)).min()
    }

    /// Drops the spares of the parents that were used least lately, until no more than [`MOST`] are left.
    fn keep_spares(&mut self, now: Instant) {
        let mut over = self.spares().saturating_sub(MOST);
        for at in (0..self.parents.len()).rev() {
            if over > 0 && matches!(self.parents[at].stocked, Stocked::Ready(_)) {
                self.drop_parent(at, now);
                over -= 1;
            }
        }
    }

    fn drop_parent(&mut self, at: usize, now: Instant) {
        let Some(parent) = self.parents.remove(at) else { return };
        if let Stocked::Ready(spare) = parent.stocked {
            self.waste(spare.place, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> LayerId {
        name.parse().unwrap()
    }

    /// Makes all that is due at a moment, and gives the parents.
    fn make(shelf: &mut Shelf, now: Instant) -> Vec<String> {
        let orders = shelf.orders(now);
        let parents = orders.iter().map(|order| order.parent.to_string()).collect();
        orders.into_iter().for_each(|order| shelf.put(order, 7, now));
        parents
    }

    /// Takes for the parent of this name, whose tree is called the same.
    fn take(shelf: &mut Shelf, name: &str, now: Instant) -> Option<Spare> {
        shelf.take(&id(name), name, now)
    }

    #[test]
    fn a_parent_that_is_used_twice_has_a_spare_and_then_another() {
        let (mut shelf, start) = (Shelf::default(), Instant::now());
        assert_eq!(take(&mut shelf, "a", start), None);
        assert_eq!(shelf.next(), None, "used once");
        assert_eq!(take(&mut shelf, "a", start), None);
        assert_eq!(shelf.next(), Some(start + PAUSE));
        assert!(make(&mut shelf, start).is_empty(), "not at once");
        assert_eq!(make(&mut shelf, start + PAUSE), ["a"]);
        assert_eq!(shelf.spares(), 1);
        let later = start + 2 * PAUSE;
        assert_eq!(take(&mut shelf, "b", later), None, "another's");
        let spare = take(&mut shelf, "a", later).unwrap();
        assert_eq!(spare, Spare { place: "0".to_owned(), begun: 7 });
        assert!(shelf.knows("0") && take(&mut shelf, "a", later).is_none(), "taken once");
        assert_eq!(make(&mut shelf, later + PAUSE), ["a"], "the next");
    }

    #[test]
    fn the_uppermost_layer_of_an_import_has_a_spare_before_it_is_used() {
        let (mut shelf, start) = (Shelf::default(), Instant::now());
        shelf.expect(&id("lower"), "lower", start);
        assert_eq!(take(&mut shelf, "lower", start), None, "for the next layer");
        let soon = start + PAUSE / 2;
        shelf.expect(&id("upper"), "upper", soon);
        assert!(make(&mut shelf, start + PAUSE).is_empty(), "a layer may still be made on it");
        assert_eq!(shelf.next(), Some(soon + PAUSE));
        assert_eq!(make(&mut shelf, soon + PAUSE), ["upper"]);
        assert!(take(&mut shelf, "upper", soon + PAUSE).is_some());
        assert_eq!(make(&mut shelf, soon + 2 * PAUSE), ["upper"], "the next");
        assert_eq!(take(&mut shelf, "lower", soon + 2 * PAUSE), None);
        assert_eq!(make(&mut shelf, soon + 3 * PAUSE), ["lower"], "used twice");
    }

    #[test]
    fn an_order_of_others_does_not_make_what_is_expected() {
        let (mut shelf, start) = (Shelf::default(), Instant::now());
        take(&mut shelf, "a", start);
        take(&mut shelf, "a", start);
        shelf.expect(&id("image"), "image", start + PAUSE / 2);
        assert_eq!(make(&mut shelf, start + PAUSE), ["a"]);
        shelf.rest(PAUSE, start + PAUSE);
        assert!(make(&mut shelf, start + 2 * PAUSE).is_empty(), "it rests");
        assert_eq!(make(&mut shelf, start + PAUSE + PAUSE * REST), ["image"]);
        shelf.expect(&id("gone"), "gone", start + PAUSE);
        shelf.forget(&id("gone"), start + PAUSE);
        assert!(make(&mut shelf, start + 99 * PAUSE).is_empty());
    }

    #[test]
    fn spares_go_with_their_parent_and_when_nobody_comes() {
        let (mut shelf, start) = (Shelf::default(), Instant::now());
        for name in ["a", "a", "b", "b", "c", "c"] {
            take(&mut shelf, name, start);
        }
        let orders = shelf.orders(start + PAUSE);
        shelf.forget(&id("a"), start);
        orders.into_iter().for_each(|order| shelf.put(order, 7, start));
        assert_eq!(shelf.spares(), 2, "what was made of a parent that is gone is none");
        shelf.forget(&id("b"), start);
        assert_eq!(shelf.spares(), 1);
        assert!(shelf.wasted(start).is_empty(), "more may come");
        let mut wasted = shelf.wasted(start + PAUSE);
        wasted.sort_unstable();
        assert_eq!(wasted.len(), 2, "{wasted:?}");
        assert!(wasted.iter().all(|place| shelf.knows(place)));
        wasted.iter().for_each(|place| shelf.deleted(place));
        assert!(!wasted.iter().any(|place| shelf.knows(place)));

        assert_eq!(shelf.next(), Some(start + IDLE));
        shelf.expire(start + IDLE);
        assert_eq!((shelf.spares(), shelf.all_wasted().len()), (0, 1));
        assert_eq!(shelf.next(), None, "nothing is left to do");
        assert_eq!(take(&mut shelf, "c", start + IDLE), None);
        assert_eq!(shelf.next(), None, "what was used before is forgotten");
    }

    #[test]
    fn a_layer_with_the_id_of_another_gets_no_spare_of_it() {
        let (mut shelf, start) = (Shelf::default(), Instant::now());
        shelf.take(&id("a"), "old", start);
        shelf.take(&id("a"), "old", start);
        make(&mut shelf, start + PAUSE);
        assert_eq!(shelf.take(&id("a"), "new", start + PAUSE), None);
        shelf.forget(&id("a"), start + PAUSE);
        assert_eq!((shelf.spares(), shelf.all_wasted().len()), (0, 1));
    }

    #[test]
    fn the_most_recently_used_parents_have_spares() {
        let (mut shelf, start) = (Shelf::default(), Instant::now());
        let names: Vec<_> = (0..MOST + 2).map(|number| format!("p{number}")).collect();
        for name in &names {
            take(&mut shelf, name, start);
            take(&mut shelf, name, start);
        }
        let made = make(&mut shelf, start + PAUSE);
        assert_eq!(made.len(), MOST, "{made:?}");
        assert!(!made.contains(&names[0]) && !made.contains(&names[1]), "{made:?}");
        assert_eq!(shelf.next(), Some(start + IDLE), "the others wait for nothing");
        // One of those comes again.
        take(&mut shelf, &names[0], start + PAUSE);
        take(&mut shelf, &names[0], start + PAUSE);
        make(&mut shelf, start + 2 * PAUSE);
        assert_eq!((shelf.spares(), shelf.all_wasted().len()), (MOST, 1));
        assert!(take(&mut shelf, &names[0], start + 2 * PAUSE).is_some());
        assert!(take(&mut shelf, &names[2], start + 2 * PAUSE).is_none(), "it gave way");
    }

    #[test]
    fn parents_that_are_used_once_are_forgotten_and_do_not_drive_out_others() {
        let (mut shelf, start) = (Shelf::default(), Instant::now());
        take(&mut shelf, "image", start);
        for number in 0..REMEMBERED - 1 {
            take(&mut shelf, &format!("once{number}"), start);
        }
        take(&mut shelf, "image", start);
        assert_eq!(make(&mut shelf, start + PAUSE), ["image"]);
        for number in 0..3 * REMEMBERED {
            take(&mut shelf, &format!("again{number}"), start);
        }
        assert!(shelf.parents.len() <= REMEMBERED, "{} parents", shelf.parents.len());
        assert_eq!(shelf.all_wasted().len(), 1, "a spare of none");
    }

    #[test]
    fn rounds_rest_and_failures_are_not_repeated() {
        let (mut shelf, start) = (Shelf::default(), Instant::now());
        for name in ["a", "a", "b", "b"] {
            take(&mut shelf, name, start);
        }
        let now = start + PAUSE;
        let mut orders = shelf.orders(now);
        assert_eq!(orders.len(), 2);
        shelf.fail(orders.remove(0), now);
        shelf.put(orders.remove(0), 7, now);
        shelf.rest(Duration::from_secs(1), now);
        assert_eq!(shelf.all_wasted().len(), 1, "what was begun of it");
        for name in ["a", "a", "b", "b"] {
            take(&mut shelf, name, now);
        }
        let after = now + Duration::from_secs(1) * REST;
        assert!(make(&mut shelf, after - PAUSE).is_empty(), "it rests");
        assert_eq!(make(&mut shelf, after).len(), 1, "one could not be made");
    }
}
