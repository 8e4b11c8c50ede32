#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm
)]
use super::proof::{Proof, Qop};
use super::*;
use crate::wire::sip::{CallId, Method, NameAddr, SipUri, Status};
use std::time::{Duration, Instant};

fn host(name: &str) -> Host {
    Host::new(name).unwrap()
}

fn request(method: Method, at: &str) -> Request {
    let me = NameAddr::new(SipUri::new(Some("alice"), host("pbx.example")).into());
    let uri = SipUri::new(None, host(at)).into();
    Request::new(method, uri, me.clone(), me, CallId::lossy("c1"), 1)
}

fn refused(code: u16, challenges: &[&[(&str, &str)]]) -> Response {
    let mut response = Response::to(&request(Method::Register, "pbx.example"), Status::new(code).unwrap());
    for challenge in challenges {
        let mut params = Params::default();
        challenge.iter().for_each(|(name, value)| params.set(name, Some(value)));
        let challenge = Challenge { scheme: digest_scheme(), params };
        response.headers.rest.push(match code {
            407 => Header::ProxyAuthenticate(challenge),
            _ => Header::WwwAuthenticate(challenge),
        });
    }
    response
}

fn login(realm: Option<&str>, hosts: &[&str]) -> Login {
    Login {
        username: "alice".into(),
        password: Secret::new("secret"),
        realm: realm.map(str::to_owned),
        hosts: hosts.iter().map(|name| host(name)).collect(),
    }
}

fn vault(realm: Option<&str>, hosts: &[&str]) -> Vault {
    Vault::new([3; 32], vec![login(realm, hosts)])
}

fn sent(request: &Request) -> Vec<&Params> {
    let credentials = request.headers.rest.iter().filter_map(|header| match header {
        Header::Authorization(c) | Header::ProxyAuthorization(c) => Some(&c.params),
        _ => None,
    });
    credentials.collect()
}

const MD5: &[(&str, &str)] = &[("realm", "asterisk"), ("nonce", "n1"), ("algorithm", "MD5"), ("qop", "auth")];
const SHA: &[(&str, &str)] =
    &[("realm", "asterisk"), ("nonce", "n2"), ("algorithm", "SHA-256"), ("qop", "auth,auth-int"), ("opaque", "o")];

/// Challenges a REGISTER once; what goes out then.
fn answer(vault: &mut Vault, response: &Response) -> Result<Request, Refusal> {
    let hop_host = host("pbx.example");
    let hop = Hop { host: &hop_host, secure: false };
    let (mut request, mut attempt) = (request(Method::Register, "pbx.example"), Attempt::default());
    vault.prepare(&hop, &mut request, &mut attempt);
    vault.challenged(&hop, &request, response, &mut attempt)?;
    vault.prepare(&hop, &mut request, &mut attempt);
    Ok(request)
}

fn example<'a>(hash: Hash, password: &'a Secret) -> Proof<'a> {
    Proof {
        algorithm: Algorithm { hash, session: false },
        username: "Mufasa",
        realm: "http-auth@example.org",
        password,
        nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        cnonce: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
        count: 1,
        qop: Some(Qop::Auth),
        body: &[],
    }
}

#[test]
fn the_examples_of_rfc_7616_and_rfc_2617_come_out() {
    let password = Secret::new("Circle of Life");
    let response = |hash| example(hash, &password).response("GET", "/dir/index.html");
    assert_eq!(response(Hash::Md5), "8ca523f5e9506fed4657c9700eebdbec");
    assert_eq!(response(Hash::Sha256), "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1");
    let password = Secret::new("Circle Of Life");
    let old = Proof {
        realm: "testrealm@host.com",
        nonce: "dcd98b7102dd2f0e8b11d0f600bfb0c093",
        cnonce: "0a4f113b",
        ..example(Hash::Md5, &password)
    };
    assert_eq!(old.response("GET", "/dir/index.html"), "6629fae49393a05397450978507c4ef1");
    let none = Proof { qop: None, ..old };
    assert_eq!(none.response("GET", "/dir/index.html"), "670fd8c2df070c60b045671b8b24ff02");
}

