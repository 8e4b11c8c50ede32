//! Account flags, the configuration file and the password, put together into a client.

use super::args::{Account, Network, SipMedia};
use super::output::Output;
use super::{Exit, Failure};
use crate::client::{
    AddressPolicy, Callers, Client, ClientBuilder, CodecName, MediaPolicy, MediaSecurity, NamedServer, SipServer,
    SipTransport,
};
use crate::config::Secret;
use crate::endpoint::MediaConfig;
use crate::transport::gather::{IceServer, IceServerKind};
use crate::wire::address::Address;
use crate::wire::jid::{BareJid, Jid};
use serde::Deserialize;
use std::io::{IsTerminal, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// The configuration file; every key is optional and has a flag that replaces it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    account: Option<String>,
    password: Option<String>,
    server: Option<String>,
    #[serde(default)]
    direct_tls: bool,
    ca_file: Option<PathBuf>,
    address_policy: Option<Policy>,
    auth_user: Option<String>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    #[serde(default)]
    sip_listen: Vec<String>,
    media: Option<SipMedia>,
    #[serde(default)]
    follow_transfers_to: Vec<String>,
    #[serde(default)]
    stun: Vec<String>,
    #[serde(default)]
    turn: Vec<Turn>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Policy {
    Contacts,
    Accept,
    RelayOnly,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    url: String,
    username: Option<String>,
    password: Option<String>,
}

fn config(text: impl Into<String>) -> Failure {
    Failure::new(Exit::Config, text)
}

fn usage(text: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, text)
}

/// Reads the configuration file: the given one, or the user's if it exists.
fn load(given: Option<&Path>) -> Result<(File, Option<PathBuf>), Failure> {
    let path = match given {
        Some(path) => Some(path.to_path_buf()),
        None => default_path().filter(|p| p.exists()),
    };
    let Some(path) = path else { return Ok((File::default(), None)) };
    let text = std::fs::read_to_string(&path)
        .map_err(|why| config(format!("the configuration file {} cannot be read: {why}", path.display())))?;
    let file: File = toml::from_str(&text).map_err(|why| {
        config(format!("the configuration file {} is wrong: {}", path.display(), why.to_string().trim()))
    })?;
    let secret = file.password.is_some() || file.turn.iter().any(|t| t.password.is_some());
    if secret && !private(&path) {
        return Err(config(format!(
            "the configuration file {} holds a password but others may read it. Run: chmod 600 {}",
            path.display(),
            path.display()
        )));
    }
    Ok((file, Some(path)))
}

fn default_path() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")))?;
    Some(base.join("offhook").join("config.toml"))
}

#[cfg(unix)]
fn private(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o077 == 0)
}

#[cfg(not(unix))]
fn private(_path: &Path) -> bool {
    true
}

/// In this order: `--password-file`, `OFFHOOK_PASSWORD`, the configuration file, a prompt on a terminal.
fn password(options: &Account, file: &File, account: &Address) -> Result<String, Failure> {
    if let Some(path) = &options.password_file {
        let mut text = String::new();
        if path.as_os_str() == "-" {
            std::io::stdin().read_to_string(&mut text).map_err(|why| config(format!("no password on stdin: {why}")))?;
        } else {
            text = std::fs::read_to_string(path)
                .map_err(|why| config(format!("the password file {} cannot be read: {why}", path.display())))?;
        }
        return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
    }
    if let Ok(password) = std::env::var("OFFHOOK_PASSWORD") {
        return Ok(password);
    }
    if let Some(password) = &file.password {
        return Ok(password.clone());
    }
    if std::io::stdin().is_terminal() {
        return rpassword::prompt_password(format!("Password of {account}: "))
            .map_err(|why| config(format!("no password could be read: {why}")));
    }
    Err(config("no password. Give --password-file FILE (- for stdin), or set OFFHOOK_PASSWORD"))
}

/// `AB:CD…` or `abcd…`, 64 digits.
pub(crate) fn sha256(text: &str) -> Result<[u8; 32], Failure> {
    let digits: Vec<u8> = text.trim().trim_start_matches("sha-256").bytes().filter(u8::is_ascii_hexdigit).collect();
    let mut out = [0; 32];
    if digits.len() != 64 {
        return Err(usage(format!("a SHA-256 has 64 hexadecimal digits, not {}", digits.len())));
    }
    for (byte, pair) in out.iter_mut().zip(digits.chunks(2)) {
        let pair = std::str::from_utf8(pair).unwrap_or_default();
        *byte = u8::from_str_radix(pair, 16).map_err(|_| usage("a SHA-256 has hexadecimal digits only"))?;
    }
    Ok(out)
}

