//! The loopback interface of a new network namespace.
//!
//! A new namespace has `lo`, always with index 1, and it is down. `--network none` means no way out,
//! not no loopback: docker's has it up too.

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

use crate::error::{Error, Result};

/// `RTM_NEWLINK`, rtnetlink(7).
const RTM_NEWLINK: u16 = 16;
/// `NLM_F_REQUEST | NLM_F_ACK`, netlink(7).
const REQUEST_ACK: u16 = 0x1 | 0x4;
/// `NLMSG_ERROR`, which is an acknowledgement when its error is 0.
const NLMSG_ERROR: u16 = 2;
/// `IFF_UP`, netdevice(7).
const IFF_UP: u32 = 1;
/// The index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

/// Brings up the loopback interface of this process's network namespace.
///
/// # Errors
///
/// [`Error::System`] with the kernel's answer.
pub fn loopback_up() -> Result<()> {
    exchange().map_err(Error::system("bring the loopback interface up"))
}

/// Protocol 0 of netlink is rtnetlink.
fn exchange() -> std::io::Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let kind = SocketType::RAW;
    let socket = socket_with(AddressFamily::NETLINK, kind, flags, None)?;
    sendto(&socket, &link_up(LOOPBACK), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0; 256];
    let (length, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    acknowledged(&answer[..length])
}

/// An `RTM_NEWLINK` request that sets `IFF_UP`: `struct nlmsghdr` and `struct ifinfomsg`.
fn link_up(index: u32) -> [u8; 32] {
    let mut message = [0; 32];
    message[0..4].copy_from_slice(&32_u32.to_ne_bytes());
    message[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST_ACK.to_ne_bytes());
    message[20..24].copy_from_slice(&index.to_ne_bytes());
    message[24..28].copy_from_slice(&IFF_UP.to_ne_bytes());
    message[28..32].copy_from_slice(&IFF_UP.to_ne_bytes());
    message
}

/// Reads a `struct nlmsgerr`: after the header a negated errno, 0 for an acknowledgement.
fn acknowledged(answer: &[u8]) -> std::io::Result<()> {
    let field = |at: usize| answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    let kind = answer.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    match (kind, field(16).map(i32::from_ne_bytes)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(error)) => {
            Err(std::io::Error::from_raw_os_error(error.saturating_neg()))
        }
        _ => Err(std::io::Error::other("malformed answer over netlink")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_is_laid_out_as_rtnetlink_says() {
        let message = link_up(1);
        let word = |at: usize| u32::from_ne_bytes(message[at..at + 4].try_into().unwrap());
        assert_eq!(word(0), 32, "length of the whole message");
        assert_eq!(word(20), 1, "interface index");
        assert_eq!((word(24), word(28)), (1, 1), "IFF_UP, and only that bit changes");
    }

    #[test]
    fn answers_are_read_with_care() {
        let mut answer = [0_u8; 36];
        answer[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        assert!(acknowledged(&answer).is_ok(), "an acknowledgement");
        answer[16..20].copy_from_slice(&(-1_i32).to_ne_bytes());
        assert_eq!(acknowledged(&answer).unwrap_err().raw_os_error(), Some(1), "EPERM");
        for length in 0..20 {
            assert!(acknowledged(&answer[..length]).is_err(), "{length} bytes are too few");
        }
    }
}