#[test]
fn sha_512_256_is_that_of_fips_180_4() {
    let password = Secret::new("Secret, or not?");
    let proof = Proof {
        algorithm: Algorithm { hash: Hash::Sha512t256, session: false },
        username: "Jäsøn Doe",
        realm: "api@example.org",
        nonce: "5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK",
        cnonce: "NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v",
        ..example(Hash::Sha512t256, &password)
    };
    // As erratum 4897 of RFC 7616 has it: the digits printed in §3.9.2 are of a draft of that hash.
    assert_eq!(proof.response("GET", "/doe.json"), "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5");
}

#[test]
fn names_of_algorithms_and_lists_of_qop_are_read() {
    for name in ["MD5", "md5-sess", "SHA-256", "sha-256-SESS", "SHA-512-256", "SHA-512-256-sess"] {
        assert!(Algorithm::parse(name).unwrap().name().eq_ignore_ascii_case(name));
    }
    assert_eq!(Algorithm::parse("SHA-1"), None);
    assert_eq!(Qop::choose("auth-int, auth"), Some(Qop::Auth));
    assert_eq!(Qop::choose("auth-int"), Some(Qop::AuthInt));
    assert_eq!(Qop::choose("token"), None);
}

#[test]
fn the_strongest_of_several_challenges_is_answered() {
    let weird: &[(&str, &str)] = &[("realm", "asterisk"), ("nonce", "n0"), ("algorithm", "SHA-3"), ("qop", "auth")];
    let request = answer(&mut vault(None, &["pbx.example"]), &refused(401, &[weird, MD5, SHA])).unwrap();
    let params = sent(&request);
    assert_eq!(params.len(), 1);
    let find = |name| params[0].find(name);
    assert_eq!((find("algorithm"), find("nonce"), find("opaque")), (Some("SHA-256"), Some("n2"), Some("o")));
    assert_eq!((find("qop"), find("nc"), find("uri")), (Some("auth"), Some("00000001"), Some("sip:pbx.example")));
    assert_eq!(find("response").unwrap().len(), 64);
}

#[test]
fn a_challenge_without_qop_and_algorithm_is_answered_as_rfc_2069_has_it() {
    let old: &[(&str, &str)] = &[("realm", "asterisk"), ("nonce", "n1")];
    let request = answer(&mut vault(Some("asterisk"), &["pbx.example"]), &refused(401, &[old])).unwrap();
    let params = sent(&request)[0];
    assert_eq!(params.find("response").unwrap().len(), 32);
    assert!(["qop", "nc", "cnonce", "algorithm"].iter().all(|name| params.find(name).is_none()));
}

#[test]
fn a_hostile_realm_gets_nothing() {
    let evil: &[(&str, &str)] = &[("realm", "evil"), ("nonce", "n"), ("qop", "auth")];
    let configured = &mut vault(Some("asterisk"), &["pbx.example"]);
    assert_eq!(answer(configured, &refused(401, &[evil])).unwrap_err(), Refusal::Stranger("evil".into()));
    // Learned from the first challenge, the realm is the only one from then on.
    let learning = &mut vault(None, &["pbx.example"]);
    assert!(answer(learning, &refused(401, &[MD5])).is_ok());
    assert_eq!(answer(learning, &refused(401, &[evil])).unwrap_err(), Refusal::Stranger("evil".into()));
}

#[test]
fn a_foreign_host_gets_nothing_even_if_it_names_our_realm() {
    let foreign = host("evil.example");
    let hop = Hop { host: &foreign, secure: true };
    for vault in [&mut vault(Some("asterisk"), &["pbx.example"]), &mut vault(None, &["pbx.example"])] {
        let (request, mut attempt) = (request(Method::Invite, "evil.example"), Attempt::default());
        let refusal = vault.challenged(&hop, &request, &refused(401, &[SHA]), &mut attempt).unwrap_err();
        assert_eq!(refusal.realm(), "asterisk");
    }
}

