//! Whatever is built is read back the same, and no text of anybody makes a header.

use offhook::wire::sip::{
    CSeq, CallId, Challenge, ContentType, Credentials, Event, Header, Host, Message, Method, NameAddr, Params, RAck,
    Reason, Refresher, Replaces, Request, Response, SessionExpires, SipText, SipUri, Status, SubscriptionState, Tag,
    TelUri, Token, Uri, Via,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::net::IpAddr;

/// Any text at all, line ends and control characters among it.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "(?s).{0,20}",
        "\\PC{0,20}",
        "[a-z]{1,8}",
        Just("a\r\nRoute: <sip:evil@x>\r\n\r\nb".to_owned()),
        Just("\"\\;,<>%\0\u{85}\u{2028} ".to_owned()),
    ]
}

fn sip_text() -> impl Strategy<Value = SipText> {
    any_text().prop_map(|t| SipText::new(&t))
}

fn token() -> impl Strategy<Value = Token> {
    any_text().prop_map(|t| Token::lossy(&t))
}

fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9.!%*_+`'~-]{0,9}"
}

fn params() -> impl Strategy<Value = Params> {
    vec((name(), option::of(any_text())), 0..4).prop_map(|all| {
        let mut params = Params::default();
        for (name, value) in all {
            // Those that have fields of their own.
            if !["branch", "received", "rport", "refresher"].contains(&name.as_str()) {
                params.set(&name, value.as_deref());
            }
        }
        params
    })
}

/// As of a digest: each has a value, and there is one.
fn values() -> impl Strategy<Value = Params> {
    vec((prop_oneof![name(), Just("qop".to_owned()), Just("algorithm".to_owned())], any_text()), 1..5).prop_map(|all| {
        let mut params = Params::default();
        all.iter().for_each(|(name, value)| params.set(name, Some(value)));
        params
    })
}

fn host() -> impl Strategy<Value = Host> {
    prop_oneof![
        "[a-z]([a-z0-9-]{0,8}\\.){0,2}[a-z]{1,5}".prop_map(|h| Host::new(&h).unwrap()),
        any::<IpAddr>().prop_map(Host::from)
    ]
}

fn uri() -> impl Strategy<Value = Uri> {
    let sip = (
        any::<bool>(),
        option::of(any_text()),
        option::of(any_text()),
        host(),
        option::of(any::<u16>()),
        params(),
        vec((name(), any_text()), 0..3),
    )
        .prop_map(|(secure, user, password, host, port, params, headers)| {
            let mut uri = SipUri::new(user.as_deref(), host);
            uri.secure = secure;
            uri.password = password.filter(|_| uri.user.is_some()).map(Into::into);
            uri.port = port;
            uri.params = params;
            uri.headers = headers.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
            Uri::from(uri)
        });
    let tel = ("\\+?[0-9A-F*#().-]{0,9}[0-9]", params()).prop_map(|(number, params)| {
        let mut tel = TelUri::new(&number).unwrap();
        tel.params = params;
        Uri::Tel(Box::new(tel))
    });
    prop_oneof![8 => sip, 1 => tel, 1 => Just("isbn:2983792873".parse().unwrap())]
}

fn name_addr() -> impl Strategy<Value = NameAddr> {
    (any_text(), uri(), params()).prop_map(|(display, uri, params)| {
        let mut addr = NameAddr::named(&display, uri);
        addr.params = params;
        addr
    })
}

fn via() -> impl Strategy<Value = Via> {
    (
        token(),
        host(),
        option::of(any::<u16>()),
        any_text(),
        option::of(any::<IpAddr>()),
        option::of(option::of(any::<u16>())),
        params(),
    )
        .prop_map(|(transport, host, port, branch, received, rport, params)| {
            // The branch is put in as parameters are.
            let mut safe = Params::default();
            safe.set("branch", Some(&branch));
            let mut via = Via::new(transport, host, port, safe.find("branch").unwrap());
            via.received = received;
            via.rport = rport;
            via.params = params;
            via
        })
}

fn method() -> impl Strategy<Value = Method> {
    prop_oneof![Just(Method::Invite), Just(Method::Bye), token().prop_map(|t| Method::new(t.as_str()).unwrap())]
}

fn cseq() -> impl Strategy<Value = CSeq> {
    (0..1u32 << 31, method()).prop_map(|(number, method)| CSeq { number, method })
}

fn call_id() -> impl Strategy<Value = CallId> {
    any_text().prop_map(|t| CallId::lossy(&t))
}

fn tag() -> impl Strategy<Value = Tag> {
    any_text().prop_map(|t| Tag::lossy(&t))
}

fn header() -> impl Strategy<Value = Header> {
    let challenge = (token(), values()).prop_map(|(scheme, params)| Challenge { scheme, params });
    let credentials = (token(), values()).prop_map(|(scheme, params)| Credentials { scheme, params });
    let content_type = (name(), name(), params()).prop_map(|(kind, sub, params)| {
        let mut content_type = ContentType::new(&format!("{kind}/{sub}")).unwrap();
        content_type.params = params;
        content_type
    });
    let texts = prop_oneof![
        sip_text().prop_map(Header::Accept),
        sip_text().prop_map(Header::ContentDisposition),
        sip_text().prop_map(Header::Privacy),
        sip_text().prop_map(Header::Subject),
        sip_text().prop_map(Header::UserAgent),
        sip_text().prop_map(Header::Server),
        sip_text().prop_map(Header::Warning),
        ("X-[a-z]{0,9}", sip_text()).prop_map(|(name, text)| Header::Other(Token::lossy(&name), text)),
    ];
    let lists = prop_oneof![
        vec(token(), 0..4).prop_map(Header::Supported),
        vec(token(), 0..4).prop_map(Header::Require),
        vec(token(), 0..4).prop_map(Header::ProxyRequire),
        vec(token(), 0..4).prop_map(Header::Unsupported),
        vec(token(), 0..4).prop_map(Header::AllowEvents),
        vec(method(), 0..4).prop_map(Header::Allow),
    ];
    let numbers = prop_oneof![
        any::<u32>().prop_map(Header::MinExpires),
        any::<u32>().prop_map(Header::MinSe),
        any::<u32>().prop_map(Header::Expires),
        any::<u32>().prop_map(Header::RetryAfter),
        (0..1u32 << 31).prop_map(Header::RSeq),
        (0..1u32 << 31, cseq()).prop_map(|(rseq, cseq)| Header::RAck(RAck { rseq, cseq })),
        (any::<u32>(), option::of(proptest::sample::select(vec![Refresher::Uac, Refresher::Uas])))
            .prop_map(|(seconds, refresher)| Header::SessionExpires(SessionExpires { seconds, refresher })),
    ];
    let others = prop_oneof![
        challenge.prop_map(Header::WwwAuthenticate),
        credentials.prop_map(Header::Authorization),
        values().prop_map(Header::AuthenticationInfo),
        content_type.prop_map(Header::ContentType),
        (token(), params()).prop_map(|(package, params)| Header::Event(Event { package, params })),
        (token(), params()).prop_map(|(state, params)| Header::SubscriptionState(SubscriptionState { state, params })),
        name_addr().prop_map(Header::PAssertedIdentity),
        name_addr().prop_map(Header::ReferTo),
        name_addr().prop_map(Header::ReferredBy),
        (call_id(), tag(), tag(), any::<bool>()).prop_map(|(call_id, to_tag, from_tag, early_only)| {
            Header::Replaces(Replaces { call_id, to_tag, from_tag, early_only })
        }),
        (token(), option::of(any::<u16>()), option::of(sip_text()))
            .prop_map(|(protocol, cause, text)| Header::Reason(Reason { protocol, cause, text })),
        token().prop_map(Header::SipEtag),
        token().prop_map(Header::SipIfMatch),
    ];
    prop_oneof![texts, lists, numbers, others]
}

fn message() -> impl Strategy<Value = Message> {
    let addresses = (name_addr(), name_addr(), vec(name_addr(), 0..3), vec(name_addr(), 0..3), vec(name_addr(), 0..3));
    let start = (any::<bool>(), uri(), 100..700u16, sip_text());
    (start, addresses, vec(via(), 1..4), vec(header(), 0..6), call_id(), cseq(), vec(any::<u8>(), 0..40)).prop_map(
        |(
            (request, mut uri, code, reason),
            (from, to, contact, route, record_route),
            via,
            rest,
            call_id,
            cseq,
            body,
        )| {
            if let Uri::Sip(sip) = &mut uri {
                sip.headers.clear();
            }
            let mut made = Request::new(cseq.method.clone(), uri, from, to, call_id, cseq.number);
            made.headers.via = via;
            made.headers.contact = contact;
            made.headers.route = route;
            made.headers.record_route = record_route;
            // `set` keeps each name single.
            rest.into_iter().for_each(|header| made.headers.set(header));
            made.body = body;
            if request {
                return Message::Request(made);
            }
            let mut response = Response::to(&made, Status::new(code).unwrap());
            response.headers = made.headers;
            response.reason = reason;
            response.body = made.body;
            Message::Response(response)
        },
    )
}

/// Header lines of a message, and its empty line.
fn lines(bytes: &[u8]) -> usize {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = &bytes[..end + 2];
    let lines = head.iter().filter(|b| **b == b'\n').count();
    assert_eq!(head.iter().filter(|b| **b == b'\r').count(), lines);
    lines
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back_the_same(message in message()) {
        let bytes = message.to_bytes();
        let again = Message::parse(&bytes);
        prop_assert_eq!(again.as_ref(), Ok(&message), "{}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_message_has_the_headers_that_were_put_in_and_no_other(message in message()) {
        let h = message.headers();
        let wanted = 1 + h.via.len() + usize::from(h.max_forwards.is_some()) + h.route.len() + h.record_route.len()
            + 4 + h.contact.len() + h.rest.len() + 1;
        prop_assert_eq!(lines(&message.to_bytes()), wanted);
    }

    #[test]
    fn no_name_of_a_parameter_and_no_forged_header_gets_out(name in any_text(), value in any_text()) {
        let uri: Uri = "sip:a@b".parse().unwrap();
        let mut request =
            Request::new(Method::Options, uri.clone(), NameAddr::new(uri.clone()), NameAddr::new(uri), CallId::lossy("1"), 1);
        request.headers.from.params.set(&name, Some(&value));
        if let Uri::Sip(sip) = &mut request.uri {
            sip.params.set(&name, Some(&value));
        }
        request.headers.via.push(Via::new(Token::lossy("UDP"), Host::new("h").unwrap(), None, &value));
        for forged in ["Via", "route", "Content-Length", "l", "CALL-ID"] {
            request.headers.push(Header::Other(Token::lossy(forged), SipText::new(&value)));
        }
        let mut bytes = Vec::new();
        request.write(&mut bytes);
        prop_assert_eq!(lines(&bytes), 8);
        if !name.is_empty() {
            prop_assert!(Message::parse(&bytes).is_ok(), "{}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn an_address_is_shown_as_it_is_read(uri in uri()) {
        prop_assert_eq!(uri.to_string().parse::<Uri>(), Ok(uri.clone()));
        prop_assert!(uri.equivalent(&uri));
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Message::parse(&bytes);
    }
}
