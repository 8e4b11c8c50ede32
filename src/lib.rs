//! offhook: Jingle signalling and media sessions over XMPP, and a SIP telephone.
//!
//! # The map
//! Imports go one way: a module uses only its own folder and rows with a smaller number (`tests/layers.rs`).
//!
//! | row | modules | what lives there |
//! |---|---|---|
//! | 0 | [`fault`], [`config`] | fault kinds and the one answer table; every knob and cap |
//! | 1 | [`wire`] | bytes and text to values and back |
//! | 2 | [`xmpp`], [`transport`], [`media`] | the signalling connection; how payload travels; RTP frames to sound and back |
//! | 3 | [`jingle`], [`sip`], [`file`] | sessions, contents, invitations: signalling only; the SIP user agent; sizes, ranges, hashes, names of files |
//! | 5 | [`endpoint`] | the sans-IO engine, which joins a session and its legs, streams and files |
//! | 6 | `io`, [`error`] | the only place with a clock, sockets, tasks, DNS, sound, files; the public error |
//! | 7 | `client` | the async API applications use |
//! | 8 | `cli` | commands, output, exit codes |
//!
//! ```text
//!                   ┌───────── src/io (tokio shell: clock, sockets, tasks, DNS, sound, files) ──────────┐
//! server ◀─ TCP/TLS ─▶ io/tcp, io/tls      io/driver: one input in, all outputs drained      io/udp ◀─ UDP ─▶ peer, relay
//! ═══════════════════════════════════════ sans-IO core ══════════════════════════════════════════════════════════
//!        bytes │                                    endpoint                                        │ datagrams
//!              ▼                     (joins a session with its leg and its sound)                   ▼
//!  wire/framer ▶ wire/xml ▶ wire/stanza             │            │            transport/leg (STUN │ DTLS │ SRTP
//!              ▼                                    │            │              by the first byte) ◀ ice, gather,
//!  xmpp/stream or xmpp/link_local                   │            │              turn, dtls, srtp, rtcp
//!     │ iq, message, presence                       │            │                                  │ RTP
//!     ├─▶ xmpp/presence, caps, services             │            │                                  ▼
//!     └─▶ jingle/invite ▶ jingle/sessions ▶ jingle/session       └─────▶ media/audio (jitter ▶ codec ▶ PCM, pulled by
//!                                            ▶ jingle/content              the sound clock; PCM pushed by the microphone)
//!
//! A file finds its way in endpoint/transfers and endpoint/ways; its bytes then go
//!   over a SOCKS5 bytestream    disk ◀─ io/disk ─▶ TCP           (negotiated in transport/s5b, dialled by io/bytestream)
//!   over a data channel         disk ◀─ io/disk ─▶ endpoint/carrying ◀─▶ transport/data_channel ◀─▶ transport/leg
//!   in stanzas                  disk ◀─ io/disk ─▶ endpoint/carrying ◀─▶ transport/ibb ◀─▶ xmpp/stream
//! and file.rs knows its sizes, ranges, hashes and name whichever way it is.
//!
//! A SIP account has the same calls, legs and sound; only the words differ:
//!   bytes ▶ sip/flow (sockets, streams, keep-alives) ▶ wire/sip ▶ sip/transaction ▶ sip/carrier (next hop, log-in, fail-over)
//!         ▶ sip/policy (one gate for strangers) ▶ sip/sessions, sip/register, sip/event, sip/message  (all: sip/agent)
//!         ▶ endpoint/telephone, which joins a session and its leg; wire/sdp is what both sides offer and answer.
//! ```
//!
//! Where to look first: a call of an application begins in `src/client.rs`, is carried by `src/io/driver.rs`, and happens
//! in `src/endpoint/calls.rs`, over SIP in `src/endpoint/telephone.rs`; a file the same way in `src/endpoint/transfers.rs`.
//! What the network may and may not do to it stands in `src/jingle/actions.rs` and `src/sip/policy.rs` (signalling),
//! `src/transport/leg.rs` (datagrams) and `src/config.rs` (caps).
//!
//! # The run loop
//! Nothing here reads a clock, opens a socket or starts a task: time, bytes and datagrams are arguments. The rule for every
//! loop, and for every level below: **one mutation, then drain until the timeout**. A mutation is one call of
//! [`handle_input`], [`handle_timeout`] or of an application's verb ([`call`], [`accept`], [`hang_up`], …).
//!
//! ```
//! use offhook::endpoint::event::{Input, Output};
//! use offhook::endpoint::{Account, AddressPolicy, Endpoint, EndpointConfig, MediaConfig};
//! use offhook::transport::dtls::Identity;
//! use offhook::wire::jid::BareJid;
//! use offhook::xmpp::link_local::LinkRole;
//! use std::time::{Duration, Instant, SystemTime};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = EndpointConfig {
//!     account: Account::serverless(LinkRole::Connector, BareJid::new("romeo@montague.example")?),
//!     context: Default::default(),
//!     callers: Default::default(),
//!     address_policy: AddressPolicy::Accept,
//!     media: MediaConfig::default(),
//!     show_signalling: false,
//! };
//! let mut now = Instant::now();
//! let mut endpoint = Endpoint::new(now, SystemTime::now(), [7; 32], Identity::generate()?.into(), config);
//! let mut connection = Vec::new();
//! let mut connect = false;
//! for _turn in 0..3 {
//!     let deadline = loop {
//!         match endpoint.poll_output() {
//!             Output::Timeout(at) => break at,
//!             Output::Connect => connect = true,                    // open the connection to the server
//!             Output::StartTls | Output::Close => {}                // negotiate TLS on it, close it
//!             Output::Bytes(bytes) => connection.extend(bytes),     // write to it
//!             Output::OpenSockets { .. } | Output::CloseSockets(_) => {} // UDP sockets of one call
//!             Output::Sip(_wish) => {}                              // SIP's connections and questions to DNS
//!             Output::File(_wish) => {}                             // open, read, write a file; its TCP streams
//!             Output::Transmit(_datagram) => {}                     // send from one of them
//!             Output::Resolve(_name) => {}                          // ask DNS or mDNS
//!             Output::Event(event) => println!("{event:?}"),        // tell the application
//!         }
//!     };
//!     // Wait for the first of: bytes, a datagram, an answer to one of the above, a wish of the user, the deadline.
//!     if std::mem::take(&mut connect) {
//!         endpoint.handle_input(now, Input::Connected { tls: None, loopback: true });
//!     } else {
//!         now = deadline.unwrap_or(now + Duration::from_secs(1));
//!         endpoint.handle_timeout(now);
//!     }
//! }
//! assert!(String::from_utf8(connection)?.contains("<stream:stream"));
//! # Ok(())
//! # }
//! ```
//!
//! `src/io/driver.rs` is this loop on tokio; `examples/sans_io.rs` is a whole call between two endpoints in virtual time.
//! Randomness comes from the seed, all but that of keys, so a call replays.
//!
//! [`handle_input`]: endpoint::Endpoint::handle_input
//! [`handle_timeout`]: endpoint::Endpoint::handle_timeout
//! [`call`]: endpoint::Endpoint::call
//! [`accept`]: endpoint::Endpoint::accept
//! [`hang_up`]: endpoint::Endpoint::hang_up
//!
//! # Where we differ
//! Departures from standards, and choices where a standard leaves one. Each is repeated where it happens.
//!
//! Signalling:
//! - Channel binding is `tls-exporter` (RFC 9266) and so exists with TLS 1.3 only; `tls-unique` and
//!   `tls-server-end-point` are not spoken. PLAIN is off by default; switched on, it goes only inside TLS and
//!   only where no SCRAM is offered (`src/xmpp/sasl.rs`).
//! - Stream compression (XEP-0138, obsolete) is never asked for; DTDs, processing instructions, comments and undeclared
//!   entities end the stream as RFC 6120 §11.1 says (`src/wire/xml.rs`).
//! - The serverless stream of XEP-0174 starts with TLS, without a stream header in clear before it, and both certificates
//!   are self-signed and pinned; there is no SASL, and the addresses in the headers are a claim (`src/xmpp/link_local.rs`).
//! - An incoming `initiator` or `responder` that names somebody else than the sender is not used (XEP-0166 §7.1;
//!   `src/wire/jingle.rs`).
//! - Lenient in: a missing `creator` reads as `initiator`, a missing `senders` as `both`, old XEP-0353 and XEP-0215 forms
//!   are understood. Strict out: none of that is sent.
//! - What XEP-0166 leaves open in its table of actions: session-initiate for an ended sid is `out-of-order` until the sid
//!   is forgotten, an answer without its request is `out-of-order`, and `security-info` is acknowledged and has no effect
//!   (`src/jingle/actions.rs`, `src/jingle/inbound.rs`).
//! - Two offers tie only if they are functionally equivalent: the same application and media. Others coexist.
//! - Strangers get the same bytes as from an account that is offline, not a Jingle error (`src/xmpp/requests.rs`).
//!
//! Media:
//! - DTLS-SRTP is mandatory on Jingle contents: an offer without a fingerprint ends with `security-error`, except that the
//!   fingerprint may follow in a transport-info within 3 s (`src/jingle/offer.rs`). SDES and plain RTP exist in
//!   `src/transport/protection.rs` for legs that do not belong to Jingle.
//! - rtcp-mux is required on ICE legs; candidates of component 2 are accepted and left unused.
//! - TCP candidates are read and left unused; TURN goes over UDP only.
//! - SIP's media without ICE: the peer is where its description says, or where one of its first five packets comes from, and
//!   then nowhere else (`src/transport/plain.rs`). SDES keys go over encrypted signalling only, unless they are demanded; an
//!   MKI is not spoken (`src/transport/sdes.rs`). Descriptions carry all candidates: there is no trickle.
//! - Before a SIP callee answers, a caller hears it and sends silence (RFC 3960; `src/endpoint/telephone.rs`). A transfer is
//!   followed to hosts of the configuration only.
//! - Of several fingerprints only those with the strongest known hash count (RFC 8122 §5); no key leaves
//!   `src/transport/dtls.rs` for a certificate that fits none.
//! - A TURN error without MESSAGE-INTEGRITY is believed, as deployed servers send it (`src/transport/turn.rs`).
//! - SCTP's RTO.Min and RTO.Initial are 400 ms and one SACK may answer eight packets (RFC 9260 §16 and §6.2 name 1 s and
//!   two). Losses of less than 2 % do not slow a transfer down: they are taken for chance, repaired by time as RFC 8985
//!   does, and kept from the engine (`src/transport/data_channel/recovery.rs`). An association does not restart
//!   (RFC 9260 §5.2.2), and its tags and TSNs are the one randomness beside keys that no seed replays.
//! - Data channels are reliable and ordered; others are refused by resetting their stream.
//! - The first RTCP report leaves after 1 s, and timer reconsideration is left out: a leg has two members
//!   (`src/transport/rtcp.rs`).
//! - SRTP authentication failures never end a call, however many (`src/transport/srtp.rs`).
//!
//! Files:
//! - What is fast comes first: streamhosts of both sides' own machines, then a data channel, then proxies, in-band last;
//!   so a first offer names no proxy where a data channel may follow (`src/endpoint/transfer.rs`).
//! - Several files are one session, but no more than three of them at a time; one begins when the next one is agreed on,
//!   or after 2 s. What is left when the receiver ends the session goes in another one (`src/endpoint/transfers.rs`).
//! - Files of 16 MiB and less are offered with their hash, larger ones with `hash-used` and a late checksum. A file
//!   without any hash is kept, and told as not verified (`src/endpoint/carrying.rs`).
//! - Two offers of files that cross never tie: they are two files (`src/jingle/sessions.rs`).
//! - Our listeners take both orders of the JIDs in DST.ADDR and any DST.PORT; the cid of `activated` is not compared, as
//!   the example of XEP-0260 has a wrong one (`src/transport/s5b.rs`).
//! - Bytestreams over UDP (`mode='udp'`), further in-band sids of one session (XEP-0261 §2.4) and port mapping are not
//!   spoken.
//! - A file over ICE needs a DTLS fingerprint like sound does (`src/jingle/content.rs`).
//!
//! SIP:
//! - White space before the colon is read only after names that have a meaning here, as RFC 4475's messages need it; an
//!   unknown header with it, a bare CR or LF, and a continuation of nothing are refused (`src/wire/sip/parse.rs`).
//! - A header that nothing depends on counts for nothing where its value is broken; in a response also most others, as a
//!   call should not hang on them (`src/wire/sip/names.rs`). Tags are compared with case, as everybody does.
//! - An unknown type letter refuses a session description (RFC 8866 §5); titles, repetitions and key lines are not kept
//!   (`src/wire/sdp.rs`).
//! - Keep-alives of RFC 5626 go out on every stream of ours; silence ends a connection only where the server agreed to them,
//!   or answered one before, as many never do. STUN is asked on the SIP port and not answered there
//!   (`src/sip/flow/keep_alive.rs`).
//! - Names without a dot, `.local` and `.localhost` names have neither NAPTR nor SRV; questions for both go out together
//!   (`src/sip/locate/plan.rs`). `transport=tls` and `transport=wss` are understood (`src/sip/locate.rs`).
//! - Requests go back over a connection that the peer opened only for domains that his certificate proves, and never over
//!   one without TLS (RFC 5923; `src/sip/flow/table.rs`).
//! - A wildcard in a certificate counts, where RFC 5922 §7.2 refuses it: hosted PBXs have them (`src/io/sip/identity.rs`).
//! - Of several challenges the strongest is answered, where RFC 8760 §2.4 says the topmost; and none whose realm or host is
//!   not configured, or that was not the first of its host where no realm is (`src/sip/auth.rs`).
//! - The user part of a registered Contact is a random one: it tells our bindings from others, and who dials addresses at
//!   random finds nobody (`src/sip/agent.rs`).
//! - Who does not come by the registrar gets 403 for every method but OPTIONS (`src/sip/policy.rs`). REFER outside a call is
//!   declined (`src/sip/message.rs`). A registrar's NOTIFY of waiting messages needs no subscription (`src/sip/event.rs`).
//! - Our 200 waits for the PRACK of each reliable provisional response, not only of those with a description, and our
//!   requests in a dialog go one after the other (INVITE, UPDATE, PRACK, INFO), so that none is refused for having been
//!   overtaken (`src/sip/session/callee.rs`, `src/sip/session/modify.rs`).
//! - Offers that are what holds already are answered without asking; a re-INVITE without an offer gets what holds, not all
//!   that could be offered (RFC 3261 §14.2; `src/sip/session/modify.rs`). A hold also counts in the answers that are given
//!   meanwhile.
//! - A session timer exists only where both sides speak of it; we do not refresh for ourselves alone (RFC 4028 §7.2;
//!   `src/sip/session/timer.rs`). Redirections are followed inside the domain that was called, five at most
//!   (`src/sip/session/caller.rs`). One REFER at a time is taken from a peer, and only in a call (`src/sip/transfer.rs`).
//! - A text of 1300 bytes is sent by MESSAGE, though with its headers it is longer: it goes by TCP then (RFC 3428 §8).
//!
//! In the layout:
//! - A leg belongs to the endpoint's call, not to the Jingle content: with BUNDLE several contents share one leg. Jingle
//!   stays signalling only.
//! - `src/error.rs` stands in row 6, because it wraps what the engine of row 5 refuses.