/// `HOST:PORT` or `HOST`; an IPv6 address stands in brackets.
fn host_port(text: &str, default: u16) -> Result<(String, u16), Failure> {
    let bad = || usage(format!("{text:?} is not HOST:PORT"));
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.starts_with('[') => (host, port.parse().map_err(|_| bad())?),
        Some(_) | None => (text, default),
    };
    let host = host.trim_matches(['[', ']']);
    if host.is_empty() { Err(bad()) } else { Ok((host.to_owned(), port)) }
}

fn ice_server(kind: IceServerKind, text: &str, credentials: Option<&Turn>) -> Result<NamedServer, Failure> {
    let rest = text.strip_prefix("stun:").or_else(|| text.strip_prefix("turn:")).unwrap_or(text);
    if rest.starts_with("turns:") || rest.starts_with("stuns:") || text.ends_with("transport=tcp") {
        return Err(usage(format!("{text}: TURN over TCP and TLS is not there yet; UDP is")));
    }
    let (host, port) = host_port(rest.split('?').next().unwrap_or(rest), 3478)?;
    let addr = SocketAddr::new(host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port);
    let server = IceServer {
        kind,
        addr,
        username: credentials.and_then(|c| c.username.clone()),
        password: credentials.and_then(|c| c.password.clone()).map(Secret::new),
    };
    Ok(NamedServer { host, port, server })
}

fn codecs(names: &[String]) -> Result<Vec<CodecName>, Failure> {
    if names.is_empty() {
        return Ok(MediaConfig::default().codecs);
    }
    names
        .iter()
        .map(|name| {
            CodecName::ALL
                .iter()
                .find(|c| c.as_str().eq_ignore_ascii_case(name.trim()))
                .copied()
                .ok_or_else(|| usage(format!("{name:?} is no codec. Known: opus, g722, pcmu, pcma")))
        })
        .collect()
}

/// `contacts`, `all`, or a list of JIDs or SIP addresses.
pub(crate) fn callers(text: &str) -> Result<Callers, Failure> {
    match text {
        "contacts" => Ok(Callers::Contacts),
        "all" => Ok(Callers::Everyone),
        list => list
            .split(',')
            .map(|jid| jid.trim())
            .map(|jid| jid.strip_prefix("sip:").or_else(|| jid.strip_prefix("sips:")).unwrap_or(jid))
            .map(|jid| BareJid::new(jid).map_err(|why| usage(format!("{jid:?} is no JID: {why}"))))
            .collect::<Result<_, _>>()
            .map(Callers::Listed),
    }
}

/// `user@host`, `user@host/device`, `xmpp:user@host`, `sip:user@host`, `sips:user@host`, `tel:+49…`.
pub(crate) fn address(text: &str) -> Result<Address, Failure> {
    text.parse().map_err(|why| usage(format!("{text:?} is no address: {why}")))
}

/// An address of XMPP.
pub(crate) fn jid(text: &str) -> Result<Jid, Failure> {
    match address(text)? {
        Address::Xmpp(jid) => Ok(jid),
        Address::Sip(_) => Err(usage(format!("{text:?} is an address of SIP, which carries no files"))),
    }
}

fn sip_transport(name: &str) -> Option<SipTransport> {
    [
        ("udp", SipTransport::Udp),
        ("tcp", SipTransport::Tcp),
        ("tls", SipTransport::Tls),
        ("ws", SipTransport::Ws),
        ("wss", SipTransport::Wss),
    ]
    .into_iter()
    .find_map(|(known, transport)| known.eq_ignore_ascii_case(name).then_some(transport))
}

/// `[udp:|tcp:|tls:|ws:|wss:]HOST[:PORT]`
fn sip_server(text: &str) -> Result<SipServer, Failure> {
    let prefixed = text.split_once(':').and_then(|(name, rest)| Some((sip_transport(name)?, rest)));
    let (transport, rest) = prefixed.map_or((None, text), |(transport, rest)| (Some(transport), rest));
    let (host, port) = host_port(rest, 0)?;
    Ok(SipServer { transport, host, port: (port != 0).then_some(port) })
}

/// `udp:192.0.2.1:5060`
fn sip_listen(text: &str) -> Result<(SipTransport, SocketAddr), Failure> {
    let bad = || usage(format!("{text:?} is not udp:IP:PORT, tcp:IP:PORT or tls:IP:PORT"));
    let (name, addr) = text.split_once(':').ok_or_else(bad)?;
    Ok((sip_transport(name).ok_or_else(bad)?, addr.parse().map_err(|_| bad())?))
}

