//! Files that stay registered with the kernel after their last close, for the next open.
//!
//! Registering a file is a system call for the file and two for its number; a file that is opened
//! again and again pays them once. A registered file keeps the kernel's inode of the layer in memory,
//! as the kernel's inode of the mount does, and goes with it: when memory is short the kernel forgets
//! nodes, and a forgotten node gives its file back.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};

use crate::node::Node;
use crate::union::lock;

/// How many files may stay registered without being open.
const LIMIT: usize = 32_768;

/// The nodes whose files stay registered, the longest unused first.
#[derive(Debug, Default)]
pub(super) struct Idle(Mutex<VecDeque<Weak<Node>>>);

impl Idle {
    /// Lets a node that nobody has open keep its file, at the cost of the one unused for longest.
    ///
    /// The caller holds no node's state: that of others is taken here.
    pub(super) fn park(&self, node: &Arc<Node>) {
        let mut queue = lock(&self.0);
        queue.push_back(Arc::downgrade(node));
        let mut chances = queue.len();
        while queue.len() > LIMIT {
            let Some(oldest) = queue.pop_front() else { return };
            let Some(oldest) = oldest.upgrade() else { continue };
            drop(queue);
            let spared = oldest.state().unpark(chances > 0);
            chances = chances.saturating_sub(1);
            queue = lock(&self.0);
            if spared {
                queue.push_back(Arc::downgrade(&oldest));
            }
        }
    }
}
