//! How payload of a leg is protected: DTLS-SRTP, keys from signalling, or not at all.
//! Read RFC 5764 §4, RFC 5763 §5 and RFC 4568 §6 before touching this file.

use crate::transport::dtls::{Dtls, DtlsFault, DtlsRole};
use crate::transport::leg_config::{Protection, SdesKeys};
use crate::transport::srtp::{SrtpFault, SrtpProfile, SrtpReceiver, SrtpSender, split_dtls_keying_material};
use crate::wire::candidate::Fingerprint;
use crate::wire::rtp::RtpHeader;
use std::ops::Range;

/// Where protection stands.
///
/// ```text
///   Unsettled ──role──▶ Handshake ──Finished, fingerprint fits──▶ Secured
///   (SDES starts Secured, plain RTP is Clear)
/// ```
#[derive(Debug)]
pub(crate) enum Security {
    /// DTLS, role unknown.
    Unsettled,
    Handshake(Box<Dtls>),
    /// `dtls` stays: whoever sent the last flight may have to repeat it, and close_notify and data channels need it.
    /// A leg that carries data only has no `srtp`.
    Secured {
        dtls: Option<Box<Dtls>>,
        srtp: Option<Box<Srtp>>,
    },
    Clear,
}

#[derive(Debug)]
pub(crate) struct Srtp {
    sender: SrtpSender,
    receiver: SrtpReceiver,
}

impl Security {
    pub(crate) fn new(protection: &Protection) -> Self {
        match protection {
            Protection::Dtls(_) => Self::Unsettled,
            Protection::None => Self::Clear,
            // Keys that do not fit their suite leave the leg unsettled: it never connects.
            Protection::Sdes(keys) => keys
                .as_deref()
                .and_then(Srtp::from_sdes)
                .map_or(Self::Unsettled, |srtp| Self::Secured { dtls: None, srtp: Some(Box::new(srtp)) }),
        }
    }

    pub(crate) fn dtls(&self) -> Option<&Dtls> {
        match self {
            Self::Handshake(dtls) => Some(dtls),
            Self::Secured { dtls, .. } => dtls.as_deref(),
            Self::Unsettled | Self::Clear => None,
        }
    }

    pub(crate) fn dtls_mut(&mut self) -> Option<&mut Dtls> {
        match self {
            Self::Handshake(dtls) => Some(dtls),
            Self::Secured { dtls, .. } => dtls.as_deref_mut(),
            Self::Unsettled | Self::Clear => None,
        }
    }

    /// The SRTP profile if payload may flow; `Some(None)`: plain RTP, or data only.
    pub(crate) fn ready(&self) -> Option<Option<SrtpProfile>> {
        match self {
            Self::Secured { srtp, .. } => Some(srtp.as_ref().map(|srtp| srtp.sender.profile())),
            Self::Clear => Some(None),
            Self::Unsettled | Self::Handshake(_) => None,
        }
    }

    /// Takes the keys of a complete handshake into use, once the certificate fits (XEP-0320 §3, RFC 5763 §5): compared
    /// before any key is used. Gives the fingerprint that matched; `None`: not so far yet.
    pub(crate) fn finish(&mut self, fingerprints: &[Fingerprint], rtp: bool) -> Option<Result<Fingerprint, DtlsFault>> {
        let Self::Handshake(dtls) = self else { return None };
        if !dtls.is_complete() || fingerprints.is_empty() {
            return None;
        }
        let keyed = if rtp {
            Srtp::from_dtls(dtls, fingerprints).map(|(fingerprint, srtp)| (fingerprint, Some(Box::new(srtp))))
        } else {
            dtls.verify(fingerprints).map(|fingerprint| (fingerprint.clone(), None))
        };
        let (fingerprint, srtp) = match keyed {
            Ok(both) => both,
            Err(fault) => return Some(Err(fault)),
        };
        let Self::Handshake(dtls) = std::mem::replace(self, Self::Unsettled) else { return None };
        *self = Self::Secured { dtls: Some(dtls), srtp };
        Some(Ok(fingerprint))
    }

