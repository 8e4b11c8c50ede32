//! The packet path through a relay, written by hand so that it allocates nothing: ChannelData, Send and Data
//! indications. Read RFC 8656 §11 and §12.4, RFC 8489 §14 before touching this file.

use crate::transport::stun::{HEADER_BYTES, MAGIC_COOKIE};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::RngCore;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

pub(crate) fn write_channel_data(number: u16, payload: &[u8], out: &mut Vec<u8>) {
    // `wrap` has bounded the payload; over UDP no padding is needed (RFC 8656 §12.5).
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(payload);
}

/// RFC 8656 §11.1. Written by hand: the packet path of a call before its channel is bound.
pub(crate) fn write_send_indication(rng: &mut ChaCha20Rng, peer: SocketAddr, payload: &[u8], out: &mut Vec<u8>) {
    const SEND_INDICATION: u16 = 0x0016;
    const XOR_PEER_ADDRESS: u16 = 0x0012;
    const DATA: u16 = 0x0013;
    let mut id = [0; 12];
    rng.fill_bytes(&mut id);
    let padding = payload.len().next_multiple_of(4) - payload.len();
    let address_bytes: u16 = if peer.is_ipv4() { 8 } else { 20 };
    let length = usize::from(address_bytes) + 8 + payload.len() + padding;
    out.extend_from_slice(&SEND_INDICATION.to_be_bytes());
    out.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(&MAGIC_COOKIE);
    out.extend_from_slice(&id);
    out.extend_from_slice(&XOR_PEER_ADDRESS.to_be_bytes());
    out.extend_from_slice(&address_bytes.to_be_bytes());
    out.push(0);
    out.push(if peer.is_ipv4() { 1 } else { 2 });
    out.extend_from_slice(&(peer.port() ^ 0x2112).to_be_bytes());
    let mask = xor_mask(&id);
    match peer.ip() {
        IpAddr::V4(ip) => out.extend(ip.octets().iter().zip(mask).map(|(byte, mask)| byte ^ mask)),
        IpAddr::V6(ip) => out.extend(ip.octets().iter().zip(mask).map(|(byte, mask)| byte ^ mask)),
    }
    out.extend_from_slice(&DATA.to_be_bytes());
    out.extend_from_slice(&u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice([0; 3].get(..padding).unwrap_or_default());
}

/// Peer and payload of a Data indication, RFC 8656 §11.4; the caller has checked header and length.
pub(crate) fn read_data_indication(bytes: &[u8]) -> Option<(SocketAddr, Range<usize>)> {
    const XOR_PEER_ADDRESS: u16 = 0x0012;
    const DATA: u16 = 0x0013;
    let id: &[u8; 12] = bytes.get(8..)?.first_chunk()?;
    let (mut peer, mut payload) = (None, None);
    let mut at = HEADER_BYTES;
    while at < bytes.len() {
        let (kind, length) = (be_u16(bytes, at)?, usize::from(be_u16(bytes, at + 2)?));
        let value = at + 4..at + 4 + length;
        let content = bytes.get(value.clone())?;
        match kind {
            // RFC 8489 §14: of a repeated attribute the first counts.
            XOR_PEER_ADDRESS if peer.is_none() => peer = Some(read_xor_address(content, id)?),
            DATA if payload.is_none() => payload = Some(value),
            _ => {}
        }
        at += 4 + length.next_multiple_of(4);
    }
    Some((peer?, payload?))
}

fn read_xor_address(value: &[u8], id: &[u8; 12]) -> Option<SocketAddr> {
    let port = be_u16(value, 2)? ^ 0x2112;
    let mask = xor_mask(id);
    let octets = value.get(4..)?;
    let ip = match (value.get(1)?, octets.len()) {
        (1, 4) => {
            let mut ip = *octets.first_chunk::<4>()?;
            ip.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
            IpAddr::from(ip)
        }
        (2, 16) => {
            let mut ip = *octets.first_chunk::<16>()?;
            ip.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
            IpAddr::from(ip)
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Cookie and transaction id, with which addresses are masked, RFC 8489 §14.2.
fn xor_mask(id: &[u8; 12]) -> impl Iterator<Item = u8> {
    MAGIC_COOKIE.into_iter().chain(*id)
}

pub(crate) fn be_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