#[test]
fn a_callee_elsewhere_cannot_teach_a_realm_through_our_proxy() {
    let proxy = host("pbx.example");
    let hop = Hop { host: &proxy, secure: true };
    let mut vault = vault(None, &["pbx.example"]);
    let (request, mut attempt) = (request(Method::Invite, "evil.example"), Attempt::default());
    assert!(vault.challenged(&hop, &request, &refused(401, &[SHA]), &mut attempt).is_err());
}

#[test]
fn a_server_that_names_itself_by_its_address_in_a_dialog_is_the_one_that_was_met_there() {
    let (name, address) = (host("pbx.example"), host("192.0.2.1"));
    let ip = "192.0.2.1".parse().unwrap();
    let by_name = Hop { host: &name, secure: true };
    for (secure, fine) in [(true, true), (false, false)] {
        let mut vault = vault(None, &["pbx.example"]);
        let by_address = Hop { host: &address, secure };
        let bye = request(Method::Bye, "192.0.2.1");
        let strange = vault.challenged(&by_address, &bye, &refused(401, &[MD5]), &mut Attempt::default());
        assert!(strange.is_err(), "not met yet");
        vault.met(&by_name, ip, &bye);
        assert!(
            vault.challenged(&by_address, &bye, &refused(401, &[MD5]), &mut Attempt::default()).is_err(),
            "no proof"
        );
        let proved = answer(&mut vault, &refused(401, &[MD5])).unwrap();
        vault.met(&by_name, ip, &proved);
        let answered = vault.challenged(&by_address, &bye, &refused(401, &[MD5]), &mut Attempt::default());
        assert_eq!(answered.is_ok(), fine, "secure {secure}: met inside TLS, not asked in clear");
        let other = host("192.0.2.2");
        let elsewhere = Hop { host: &other, secure: true };
        let bye = request(Method::Bye, "192.0.2.2");
        assert!(vault.challenged(&elsewhere, &bye, &refused(401, &[MD5]), &mut Attempt::default()).is_err());
    }
}

#[test]
fn without_configured_hosts_md5_goes_only_inside_tls() {
    let anywhere = host("pbx.example");
    for (secure, offer, fine) in [(false, MD5, false), (true, MD5, true), (false, SHA, true)] {
        let mut vault = vault(Some("asterisk"), &[]);
        let hop = Hop { host: &anywhere, secure };
        let (request, mut attempt) = (request(Method::Register, "pbx.example"), Attempt::default());
        let answered = vault.challenged(&hop, &request, &refused(401, &[offer]), &mut attempt);
        assert_eq!(answered.is_ok(), fine, "secure {secure}");
    }
}

#[test]
fn a_stale_nonce_is_answered_again_and_a_wrong_password_is_not() {
    let at = host("pbx.example");
    let hop = Hop { host: &at, secure: false };
    let mut vault = vault(None, &["pbx.example"]);
    let (mut request, mut attempt) = (request(Method::Register, "pbx.example"), Attempt::default());
    vault.challenged(&hop, &request, &refused(401, &[MD5]), &mut attempt).unwrap();
    vault.prepare(&hop, &mut request, &mut attempt);
    let stale: &[(&str, &str)] = &[("realm", "asterisk"), ("nonce", "n9"), ("qop", "auth"), ("stale", "TRUE")];
    vault.challenged(&hop, &request, &refused(401, &[stale]), &mut attempt).unwrap();
    vault.prepare(&hop, &mut request, &mut attempt);
    assert_eq!(sent(&request).len(), 1);
    assert_eq!((sent(&request)[0].find("nonce"), sent(&request)[0].find("nc")), (Some("n9"), Some("00000001")));
    let again = vault.challenged(&hop, &request, &refused(401, &[MD5]), &mut attempt);
    assert_eq!(again, Err(Refusal::Wrong("asterisk".into())));
    // A server that says stale for ever is left alone too.
    let mut attempt = Attempt::default();
    let times = (0..20).take_while(|_| vault.challenged(&hop, &request, &refused(401, &[stale]), &mut attempt).is_ok());
    assert_eq!(times.count(), 1 + usize::from(STALE_TIMES));
}

