//! ezk-sip-auth answers a challenge as we do, and what it answers to a challenge of ours is believed.

use ezk_sip_auth::{
    ClientAuthenticator, DigestAuthenticator, DigestCredentials, DigestUser, RequestParts, ResponseParts,
};
use ezk_sip_types::msg::{RequestLine, StatusLine};
use ezk_sip_types::uri::SipUri;
use ezk_sip_types::{Headers, Name, StatusCode};
use offhook::config::Secret;
use offhook::sip::auth::{Attempt, Authenticator, AuthenticatorConfig, Hop, Login, Vault, Verdict};
use offhook::wire::sip::{
    CallId, Credentials, Header, Host, Message, Method, NameAddr, Request, Response, Status, Uri,
};
use std::time::Instant;

fn request() -> Request {
    let uri: Uri = "sip:example.org".parse().unwrap();
    let me: Uri = "sip:user123@example.org".parse().unwrap();
    Request::new(Method::Register, uri, NameAddr::new(me.clone()), NameAddr::new(me), CallId::lossy("1"), 1)
}

/// A header line as a value of ours.
fn header(line: &str) -> Header {
    let text = format!(
        "SIP/2.0 401 x\r\nVia: SIP/2.0/UDP h\r\nFrom: <sip:a@b>\r\nTo: <sip:a@b>\r\nCall-ID: 1\r\nCSeq: 1 REGISTER\r\n{line}\r\n\r\n"
    );
    let Ok(Message::Response(mut response)) = Message::parse(text.as_bytes()) else { panic!("{line}") };
    response.headers.rest.pop().unwrap()
}

/// A header of ours as the value of a line.
fn value(header: Header) -> String {
    let mut request = request();
    request.headers.push(header);
    let mut bytes = Vec::new();
    request.write(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let line = text.lines().find(|l| l.starts_with("WWW-Authenticate") || l.starts_with("Authorization")).unwrap();
    line.split_once(": ").unwrap().1.to_owned()
}

fn ezk() -> DigestAuthenticator {
    let mut credentials = DigestCredentials::new();
    credentials.add_for_realm("example.org", DigestUser::new("user123", "password123"));
    DigestAuthenticator::new(credentials)
}

/// What ezk answers to these challenges.
fn theirs(ezk: &mut DigestAuthenticator, challenges: &[String]) -> Credentials {
    let mut asked = Headers::new();
    for challenge in challenges {
        asked.insert(Name::WWW_AUTHENTICATE, challenge.as_str());
    }
    let line =
        RequestLine { method: ezk_sip_types::Method::REGISTER, uri: "sip:example.org".parse::<SipUri>().unwrap() };
    let status = StatusLine { code: StatusCode::UNAUTHORIZED, reason: None };
    let request = RequestParts { line: &line, headers: &Headers::new(), body: &[] };
    ezk.handle_rejection(request, ResponseParts { line: &status, headers: &asked, body: &[] }).unwrap();
    again(ezk)
}

/// What it puts into the next request.
fn again(ezk: &mut DigestAuthenticator) -> Credentials {
    let mut answer = Headers::new();
    ezk.authorize_request(&mut answer);
    let text = answer.get_raw(&Name::AUTHORIZATION).next().unwrap().to_string();
    let Header::Authorization(credentials) = header(&format!("Authorization: {text}")) else { panic!("{text}") };
    credentials
}

/// What we answer.
fn ours(challenge: &str) -> Credentials {
    let host = Host::new("example.org").unwrap();
    let login = Login {
        username: "user123".to_owned(),
        password: Secret::new("password123"),
        realm: Some("example.org".to_owned()),
        hosts: [host.clone()].into(),
    };
    let mut vault = Vault::new([7; 32], vec![login]);
    let (mut request, mut attempt) = (request(), Attempt::default());
    let mut response = Response::to(&request, Status::UNAUTHORIZED);
    response.headers.push(header(&format!("WWW-Authenticate: {challenge}")));
    let hop = Hop { host: &host, secure: false };
    vault.challenged(&hop, &request, &response, &mut attempt).unwrap();
    vault.prepare(&hop, &mut request, &mut attempt);
    request.headers.authorization().next().unwrap().clone()
}

#[test]
fn the_same_challenge_has_the_same_answer() {
    for challenge in [
        r#"Digest realm="example.org", nonce="YWmh5GFpoLjiTDCA1hTSSygkgdj99aHE""#,
        r#"Digest realm="example.org", nonce="YWmh5GFpoLjiTDCA1hTSSygkgdj99aHE", algorithm=MD5, opaque="o p""#,
        r#"Digest realm="example.org", nonce="abc", algorithm=SHA-256"#,
    ] {
        let theirs = theirs(&mut ezk(), &[challenge.to_owned()]);
        let ours = ours(challenge);
        for name in ["username", "realm", "nonce", "uri", "response", "opaque"] {
            assert_eq!(ours.params.find(name), theirs.params.find(name), "{name} for {challenge}");
        }
    }
    // The vector of ezk's own test.
    let vector = ours(r#"Digest realm="example.org", nonce="YWmh5GFpoLjiTDCA1hTSSygkgdj99aHE", algorithm=MD5"#);
    assert_eq!(vector.params.find("response"), Some("bc185e4893f17f12dc53153d2a62e6a6"));
}

#[test]
fn what_ezk_answers_to_our_challenges_is_believed_each_time() {
    let now = Instant::now();
    let mut authenticator = Authenticator::new(now, [3; 32], AuthenticatorConfig::new("example.org"));
    let challenges: Vec<String> = authenticator.challenge(now, false).into_iter().map(value).collect();
    assert!(challenges[0].contains("SHA-256") && challenges[0].contains("qop="), "{challenges:?}");
    let password = |user: &str| (user == "user123").then(|| Secret::new("password123"));
    let mut ezk = ezk();
    let mut credentials = theirs(&mut ezk, &challenges);
    for count in 1..4 {
        let mut request = request();
        assert_eq!(credentials.params.find("nc").map(|nc| u32::from_str_radix(nc, 16)), Some(Ok(count)));
        request.headers.push(Header::Authorization(credentials.clone()));
        assert_eq!(authenticator.verify(now, &request, password), Verdict::Proved("user123".to_owned()));
        // The same again is a replay.
        assert_ne!(authenticator.verify(now, &request, password), Verdict::Proved("user123".to_owned()));
        credentials = again(&mut ezk);
    }
}