    /// Takes keys of signalling into use. A direction whose key is the same as before goes on as it is: begun anew, its
    /// rollover counter would repeat a key stream (RFC 3711 §3.3.1). False if the keys do not fit their suite.
    pub(crate) fn rekey(&mut self, old: Option<&SdesKeys>, new: &SdesKeys) -> bool {
        let same_suite = old.is_some_and(|old| old.profile == new.profile);
        match self {
            Self::Secured { srtp: Some(srtp), .. } if same_suite => {
                if old.is_none_or(|old| old.local != new.local) {
                    let Ok(sender) = SrtpSender::new(new.profile, &new.local.0, &new.local.1) else { return false };
                    srtp.sender = sender;
                }
                if old.is_none_or(|old| old.remote != new.remote) {
                    let remote = &new.remote;
                    let Ok(receiver) = SrtpReceiver::new(new.profile, &remote.0, &remote.1) else { return false };
                    srtp.receiver = receiver;
                }
                true
            }
            Self::Secured { .. } | Self::Unsettled => match Srtp::from_sdes(new) {
                Some(srtp) => {
                    *self = Self::Secured { dtls: None, srtp: Some(Box::new(srtp)) };
                    true
                }
                None => false,
            },
            Self::Handshake(_) | Self::Clear => false,
        }
    }

    pub(crate) fn protect_rtp(&mut self, packet: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Secured { srtp, .. } => srtp.as_mut()?.sender.protect_rtp(packet).ok(),
            Self::Clear => Some(()),
            Self::Unsettled | Self::Handshake(_) => None,
        }
    }

    pub(crate) fn protect_rtcp(&mut self, compound: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Secured { srtp, .. } => srtp.as_mut()?.sender.protect_rtcp(compound).ok(),
            Self::Clear => Some(()),
            Self::Unsettled | Self::Handshake(_) => None,
        }
    }

    /// The header and where the payload stands.
    pub(crate) fn unprotect_rtp(&mut self, packet: &mut [u8]) -> Option<(RtpHeader, Range<usize>)> {
        match self {
            Self::Secured { srtp, .. } => srtp.as_mut()?.receiver.unprotect_rtp(packet).ok(),
            Self::Clear => RtpHeader::parse(packet).ok(),
            Self::Unsettled | Self::Handshake(_) => None,
        }
    }

    /// Length of the plain compound packet.
    pub(crate) fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Option<usize> {
        match self {
            Self::Secured { srtp, .. } => srtp.as_mut()?.receiver.unprotect_rtcp(packet).ok(),
            Self::Clear => Some(packet.len()),
            Self::Unsettled | Self::Handshake(_) => None,
        }
    }
}

impl Srtp {
    fn from_sdes(keys: &SdesKeys) -> Option<Self> {
        let sender = SrtpSender::new(keys.profile, &keys.local.0, &keys.local.1).ok()?;
        let receiver = SrtpReceiver::new(keys.profile, &keys.remote.0, &keys.remote.1).ok()?;
        Some(Self { sender, receiver })
    }

    fn from_dtls(dtls: &Dtls, fingerprints: &[Fingerprint]) -> Result<(Fingerprint, Self), DtlsFault> {
        let bad = |fault: SrtpFault| DtlsFault::Engine(fault.to_string());
        let keys = dtls.srtp_keys(fingerprints)?;
        let client = dtls.role() == DtlsRole::Client;
        let (ours, theirs) = split_dtls_keying_material(keys.profile, keys.material.as_ref(), client).map_err(bad)?;
        let sender = SrtpSender::new(keys.profile, ours.key, ours.salt).map_err(bad)?;
        let receiver = SrtpReceiver::new(keys.profile, theirs.key, theirs.salt).map_err(bad)?;
        Ok((keys.fingerprint, Self { sender, receiver }))
    }
}