fn sip_media(wanted: Option<SipMedia>) -> MediaPolicy {
    let only = match wanted {
        None | Some(SipMedia::Auto) => None,
        Some(SipMedia::Plain) => Some(MediaSecurity::Plain),
        Some(SipMedia::Sdes) => Some(MediaSecurity::Sdes),
        Some(SipMedia::Dtls) => Some(MediaSecurity::Dtls),
    };
    MediaPolicy { only, keys_in_clear: only == Some(MediaSecurity::Sdes), ..MediaPolicy::default() }
}

/// What a command says of SIP.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sip {
    /// `--media`
    pub(crate) media: Option<SipMedia>,
    /// The address to be called is one of SIP: no account is needed.
    pub(crate) direct: bool,
}

fn local_name() -> String {
    let user = std::env::var("USER").ok().filter(|u| u.chars().all(|c| c.is_ascii_alphanumeric())).unwrap_or_default();
    if user.is_empty() { "me@offhook.invalid".to_owned() } else { format!("{user}@offhook.invalid") }
}

/// For laboratories, where no public DNS knows the domain.
fn name_servers(builder: ClientBuilder) -> Result<ClientBuilder, Failure> {
    let Ok(server) = std::env::var("OFFHOOK_DNS") else { return Ok(builder) };
    let addr = server.parse::<SocketAddr>().map_err(|_| config(format!("OFFHOOK_DNS={server:?} is not IP:PORT")))?;
    Ok(builder.dns_servers([addr]))
}

/// A telephone, if the account is one of SIP, or if none is needed.
fn telephone(options: &Account, file: &File, name: Option<&str>, sip: Sip) -> Result<Option<ClientBuilder>, Failure> {
    let account = name.map(address).transpose()?;
    let listen: Vec<&String> = options.sip_listen.iter().chain(&file.sip_listen).collect();
    let mut builder = match account {
        Some(Address::Xmpp(_)) => return Ok(None),
        Some(account @ Address::Sip(_)) => {
            Client::builder().password(password(options, file, &account)?).account(account)
        }
        None if sip.direct || !listen.is_empty() => Client::builder().sip_direct(),
        None => return Ok(None),
    };
    if let Some(server) = options.server.as_ref().or(file.server.as_ref()) {
        builder = builder.sip_server(sip_server(server)?);
    }
    if let Some(path) = options.ca_file.as_ref().or(file.ca_file.as_ref()) {
        builder = builder.ca_file(path);
    }
    if let Some(user) = options.auth_user.as_ref().or(file.auth_user.as_ref()) {
        builder = builder.sip_username(user);
    }
    let certificate = options.certificate.as_ref().zip(options.key.as_ref());
    if let Some((certificate, key)) = certificate.or(file.certificate.as_ref().zip(file.key.as_ref())) {
        builder = builder.sip_certificate(certificate, key);
    }
    for listen in listen {
        let (transport, addr) = sip_listen(listen)?;
        builder = builder.sip_listen(transport, addr);
    }
    for host in &file.follow_transfers_to {
        builder = builder.sip_follow_to(host);
    }
    name_servers(builder.sip_media(sip_media(sip.media.or(file.media)))).map(Some)
}

