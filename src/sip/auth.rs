//! Digest: proving who we are, and asking others to. Read RFC 7616 §3, RFC 8760 §2 and RFC 3261 §22 before touching this
//! file.
//!
//! ```text
//!  request ─▶ Vault::prepare ─▶ sent ─▶ 401, 407 ─▶ Vault::challenged ─▶ Vault::prepare ─▶ sent again, CSeq + 1
//!                                   └─▶ other answer ─▶ Vault::answered          └─▶ Refusal: nothing leaves
//! ```
//! No digest is computed for a realm or a host that is not configured: what a stranger is sent is a ticket to guess the
//! password at leisure (CVE-2021-41158).

mod proof;
mod server;

use crate::config::Secret;
use crate::wire::sip::{Challenge, Credentials, Header, Host, Params, Request, Response, Token};
pub use proof::{Algorithm, Hash};
use proof::{Proof, Qop};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
pub use server::{Authenticator, AuthenticatorConfig, Verdict};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

/// Challenges of one response that are looked at: one for each algorithm of a few realms.
const CHALLENGES: usize = 16;
/// Realms that one request proves itself to: proxies on the way and the server at its end.
const REALMS: usize = 4;
/// A server that calls every nonce stale would be answered for ever.
const STALE_TIMES: u8 = 3;
/// Nonces kept for later requests.
const KNOWN: usize = 64;
/// Addresses of configured hosts that are remembered; a name resolves to a few.
const MET: usize = 16;
/// A longer realm or nonce is no honest one: every request would carry it.
const VALUE_BYTES: usize = 1024;

/// A name and password, and who may ask for them.
#[derive(Debug, Clone)]
pub struct Login {
    /// Of the account, which need not be the user part of the address.
    pub username: String,
    /// Of the account.
    pub password: Secret,
    /// The one realm that is answered. `None`: the one that a configured host asks with first, and no other after it.
    pub realm: Option<String>,
    /// Names of the registrar, of the domain and of the outbound proxy, as configured, before any look-up. Empty: every
    /// host that names the realm, yet MD5 then only inside TLS.
    pub hosts: BTreeSet<Host>,
}

/// Where a request goes next.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// Name or address of the topmost Route, of the outbound proxy or of the Request-URI, before any look-up.
    pub host: &'a Host,
    /// TLS all the way to it.
    pub secure: bool,
}

/// Why a challenge is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There are no credentials for this realm, or its host may not have them.
    #[error("no credentials for {0:?}")]
    Stranger(String),
    /// They were sent and are wrong.
    #[error("{0:?} does not accept the password")]
    Wrong(String),
    /// No challenge in it that is understood: another scheme, algorithm or qop.
    #[error("no challenge that is understood")]
    NoChallenge,
}