#[test]
fn a_known_nonce_is_used_again_with_the_next_count_and_replaced_without_a_fuss() {
    let at = host("pbx.example");
    let hop = Hop { host: &at, secure: false };
    let mut vault = vault(None, &["pbx.example"]);
    answer(&mut vault, &refused(401, &[MD5])).unwrap();
    let (mut second, mut attempt) = (request(Method::Invite, "pbx.example"), Attempt::default());
    vault.prepare(&hop, &mut second, &mut attempt);
    assert_eq!(sent(&second)[0].find("nc"), Some("00000002"));
    // Refused without `stale`: the nonce was an old one, so the password is not yet wrong.
    vault.challenged(&hop, &second, &refused(401, &[SHA]), &mut attempt).unwrap();
    vault.prepare(&hop, &mut second, &mut attempt);
    assert_eq!((sent(&second)[0].find("nonce"), sent(&second)[0].find("nc")), (Some("n2"), Some("00000001")));
    assert!(vault.challenged(&hop, &second, &refused(401, &[SHA]), &mut attempt).is_err());
    // To whom it does not belong it does not go.
    let mut other = request(Method::Invite, "evil.example");
    vault.prepare(&hop, &mut other, &mut Attempt::default());
    assert!(sent(&other).is_empty());
}

#[test]
fn proxy_and_server_are_both_proved_to() {
    let at = host("pbx.example");
    let hop = Hop { host: &at, secure: false };
    let mut vault = vault(None, &["pbx.example"]);
    let (mut request, mut attempt) = (request(Method::Invite, "pbx.example"), Attempt::default());
    let edge: &[(&str, &str)] = &[("realm", "edge"), ("nonce", "p"), ("qop", "auth")];
    vault.challenged(&hop, &request, &refused(407, &[edge]), &mut attempt).unwrap();
    vault.prepare(&hop, &mut request, &mut attempt);
    vault.challenged(&hop, &request, &refused(401, &[MD5]), &mut attempt).unwrap();
    vault.prepare(&hop, &mut request, &mut attempt);
    let all: Vec<_> = sent(&request).iter().map(|p| (p.find("realm").unwrap(), p.find("nc").unwrap())).collect();
    // The proxy sees the request a second time: the count goes up.
    assert_eq!(all, [("edge", "00000002"), ("asterisk", "00000001")]);
}

#[test]
fn the_next_nonce_of_the_server_is_taken_if_its_proof_is_right() {
    let mut vault = vault(None, &["pbx.example"]);
    let request = answer(&mut vault, &refused(401, &[MD5])).unwrap();
    let mut fine = refused(200, &[]);
    let info = |entries: &[(&str, &str)]| {
        let mut params = Params::default();
        entries.iter().for_each(|(name, value)| params.set(name, Some(value)));
        Header::AuthenticationInfo(params)
    };
    let at = host("pbx.example");
    let hop = Hop { host: &at, secure: false };
    let nonce = |vault: &mut Vault| {
        let mut next = request.clone();
        vault.prepare(&hop, &mut next, &mut Attempt::default());
        let params = sent(&next)[0];
        (params.find("nonce").unwrap().to_owned(), params.find("nc").unwrap().to_owned())
    };
    fine.headers.rest = vec![info(&[("nextnonce", "forged"), ("rspauth", "00"), ("nc", "00000001")])];
    vault.answered(&request, &fine);
    assert_eq!(nonce(&mut vault), ("n1".into(), "00000002".into()));
    fine.headers.rest = vec![info(&[("nextnonce", "n7")])];
    vault.answered(&request, &fine);
    assert_eq!(nonce(&mut vault), ("n7".into(), "00000001".into()));
}

/// A client and a server of ours.
struct World {
    now: Instant,
    server: Authenticator,
    client: Vault,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let mut config = AuthenticatorConfig::new("here");
        config.nonces = 8;
        Self { now, server: Authenticator::new(now, [1; 32], config), client: vault(Some("here"), &["pbx.example"]) }
    }

    fn verify(&mut self, request: &Request) -> Verdict {
        self.server.verify(self.now, request, |user| (user == "alice").then(|| Secret::new("secret")))
    }

    fn challenge(&mut self, stale: bool) -> Response {
        let mut response = refused(401, &[]);
        response.headers.rest = self.server.challenge(self.now, stale);
        response
    }

    fn proved(&mut self) -> Request {
        let challenge = self.challenge(false);
        answer(&mut self.client, &challenge).unwrap()
    }
}

