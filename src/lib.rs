//! offhook: Jingle signalling and media sessions over XMPP.
//!
//! The map. Imports go one way: a module uses only its own folder and rows with a smaller number.
//!
//! | row | modules | what lives there |
//! |---|---|---|
//! | 0 | [`fault`], [`config`] | fault kinds and the one answer table; every knob and cap |
//! | 1 | [`wire`] | bytes and text to values and back |
//! | 2 | [`xmpp`], [`transport`], [`media`] | the signalling connection; how payload travels; RTP frames to sound and back |
//! | 3 | [`jingle`] | sessions, contents, invitations: signalling only |
//! | 5 | [`endpoint`] | the sans-IO engine, which joins a session and its legs |
//! | 6 | `io`, [`error`] | the only place with a clock, sockets, tasks, DNS, sound, files; the public error |
//! | 7 | `client` | the async API applications use |
//! | 8 | `cli` | commands, output, exit codes |

// Row 0
pub mod config;
pub mod fault;

/// Row 1: bytes and text to values and back.
#[deny(clippy::indexing_slicing)]
pub mod wire {
    pub mod bytestream;
    pub mod candidate;
    pub mod description;
    pub mod disco;
    pub mod file;
    pub mod framer;
    pub mod jid;
    pub mod jingle;
    pub mod ns;
    pub mod roster;
    pub mod rtcp;
    pub mod rtp;
    pub mod services;
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
    pub mod requests;
    pub mod resume;
    pub mod sasl;
    pub mod services;
    pub mod stream;
    pub mod stream_io;
}

/// Row 2: how payload travels.
pub mod transport {
    pub mod dtls;
    pub mod gather;
    pub mod ice;
    pub mod leg;
    pub mod leg_config;
    pub mod path;
    mod protection;
    pub mod rtcp;
    pub mod srtp;
    pub mod stun;
    pub mod turn;
    pub(crate) mod turn_data;
}

/// Row 2: RTP frames to sound and back.
pub mod media {
    pub mod audio;
    pub mod codec;
    pub mod comfort_noise;
    pub mod conceal;
    pub mod dtmf;
    pub mod g711;
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

// Row 5
pub mod endpoint;

// Row 6
pub mod error;

/// Row 6: the only place with a clock, sockets, tasks, DNS, sound, files.
#[cfg(feature = "io")]
#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod io {
    pub mod audio;
    pub mod carrier;
    pub mod dns;
    pub mod driver;
    mod listener;
    pub mod mdns;
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