impl Refusal {
    /// The realm, for [`Failure::Unauthorized`](super::exchange::Failure::Unauthorized).
    #[must_use]
    pub fn realm(&self) -> &str {
        match self {
            Refusal::Stranger(realm) | Refusal::Wrong(realm) => realm,
            Refusal::NoChallenge => "",
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Asker {
    /// 407: a proxy on the way (RFC 3261 §22.3).
    Proxy,
    /// 401: whom the request is for (RFC 3261 §22.2).
    Server,
}

/// A realm at the place where it was asked for: what belongs to one never goes to another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    asker: Asker,
    /// The next hop for a proxy, the host of the Request-URI for a server.
    host: Host,
    realm: String,
}

/// What one request has proved so far, through all its retries.
#[derive(Debug, Clone, Default)]
pub struct Attempt {
    tried: Vec<Tried>,
}

#[derive(Debug, Clone)]
struct Tried {
    key: Key,
    /// The nonce came in answer to this very request: refused again, the password is wrong.
    fresh: bool,
    stale: u8,
}

/// A challenge that is being answered.
#[derive(Debug)]
struct Known {
    login: usize,
    algorithm: Option<Algorithm>,
    nonce: String,
    opaque: Option<String>,
    qop: Option<Qop>,
    /// One for each nonce: the session key of `-sess` stays the same (RFC 7616 §3.4.2).
    cnonce: String,
    /// Requests proved with this nonce.
    count: u32,
    /// Oldest first to be forgotten.
    age: u64,
}

/// Our credentials, and the challenges that are known.
#[derive(Debug)]
pub struct Vault {
    logins: Vec<Pinned>,
    known: BTreeMap<Key, Known>,
    /// Where configured hosts took a proof of ours, and whether inside TLS; the latest last.
    met: VecDeque<(IpAddr, bool)>,
    rng: ChaCha20Rng,
    next_age: u64,
}

#[derive(Debug)]
struct Pinned {
    login: Login,
    /// Realms learned where none is configured.
    proxy: Option<String>,
    server: Option<String>,
}

impl Vault {
    /// Nothing asked yet.
    #[must_use]
    pub fn new(seed: [u8; 32], logins: Vec<Login>) -> Self {
        let logins = logins.into_iter().map(|login| Pinned { login, proxy: None, server: None }).collect();
        Self { logins, known: BTreeMap::new(), met: VecDeque::new(), rng: ChaCha20Rng::from_seed(seed), next_age: 0 }
    }

    /// Puts credentials into a request: those it was challenged for, and those that the same place asked for before. Called
    /// before each new transaction, not before a retransmission.
    pub fn prepare(&mut self, hop: &Hop<'_>, request: &mut Request, attempt: &mut Attempt) {
        request
            .headers
            .rest
            .retain(|header| !matches!(header, Header::Authorization(_) | Header::ProxyAuthorization(_)));
        let target = target_of(request, hop).clone();
        for (key, known) in &mut self.known {
            let host = match key.asker {
                Asker::Proxy => hop.host,
                Asker::Server => &target,
            };
            if key.host != *host {
                continue;
            }
            if !attempt.tried.iter().any(|tried| tried.key == *key) {
                if attempt.tried.len() >= REALMS {
                    continue;
                }
                attempt.tried.push(Tried { key: key.clone(), fresh: false, stale: 0 });
            }
            let Some(login) = self.logins.get(known.login) else { continue };
            known.count = known.count.saturating_add(1);
            let credentials = known.credentials(&login.login, &key.realm, request);
            request.headers.rest.push(match key.asker {
                Asker::Proxy => Header::ProxyAuthorization(credentials),
                Asker::Server => Header::Authorization(credentials),
            });
        }
    }

    /// Takes a 401 or 407. After `Ok` the request is to be prepared and sent again.
    ///
    /// # Errors
    /// [`Refusal`]: the response is final.
    pub fn challenged(
        &mut self,
        hop: &Hop<'_>,
        request: &Request,
        response: &Response,
        attempt: &mut Attempt,
    ) -> Result<(), Refusal> {
        let mut refusal = Refusal::NoChallenge;
        let mut answered = false;
        for (asker, realm, offers) in by_realm(response) {
            let host = match asker {
                Asker::Proxy => hop.host,
                Asker::Server => target_of(request, hop),
            };
            let key = Key { asker, host: host.clone(), realm };
            // RFC 3261 §22.2: "MUST NOT re-attempt … with the credentials that have just been rejected", but for `stale`.
            let stale = offers.iter().any(|offer| offer.stale);
            let tried = attempt.tried.iter().find(|tried| tried.key == key);
            if tried.is_some_and(|tried| tried.fresh && !(stale && tried.stale < STALE_TIMES)) {
                self.known.remove(&key);
                refusal = Refusal::Wrong(key.realm);
                continue;
            }
            let picked = offers
                .into_iter()
                .find_map(|offer| self.login_for(&key, hop, request, offer.algorithm).map(|login| (login, offer)));
            let Some((login, offer)) = picked else {
                refusal = Refusal::Stranger(key.realm);
                continue;
            };
            if tried.is_none() && attempt.tried.len() >= REALMS {
                continue;
            }
            match attempt.tried.iter_mut().find(|tried| tried.key == key) {
                Some(tried) => (tried.fresh, tried.stale) = (true, tried.stale.saturating_add(u8::from(stale))),
                None => attempt.tried.push(Tried { key: key.clone(), fresh: true, stale: 0 }),
            }
            self.learn(key, login, offer);
            answered = true;
        }
        if answered { Ok(()) } else { Err(refusal) }
    }

    /// Takes any other answer: the server may name the nonce it wants next (RFC 7616 §3.5).
    pub fn answered(&mut self, request: &Request, response: &Response) {
        for header in &response.headers.rest {
            let Header::AuthenticationInfo(info) = header else { continue };
            let Some(next) = info.find("nextnonce").filter(|nonce| !nonce.is_empty() && nonce.len() <= VALUE_BYTES)
            else {
                continue;
            };
            let sent = request.headers.rest.iter().find_map(|header| {
                if let Header::Authorization(credentials) = header { Some(credentials) } else { None }
            });
            let Some((nonce, realm)) = sent.and_then(|c| Some((c.params.find("nonce")?, c.params.find("realm")?)))
            else {
                continue;
            };
            let cnonce = fresh_cnonce(&mut self.rng);
            let known = self
                .known
                .iter_mut()
                .find(|(key, known)| key.asker == Asker::Server && key.realm == realm && known.nonce == nonce);
            let Some((key, known)) = known else { continue };
            // A server that proves to know the password has to do it right (RFC 7616 §3.5).
            if let (Some(theirs), Some(login)) = (info.find("rspauth"), self.logins.get(known.login))
                && known.qop == Some(Qop::Auth)
                && !known.proved_by(&login.login, &key.realm, request, info, theirs)
            {
                continue;
            }
            (known.nonce, known.cnonce, known.count) = (next.to_owned(), cnonce, 0);
        }
    }

    /// A request that was prepared for this hop was taken with success by this address: in dialogs a server names itself by
    /// its address (RFC 3261 §12.2.1.1), and may ask there again.
    pub fn met(&mut self, hop: &Hop<'_>, ip: IpAddr, request: &Request) {
        let proved = request.headers.authorization().chain(request.headers.proxy_authorization()).next().is_some();
        if !proved || !self.logins.iter().any(|pinned| pinned.login.hosts.contains(hop.host)) {
            return;
        }
        let place = (ip.to_canonical(), hop.secure);
        self.met.retain(|known| *known != place);
        self.met.push_back(place);
        if self.met.len() > MET {
            self.met.pop_front();
        }
    }

    /// True for a host that is configured, and for the addresses of those; not in clear where it was met inside TLS.
    fn is_known(&self, login: &Login, host: &Host, secure: bool) -> bool {
        let met = |ip: &IpAddr| self.met.iter().any(|(known, safe)| *known == ip.to_canonical() && (secure || !safe));
        login.hosts.contains(host)
            || match host {
                Host::Ip(ip) => !login.hosts.is_empty() && met(ip),
                Host::Name(_) => false,
            }
    }

    /// True where something could be answered at all.
    #[must_use]
    pub fn has_logins(&self) -> bool {
        !self.logins.is_empty()
    }

    /// The login that this place may have a proof of.
    fn login_for(&self, key: &Key, hop: &Hop<'_>, request: &Request, algorithm: Option<Algorithm>) -> Option<usize> {
        self.logins.iter().position(|pinned| {
            let Login { realm, hosts, .. } = &pinned.login;
            let known_host = self.is_known(&pinned.login, hop.host, hop.secure);
            let realm_fits = match (realm, pinned.learned(key.asker)) {
                (Some(realm), _) => *realm == key.realm,
                (None, Some(learned)) => known_host && *learned == key.realm,
                // A callee elsewhere can challenge through our own proxy: what he asks with is never learned.
                (None, None) => {
                    let target = target_of(request, hop);
                    known_host && (key.asker == Asker::Proxy || self.is_known(&pinned.login, target, hop.secure))
                }
            };
            let unlisted = hosts.is_empty() && (hop.secure || algorithm.is_some_and(|a| a.hash != Hash::Md5));
            realm_fits && (known_host || unlisted)
        })
    }

    fn learn(&mut self, key: Key, login: usize, offer: Offer) {
        if let Some(pinned) = self.logins.get_mut(login) {
            let learned = match key.asker {
                Asker::Proxy => &mut pinned.proxy,
                Asker::Server => &mut pinned.server,
            };
            learned.get_or_insert_with(|| key.realm.clone());
        }
        if self.known.len() >= KNOWN && !self.known.contains_key(&key) {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.age).map(|(key, _)| key.clone());
            oldest.map(|oldest| self.known.remove(&oldest));
        }
        let cnonce = fresh_cnonce(&mut self.rng);
        let Offer { algorithm, nonce, opaque, qop, stale: _ } = offer;
        self.next_age += 1;
        self.known.insert(key, Known { login, algorithm, nonce, opaque, qop, cnonce, count: 0, age: self.next_age });
    }
}

impl Pinned {
    fn learned(&self, asker: Asker) -> Option<&String> {
        match asker {
            Asker::Proxy => self.proxy.as_ref(),
            Asker::Server => self.server.as_ref(),
        }
    }
}

impl Known {
    fn proof<'a>(&'a self, login: &'a Login, realm: &'a str, body: &'a [u8]) -> Proof<'a> {
        Proof {
            algorithm: self.algorithm.unwrap_or_default(),
            username: &login.username,
            realm,
            password: &login.password,
            nonce: &self.nonce,
            cnonce: &self.cnonce,
            count: self.count,
            qop: self.qop,
            body,
        }
    }