/// A builder with everything that flags and the configuration file say.
pub(crate) fn builder(
    options: &Account,
    network: &Network,
    codec: &[String],
    sip: Sip,
    output: &Output,
) -> Result<ClientBuilder, Failure> {
    let (file, _) = load(options.config.as_deref())?;
    let mut builder = Client::builder();
    if network.lab {
        output.warning("--lab: loopback and private addresses are used as candidates; only for tests on one machine");
    }
    let name = options.account.clone().or_else(|| file.account.clone());
    let pin = options.pin.as_deref().map(sha256).transpose()?;
    if let Some(listen) = options.serverless {
        builder = builder.serverless(listen, pin).account(jid(&name.unwrap_or_else(local_name))?);
    } else if let Some(connect) = options.connect {
        let pin = pin.ok_or_else(|| usage("--connect needs --pin"))?;
        builder = builder.connect(connect, pin).account(jid(&name.unwrap_or_else(local_name))?);
    } else if let Some(phone) = telephone(options, &file, name.as_deref(), sip)? {
        builder = phone;
    } else {
        let name = name.ok_or_else(|| {
            config("no account. Give --account JID (or the key 'account' in the configuration file), or --serverless")
        })?;
        let account = Address::Xmpp(jid(&name)?);
        builder = builder.password(password(options, &file, &account)?).account(account);
        if let Some(server) = options.server.as_ref().or(file.server.as_ref()) {
            let direct = options.direct_tls || file.direct_tls;
            let (host, port) = host_port(server, if direct { 5223 } else { 5222 })?;
            builder = builder.server(host, port, direct);
        }
        if let Some(path) = options.ca_file.as_ref().or(file.ca_file.as_ref()) {
            builder = builder.ca_file(path);
        }
        builder = name_servers(builder)?;
        if options.insecure_plaintext {
            builder = builder.insecure_plaintext();
        }
    }
    let policy = match file.address_policy {
        _ if network.relay_only => AddressPolicy::RelayOnly,
        Some(Policy::Contacts) => AddressPolicy::Contacts,
        Some(Policy::RelayOnly) => AddressPolicy::RelayOnly,
        Some(Policy::Accept) | None => AddressPolicy::Accept,
    };
    let mut servers = Vec::new();
    for text in network.stun.iter().chain(&file.stun) {
        servers.push(ice_server(IceServerKind::Stun, text, None)?);
    }
    for text in &network.turn {
        let known = file.turn.iter().find(|t| t.url.split('?').next() == text.split('?').next());
        servers.push(ice_server(IceServerKind::Turn, text, known)?);
    }
    if network.turn.is_empty() {
        for turn in &file.turn {
            servers.push(ice_server(IceServerKind::Turn, &turn.url, Some(turn))?);
        }
    }
    let require_fingerprint = options.require_fingerprint.as_deref().map(sha256).transpose()?.map(|f| f.to_vec());
    Ok(builder.address_policy(policy).media(MediaConfig {
        codecs: codecs(codec)?,
        relay_only: network.relay_only,
        lab: network.lab,
        require_fingerprint,
        servers,
        ..MediaConfig::default()
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hosts_and_ports_are_split_with_and_without_brackets() {
        assert_eq!(host_port("a.test:1", 9).unwrap(), ("a.test".into(), 1));
        assert_eq!(host_port("a.test", 9).unwrap(), ("a.test".into(), 9));
        assert_eq!(host_port("[::1]:7", 9).unwrap(), ("::1".into(), 7));
        assert_eq!(host_port("::1", 9).unwrap(), ("::1".into(), 9));
        assert!(host_port(":5", 9).is_err());
    }

    #[test]
    fn an_xmpp_uri_is_an_address() {
        assert_eq!(address("xmpp:juliet@capulet.lit?call").unwrap().as_str(), "juliet@capulet.lit");
        assert!(address("@").is_err());
        assert!(jid("sip:600@pbx.example").is_err());
    }

    #[test]
    fn a_server_of_sip_may_name_its_transport() {
        let server = |text: &str| sip_server(text).unwrap();
        let expected = |transport, host: &str, port| SipServer { transport, host: host.to_owned(), port };
        assert_eq!(server("pbx.example"), expected(None, "pbx.example", None));
        assert_eq!(server("pbx.example:5070"), expected(None, "pbx.example", Some(5070)));
        assert_eq!(server("tls:pbx.example:5061"), expected(Some(SipTransport::Tls), "pbx.example", Some(5061)));
        assert_eq!(server("wss:[2001:db8::1]:8089"), expected(Some(SipTransport::Wss), "2001:db8::1", Some(8089)));
        assert_eq!(server("udp:192.0.2.1"), expected(Some(SipTransport::Udp), "192.0.2.1", None));
        assert!(sip_server("tcp:").is_err());
        assert_eq!(sip_listen("udp:127.0.0.1:5070").unwrap().1.port(), 5070);
        assert!(sip_listen("127.0.0.1:5070").is_err());
    }

    #[test]
    fn a_fingerprint_is_read_with_and_without_colons() {
        let plain = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        assert_eq!(sha256(&plain).unwrap(), sha256(&colons).unwrap());
        assert!(sha256("ab").is_err());
    }

    #[test]
    fn callers_are_contacts_all_or_a_list() {
        assert_eq!(callers("contacts").unwrap(), Callers::Contacts);
        assert!(matches!(callers("a@b.c, d@e.f").unwrap(), Callers::Listed(list) if list.len() == 2));
        assert!(
            matches!(callers("sip:a@b.c").unwrap(), Callers::Listed(list) if list.iter().all(|j| j.as_str() == "a@b.c"))
        );
        assert!(callers("a@b@c").is_err());
    }
}
