//! What can be seen without a mount; requests over the ring are tested with layerfs.

use std::fs::File;
use std::thread;

use super::*;

/// A ring over a `/dev/fuse` that is no mount's; none where io_uring is not to be had, which is said.
fn ring(depth: usize) -> Option<Ring> {
    let device = File::options().read(true).write(true).open("/dev/fuse");
    let made = device.map_err(|error| errno(&error));
    match made.and_then(|device| Ring::new(&Arc::new(device.into()), &[0, 1], depth, 8192)) {
        Ok(ring) => Some(ring),
        Err(error) => {
            let promised = std::env::var_os("CI").is_some_and(|value| value == "true");
            assert!(!promised, "this test needs /dev/fuse and io_uring: {error}");
            eprintln!("cannot run here: /dev/fuse and io_uring: {error}");
            None
        }
    }
}

#[test]
fn entries_of_no_mount_are_refused() {
    let Some(mut ring) = ring(3) else { return };
    let answer = ring.register();
    let expected = [Errno::NOTCONN, Errno::PERM, Errno::OPNOTSUPP];
    assert!(answer.is_err_and(|error| expected.contains(&error)), "{answer:?}");
    assert!(ring.entries.iter().all(|(_, holder)| *holder == Holder::Nobody), "{ring:?}");
}

#[test]
fn a_wait_ends_when_another_thread_wakes() {
    let Some(mut ring) = ring(1) else { return };
    let waker = ring.waker();
    let mut events = Vec::new();
    for round in 0..3 {
        let waker = waker.clone();
        let other = thread::spawn(move || waker.wake());
        ring.wait(&mut events).unwrap();
        other.join().unwrap();
        assert!(matches!(events[..], [Event::Woken]), "round {round}: {events:?}");
        events.clear();
    }
}

#[test]
fn what_the_server_does_not_hold_is_not_lent() {
    let Some(mut ring) = ring(1) else { return };
    for number in [0, 1, 2, usize::MAX] {
        let entry = Entry(number);
        assert_eq!(ring.request(&entry).err(), Some(Errno::INVAL), "request {number}");
        assert_eq!(ring.payload_mut(&entry).err(), Some(Errno::INVAL), "payload {number}");
        assert_eq!(ring.commit(entry, 0, 0), Err(Errno::INVAL), "commit {number}");
    }
}

#[test]
fn a_request_is_its_header_and_one_slice_of_arguments() {
    let Some(mut ring) = ring(2) else { return };
    // Lays a request out as the kernel does: the first argument apart from the payload.
    let lay_out = |ring: &mut Ring, total: u32, payload: u32| {
        ring.entries[1].1 = Holder::Server(77);
        let base = ring.base(1);
        // SAFETY: the entry was never registered; the places are inside its part of the mapping.
        unsafe {
            base.cast::<u32>().write(total);
            base.add(PAYLOAD_SIZE).cast::<u32>().write(payload);
            base.add(OP_IN).copy_from_nonoverlapping(b"first...".as_ptr(), 8);
            base.add(PAYLOAD).copy_from_nonoverlapping(c"name".as_ptr().cast(), 5);
        }
    };
    lay_out(&mut ring, 40 + 8 + 5, 5);
    let (header, arguments) = ring.request(&Entry(1)).unwrap();
    assert_eq!((header.len(), arguments), (40, &b"first...name\0"[..]), "both arguments");
    lay_out(&mut ring, 40 + 5, 5);
    assert_eq!(ring.request(&Entry(1)).unwrap().1, b"name\0", "an empty first argument");
    for (total, payload) in [(44, 5), (0, 0), (40 + 129, 0), (u32::MAX, u32::MAX - 40), (40, 8193)]
    {
        lay_out(&mut ring, total, payload);
        assert_eq!(ring.request(&Entry(1)).err(), Some(Errno::INVAL), "{total} with {payload}");
    }
    ring.payload_mut(&Entry(1)).unwrap()[..2].copy_from_slice(b"ok");
    assert_eq!(ring.commit(Entry(1), 0, 8193), Err(Errno::INVAL), "more than there is");
    ring.commit(Entry(1), 0, 2).unwrap();
    assert_eq!(ring.entries[1].1, Holder::Kernel, "given back");
    ring.entries[1].1 = Holder::Nobody;
}