#[test]
fn our_own_server_takes_our_own_client_once() {
    let mut world = World::new();
    assert_eq!(world.verify(&request(Method::Register, "pbx.example")), Verdict::Challenge { stale: false });
    let good = world.proved();
    assert_eq!(sent(&good)[0].find("algorithm"), Some("SHA-256"));
    assert_eq!(world.verify(&good), Verdict::Proved("alice".into()));
    // RFC 7616 §5.12: the same once more is a replay.
    assert_eq!(world.verify(&good), Verdict::Challenge { stale: true });
    let mut forged = world.proved();
    forged.method = Method::Invite;
    assert_eq!(world.verify(&forged), Verdict::Challenge { stale: false });
}

#[test]
fn every_algorithm_and_protected_bodies_are_proved_as_they_are_checked() {
    for algorithm in ["MD5", "MD5-sess", "SHA-256", "SHA-256-sess"] {
        for qop in ["auth", "auth-int", "auth-int, token", "\u{20}auth\t,auth-int"] {
            let mut world = World::new();
            let mut challenge = world.challenge(false);
            challenge.headers.rest.truncate(1);
            if let Header::WwwAuthenticate(challenge) = &mut challenge.headers.rest[0] {
                challenge.params.set("algorithm", Some(algorithm));
                challenge.params.set("qop", Some(qop));
            }
            let mut request = answer(&mut world.client, &challenge).unwrap();
            assert_eq!(world.verify(&request), Verdict::Proved("alice".into()), "{algorithm} {qop}");
            // What was changed on the way is noticed where the body is part of the proof.
            let host = host("pbx.example");
            world.client.prepare(&Hop { host: &host, secure: false }, &mut request, &mut Attempt::default());
            request.body = b"changed".to_vec();
            let fine = world.verify(&request) == Verdict::Proved("alice".into());
            assert_eq!(fine, sent(&request)[0].find("qop") == Some("auth"), "{algorithm} {qop}");
        }
    }
}

#[test]
fn counts_may_come_in_another_order_but_none_twice() {
    let mut world = World::new();
    let first = world.proved();
    let at = host("pbx.example");
    let more: Vec<Request> = (0..3)
        .map(|_| {
            let mut request = request(Method::Message, "pbx.example");
            world.client.prepare(&Hop { host: &at, secure: false }, &mut request, &mut Attempt::default());
            request
        })
        .collect();
    for request in [&more[2], &more[0], &first, &more[1]] {
        assert_eq!(world.verify(request), Verdict::Proved("alice".into()));
    }
    for request in more.iter().chain([&first]) {
        assert_eq!(world.verify(request), Verdict::Challenge { stale: true });
    }
}

#[test]
fn an_old_or_forged_nonce_is_stale() {
    let mut world = World::new();
    let request = world.proved();
    world.now += Duration::from_secs(301);
    assert_eq!(world.verify(&request), Verdict::Challenge { stale: true });
    let mut other = World::new();
    other.server = Authenticator::new(other.now, [9; 32], AuthenticatorConfig::new("here"));
    let foreign = World::new().proved();
    assert_eq!(other.verify(&foreign), Verdict::Challenge { stale: true });
}

#[test]
fn nonces_that_are_forgotten_for_want_of_room_are_not_taken_again() {
    let mut world = World::new();
    let mut all = Vec::new();
    for _ in 0..20 {
        world.now += Duration::from_millis(5);
        let request = world.proved();
        assert_eq!(world.verify(&request), Verdict::Proved("alice".into()));
        all.push(request);
    }
    for request in &all {
        assert_eq!(world.verify(request), Verdict::Challenge { stale: true });
    }
}

#[test]
fn nothing_shows_the_password() {
    let mut world = World::new();
    let request = world.proved();
    let shown = format!("{:?} {:?} {:?} {request:?}", world.client, world.server, login(None, &[]));
    assert!(!shown.contains("secret\""), "{shown}");
}
