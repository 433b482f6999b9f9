//! Who is connected, who has been idle the longest, and who is told to go.
//!
//! A client may keep an HTTP/2 connection for as long as it likes, as containerd does, so those are not
//! closed for being idle (over HTTP/1 the next head must be there within its time). They are closed when
//! there is no room for another client: then the one that has been idle the longest goes, as a server may
//! do at any time in both versions of HTTP. A connection with a request under way is never told to go but
//! at the daemon's end, and then finishes it first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    members: Mutex<HashMap<u64, Arc<Member>>>,
    /// Counts arrivals and ends of requests: what was idle before another has the lower number.
    clock: Arc<AtomicU64>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Member {
    clock: Arc<AtomicU64>,
    /// Requests under way.
    requests: AtomicUsize,
    /// Whether there ever was one.
    heard: AtomicBool,
    /// When it came or its last request ended, by the clock.
    idle_since: AtomicU64,
    going: AtomicBool,
    told: Notify,
}

impl Crowd {
    /// Adds a connection.
    pub(super) fn join(self: &Arc<Self>) -> Membership {
        let number = self.clock.fetch_add(1, Ordering::Relaxed);
        let member = Arc::new(Member {
            clock: Arc::clone(&self.clock),
            requests: AtomicUsize::new(0),
            heard: AtomicBool::new(false),
            idle_since: AtomicU64::new(number),
            going: AtomicBool::new(false),
            told: Notify::new(),
        });
        self.lock().insert(number, Arc::clone(&member));
        Membership { crowd: Arc::clone(self), number, member }
    }

    /// Tells up to `count` idle connections to go, those first that have been idle the longest, and says
    /// how many there were.
    pub(super) fn dismiss_idle(&self, count: usize) -> usize {
        let members = self.lock();
        let idle = members.values().filter(|member| member.is_idle()).map(Arc::clone);
        let since = |member: &Member| member.idle_since.load(Ordering::Relaxed);
        let mut idle: Vec<_> = idle.map(|member| (since(&member), member)).collect();
        drop(members);
        idle.sort_unstable_by_key(|(since, _)| *since);
        idle.truncate(count);
        for (_, member) in &idle {
            member.tell();
        }
        idle.len()
    }

    /// How many connections there are.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Tells everybody to go.
    pub(super) fn dismiss_all(&self) {
        self.lock().values().for_each(|member| member.tell());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// Notes a request, which is under way until the answer is dropped.
    pub(super) fn request(self: &Arc<Self>) -> UnderWay {
        self.heard.store(true, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::AcqRel);
        UnderWay(Arc::clone(self))
    }

    /// Whether there ever was a request.
    pub(super) fn was_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// Returns when the connection is told to go.
    pub(super) async fn told(&self) {
        self.told.notified().await;
    }

    /// Whether no request is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.requests.load(Ordering::Acquire) == 0
    }

    fn is_idle(&self) -> bool {
        self.is_quiet() && !self.going.load(Ordering::Relaxed)
    }

    fn tell(&self) {
        if !self.going.swap(true, Ordering::Relaxed) {
            self.told.notify_one();
        }
    }
}

/// A connection's place in the crowd, which ends with it.
#[derive(Debug)]
pub(super) struct Membership {
    crowd: Arc<Crowd>,
    number: u64,
    pub(super) member: Arc<Member>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.crowd.lock().remove(&self.number);
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Member>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let now = self.0.clock.fetch_add(1, Ordering::Relaxed);
        self.0.idle_since.store(now, Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(membership: &Membership) -> bool {
        membership.member.going.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn the_longest_idle_go_first_and_busy_ones_stay() {
        let crowd = Arc::new(Crowd::default());
        let mut members: Vec<_> = (0..4).map(|_| crowd.join()).collect();
        // The oldest has just had a request, the second has one.
        drop(members[0].member.request());
        let under_way = members[1].member.request();
        assert_eq!(crowd.dismiss_idle(1), 1, "there are three idle ones");
        assert_eq!(
            members.iter().map(told).collect::<Vec<_>>(),
            [false, false, true, false],
            "the third has been idle the longest"
        );
        assert_eq!(crowd.dismiss_idle(10), 2, "who was told is not told again");
        assert!(!told(&members[1]), "a request is under way");
        drop(under_way);
        members[2].member.told().await;
        crowd.dismiss_all();
        assert!(members.iter().all(told), "at the end everybody is told");
        members.clear();
        assert_eq!(crowd.lock().len(), 0, "who is gone is forgotten");
    }
}
