//! The arguments: a contract. Additions are free, a change of meaning is not.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Calls and files over XMPP: signalling by Jingle, voice over ICE and DTLS-SRTP, files by the fastest way there is.
#[derive(Debug, Parser)]
#[command(name = "offhook", version, about, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// One JSON object per line on stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// More log (twice: even more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// No progress, only errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Colours on stderr
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: When,
    /// Form of the log on stderr
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// JIDs and addresses in the log
    #[arg(long, global = true)]
    pub(crate) log_addresses: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Two endpoints call each other on this machine and send a file: no account, no server, no sound card
    Demo(Demo),
    /// Call somebody
    Call(Call),
    /// Wait for calls and answer them
    Answer(Answer),
    /// Send files
    Send(Send),
    /// Wait for files and take them
    Receive(Receive),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Demo {
    /// Folder for caller.wav, callee.wav and the file
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub(crate) out: PathBuf,
    /// Length of the call
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Call {
    /// Whom: a JID (bare or full), an xmpp: URI, or sip:, sips:, tel:
    pub(crate) address: String,
    #[command(flatten)]
    pub(crate) media: Media,
    #[command(flatten)]
    pub(crate) account: Account,
    /// Give up when nobody answered after S seconds
    #[arg(long, value_name = "S", default_value_t = 60)]
    pub(crate) timeout: u64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Answer {
    #[command(flatten)]
    pub(crate) media: Media,
    #[command(flatten)]
    pub(crate) account: Account,
    /// Whose calls are taken without asking: contacts, all, or a list of JIDs
    #[arg(long, value_name = "WHO")]
    pub(crate) auto_answer: Option<String>,
    /// End after the first call
    #[arg(long)]
    pub(crate) once: bool,
}

/// How files travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// What is fastest of those that work
    Auto,
    /// SOCKS5 bytestream (XEP-0260): TCP, direct or over a proxy
    S5b,
    /// Data channel over ICE and DTLS (XEP-0343)
    #[value(name = "datachannel")]
    DataChannel,
    /// Inside of the XMPP stream (XEP-0261): slow, works everywhere
    Ibb,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Send {
    /// To whom: a JID (bare or full) or an xmpp: URI
    pub(crate) address: String,
    /// What: files, and directories with all files in them
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// How the bytes may travel
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub(crate) transport: Transport,
    #[command(flatten)]
    pub(crate) network: Network,
    #[command(flatten)]
    pub(crate) account: Account,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Receive {
    /// Directory that the files go to
    #[arg(long, value_name = "D", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Whose files are taken without asking: contacts, all, or a list of JIDs
    #[arg(long, value_name = "WHO")]
    pub(crate) accept: Option<String>,
    /// Larger files are declined: bytes, or a number with K, M, G or T (powers of 1024)
    #[arg(long, value_name = "BYTES", default_value = "10G")]
    pub(crate) max_size: String,
    /// End after the first transfer
    #[arg(long)]
    pub(crate) once: bool,
    #[command(flatten)]
    pub(crate) network: Network,
    #[command(flatten)]
    pub(crate) account: Account,
}

/// How sound of SIP calls is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SipMedia {
    /// SRTP with keys from the signalling where that is encrypted, else plain; the best that the other side offers
    Auto,
    /// RTP as it is
    Plain,
    /// SRTP with keys from the signalling (RFC 4568), even if that is not encrypted
    Sdes,
    /// SRTP with keys of a DTLS handshake (RFC 5763), with ICE
    Dtls,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Media")]
pub(crate) struct Media {
    /// Send this WAV file instead of the microphone
    #[arg(long, value_name = "FILE.wav", conflicts_with_all = ["tone", "null_audio"])]
    pub(crate) play: Option<PathBuf>,
    /// Write what is heard to this WAV file
    #[arg(long, value_name = "FILE.wav")]
    pub(crate) record: Option<PathBuf>,
    /// Send a tone
    #[arg(long, value_name = "HZ", conflicts_with = "null_audio", value_parser = clap::value_parser!(u32).range(20..=20_000))]
    pub(crate) tone: Option<u32>,
    /// Send silence, play nothing
    #[arg(long)]
    pub(crate) null_audio: bool,
    /// Digits to send once connected: 0-9 * # A-D
    #[arg(long, value_name = "DIGITS")]
    pub(crate) dtmf: Option<String>,
    /// Codecs in order of preference: opus, g722, pcmu, pcma
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) codec: Vec<String>,
    /// How sound of SIP calls is protected; one that is named is demanded both ways
    #[arg(long = "media", value_name = "HOW")]
    pub(crate) security: Option<SipMedia>,
    /// Send the other side there, a second after connecting (SIP)
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) transfer: Option<String>,
    /// Hang up after S seconds of conversation
    #[arg(long, value_name = "S")]
    pub(crate) duration: Option<u64>,
    #[command(flatten)]
    pub(crate) network: Network,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct Network {
    /// Only relayed addresses
    #[arg(long)]
    pub(crate) relay_only: bool,
    /// Allow loopback and private addresses as candidates (tests on one machine)
    #[arg(long)]
    pub(crate) lab: bool,
    /// STUN server
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) stun: Vec<String>,
    /// TURN server; credentials come from the config file
    #[arg(long, value_name = "turn:HOST:PORT?transport=udp")]
    pub(crate) turn: Vec<String>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Account")]
pub(crate) struct Account {
    /// Account to sign in with: a JID, or sip:user@host
    #[arg(long, value_name = "JID|SIP")]
    pub(crate) account: Option<String>,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Connect there instead of looking the domain up; with SIP udp:, tcp:, tls:, ws: or wss: may stand before it
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) server: Option<String>,
    /// Name that belongs to the password, where it is not the account's user (SIP)
    #[arg(long, value_name = "NAME")]
    pub(crate) auth_user: Option<String>,
    /// Our certificate for TLS, with its chain (SIP)
    #[arg(long, value_name = "PEM", requires = "key")]
    pub(crate) certificate: Option<PathBuf>,
    /// Its private key (SIP)
    #[arg(long, value_name = "PEM", requires = "certificate")]
    pub(crate) key: Option<PathBuf>,
    /// Take calls that come without a registration: udp:, tcp: or tls: and IP:PORT (SIP)
    #[arg(long, value_name = "ADDR")]
    pub(crate) sip_listen: Vec<String>,
    /// TLS from the first byte (with --server)
    #[arg(long)]
    pub(crate) direct_tls: bool,
    /// Trust the certificates of this PEM file too
    #[arg(long, value_name = "PEM")]
    pub(crate) ca_file: Option<PathBuf>,
    /// No TLS; only to a loopback address
    #[arg(long)]
    pub(crate) insecure_plaintext: bool,
    /// The only DTLS certificate of the peer that is accepted (SHA-256)
    #[arg(long, value_name = "HEX")]
    pub(crate) require_fingerprint: Option<String>,
    /// No server: listen for a peer on this address
    #[arg(long, value_name = "LISTEN-ADDR", conflicts_with = "connect")]
    pub(crate) serverless: Option<SocketAddr>,
    /// No server: connect to a peer on this address
    #[arg(long, value_name = "ADDR", requires = "pin")]
    pub(crate) connect: Option<SocketAddr>,
    /// SHA-256 of the TLS certificate of the serverless peer
    #[arg(long, value_name = "HEX")]
    pub(crate) pin: Option<String>,
    /// File that holds the password; - is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_contradict_nowhere() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_flag_holds_a_password() {
        for command in Arguments::command().get_subcommands() {
            for argument in command.get_arguments() {
                assert_ne!(argument.get_long(), Some("password"), "{}", command.get_name());
            }
        }
    }
}