    fn credentials(&self, login: &Login, realm: &str, request: &Request) -> Credentials {
        let uri = request.uri.to_string();
        let response = self.proof(login, realm, &request.body).response(request.method.as_str(), &uri);
        let mut params = Params::default();
        params.set("username", Some(&login.username));
        params.set("realm", Some(realm));
        params.set("nonce", Some(&self.nonce));
        params.set("uri", Some(&uri));
        params.set("response", Some(&response));
        // RFC 2617 §3.2.2: a server that named none may not know the parameter.
        if let Some(algorithm) = self.algorithm {
            params.set("algorithm", Some(algorithm.name()));
        }
        if self.qop.is_some() || self.algorithm.is_some_and(|a| a.session) {
            params.set("cnonce", Some(&self.cnonce));
        }
        if let Some(qop) = self.qop {
            params.set("qop", Some(qop.name()));
            params.set("nc", Some(&format!("{:08x}", self.count)));
        }
        if let Some(opaque) = &self.opaque {
            params.set("opaque", Some(opaque));
        }
        Credentials { scheme: digest_scheme(), params }
    }

    /// `rspauth` is the response without a method (RFC 7616 §3.5).
    fn proved_by(&self, login: &Login, realm: &str, request: &Request, info: &Params, theirs: &str) -> bool {
        let count = info.find("nc").and_then(|nc| u32::from_str_radix(nc, 16).ok()).unwrap_or(self.count);
        let uri = request.uri.to_string();
        let mut proof = self.proof(login, realm, &[]);
        proof.count = count;
        proof::same(&proof.response("", &uri), theirs)
    }
}

/// One challenge that we could answer.
#[derive(Debug)]
struct Offer {
    algorithm: Option<Algorithm>,
    nonce: String,
    opaque: Option<String>,
    qop: Option<Qop>,
    stale: bool,
}

impl Offer {
    fn read(challenge: &Challenge) -> Option<(String, Self)> {
        let Challenge { scheme, params } = challenge;
        if !scheme.is("Digest") {
            return None;
        }
        let short = |name| params.find(name).filter(|value| value.len() <= VALUE_BYTES);
        // RFC 7616 §3.3: an unknown algorithm means that the challenge is passed over.
        let algorithm = match params.find("algorithm") {
            Some(name) => Some(Algorithm::parse(name)?),
            None => None,
        };
        let qop = match params.find("qop") {
            None | Some("") => None,
            Some(list) => Some(Qop::choose(list)?),
        };
        let offer = Self {
            algorithm,
            nonce: short("nonce")?.to_owned(),
            opaque: short("opaque").map(str::to_owned),
            qop,
            stale: params.find("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
        };
        Some((short("realm")?.to_owned(), offer))
    }
}

/// The challenges of a response: for each realm in order of appearance what is offered, the strongest first.
fn by_realm(response: &Response) -> Vec<(Asker, String, Vec<Offer>)> {
    let challenges = response.headers.rest.iter().filter_map(|header| {
        if let Header::ProxyAuthenticate(challenge) = header {
            Some((Asker::Proxy, challenge))
        } else if let Header::WwwAuthenticate(challenge) = header {
            Some((Asker::Server, challenge))
        } else {
            None
        }
    });
    let mut realms: Vec<(Asker, String, Vec<Offer>)> = Vec::new();
    for (asker, challenge) in challenges.take(CHALLENGES) {
        let Some((realm, offer)) = Offer::read(challenge) else { continue };
        match realms.iter_mut().find(|(a, r, _)| *a == asker && *r == realm) {
            Some((_, _, offers)) => offers.push(offer),
            None => realms.push((asker, realm, vec![offer])),
        }
    }
    for (_, _, offers) in &mut realms {
        // RFC 8760 §2.4 asks for the topmost; whoever sits on the way could turn the order round, so the strongest it is.
        offers.sort_by_key(|offer| std::cmp::Reverse(offer.algorithm.unwrap_or_default().hash));
    }
    realms
}

/// Whose the request is in the end.
fn target_of<'a>(request: &'a Request, hop: &Hop<'a>) -> &'a Host {
    request.uri.host().unwrap_or(hop.host)
}

fn fresh_cnonce(rng: &mut ChaCha20Rng) -> String {
    format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64())
}

fn digest_scheme() -> Token {
    Token::lossy("Digest")
}

#[cfg(test)]
mod tests;