// Row 0
pub mod config;
pub mod fault;

/// Row 1: bytes and text to values and back.
#[deny(clippy::indexing_slicing)]
pub mod wire {
    pub mod address;
    pub mod bytestream;
    pub mod candidate;
    mod chars;
    pub mod description;
    pub mod disco;
    pub mod event_body;
    pub mod file;
    pub mod framer;
    pub mod jid;
    pub mod jingle;
    pub mod ns;
    pub mod roster;
    pub mod rtcp;
    pub mod rtp;
    pub mod sdp;
    pub mod services;
    pub mod sip;
    pub mod stanza;
    pub mod stream;
    pub mod time;
    pub mod xml;
}

/// Row 2: the signalling connection.
pub mod xmpp {
    pub mod backoff;
    pub mod caps;
    pub mod link_local;
    pub mod pipe;
    pub mod presence;
    pub mod proxies;
    pub mod requests;
    pub mod resume;
    pub mod sasl;
    pub mod services;
    pub mod stream;
    pub mod stream_io;
}

/// Row 2: how payload travels.
pub mod transport {
    pub mod data_channel;
    pub mod dial;
    pub mod dtls;
    pub mod gather;
    pub mod ibb;
    pub mod ice;
    pub mod leg;
    pub mod leg_config;
    pub mod path;
    pub mod plain;
    mod protection;
    pub mod rtcp;
    pub mod s5b;
    pub mod sdes;
    mod seed;
    pub mod socks5;
    pub mod srtp;
    pub mod stun;
    pub mod turn;
    pub(crate) mod turn_data;
    pub mod warm_up;
}

