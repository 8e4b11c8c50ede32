//! Data channels: one SCTP association on a leg's DTLS, channels opened by DCEP.
//! Read RFC 8831 §6, RFC 8832 §5, RFC 6525 §5 and XEP-0343 before touching this file.

/// A data channel of one leg. Counts up from 0; says nothing about the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u32);

/// What the data channels of a leg may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataConfig {
    /// Our `sctp-port`, to be signalled (RFC 8841 §5); 5000 is usual.
    pub local_port: u16,
    /// Bytes that `write_channel` takes before the peer has acknowledged them, over all channels.
    pub send_buffer_bytes: u32,
    /// Bytes that the peer may have sent before they are read, over all channels.
    pub receive_window_bytes: u32,
}

impl Default for DataConfig {
    fn default() -> Self {
        // 4 MiB each way is 80 MB/s at 50 ms, and 8 MiB of memory a transfer in all.
        Self { local_port: 5000, send_buffer_bytes: 4 << 20, receive_window_bytes: 4 << 20 }
    }
}

/// Why a verb on a channel was refused. None of these ends anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelFault {
    /// The leg was made without data channels.
    #[error("the leg carries no data channels")]
    NoData,
    /// No such channel, or it is closed.
    #[error("the data channel is closed")]
    Closed,
    /// The leg has as many channels as it takes.
    #[error("more than {0} data channels")]
    TooMany(usize),
    /// A label longer than 65 535 bytes (RFC 8832 §5.1).
    #[error("the label is too long")]
    Label,
}
