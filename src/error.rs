//! The public error: what an application or a person at a terminal is told. One variant per class of cause.

use crate::endpoint::Misuse;
use crate::endpoint::event::Refusal;
use crate::file::FileFault;
use std::path::PathBuf;

/// Why a client could not be made or did not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is incomplete or contradicts itself.
    #[error("{0}")]
    Config(String),
    /// Wrong password or account.
    #[error("the server refuses the account: {0}")]
    Authentication(String),
    /// The server or network cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// A certificate, a fingerprint, or a connection that is not as safe as it must be.
    #[error("{0}")]
    Security(String),
    /// A file cannot be sent, or a directory cannot receive.
    #[error("{}: {fault}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        fault: FileFault,
    },
    /// A limit that the application has set.
    #[error("{0}")]
    Limit(String),
    /// A verb that does not fit.
    #[error(transparent)]
    Misuse(#[from] Misuse),
    /// The client was shut down.
    #[error("the client is closed")]
    Closed,
    /// A file, device or socket.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Authentication(text) => Error::Authentication(text),
            Refusal::Security(text) => Error::Security(text),
            Refusal::Server(text) => Error::Unreachable(text),
        }
    }
}