/// Row 2: RTP frames to sound and back.
pub mod media {
    pub mod audio;
    pub mod codec;
    pub mod comfort_noise;
    pub mod conceal;
    pub mod dtmf;
    pub mod g711;
    pub mod g722;
    pub mod jitter;
    pub mod quality;
    pub mod resample;
}

/// Row 3: sessions, contents, invitations: signalling only.
pub mod jingle {
    pub mod actions;
    mod answered;
    pub mod content;
    mod exchange;
    mod inbound;
    pub mod invite;
    mod offer;
    pub mod session;
    pub mod sessions;
    mod state;
}

/// Row 3: the SIP user agent: transactions, dialogs, sessions, registrations: signalling only.
pub mod sip {
    pub mod agent;
    pub mod auth;
    pub mod carrier;
    pub mod dialog;
    pub mod event;
    pub mod exchange;
    pub mod flow;
    pub mod locate;
    pub mod message;
    pub mod policy;
    pub mod register;
    pub mod session;
    pub mod sessions;
    pub mod transaction;
    mod transfer;
    mod words;
}

// Row 3
pub mod file;

// Row 5
pub mod endpoint;

// Row 6
pub mod error;

/// Row 6: the only place with a clock, sockets, tasks, DNS, sound, files.
#[cfg(feature = "io")]
#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod io {
    pub mod audio;
    pub mod bytestream;
    pub mod carrier;
    pub mod disk;
    pub mod dns;
    pub mod driver;
    mod files;
    mod listener;
    pub mod mdns;
    pub mod sip;
    pub mod tcp;
    pub mod tls;
    pub mod udp;
    pub mod wav;
}

// Row 7
#[cfg(feature = "io")]
pub mod client;

// Row 8
#[cfg(feature = "cli")]
pub mod cli;

/// The README's programs run as doctests.
#[cfg(all(doctest, feature = "io"))]
#[doc = include_str!("../README.md")]
pub struct Readme;
