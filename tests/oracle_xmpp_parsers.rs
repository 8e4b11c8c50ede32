//! Differential test against xmpp-parsers, an independent implementation: what we write parses there, and what it
//! writes from that parses here, with equal meaning. Not asked of it, because it lacks them: sctpmap, encryption,
//! rtcp-reduced-size, feedback outside payload types, TCP candidates, mDNS names, reason details, JMI ringing and finish.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use offhook::config::XmlLimits;
use offhook::fault::ReasonCondition;
use offhook::wire::candidate::{
    Candidate, CandidateAddr, CandidateKind, CandidateProtocol, Fingerprint, IbbTransport, IceTransport, S5bCandidate,
    S5bKind, S5bTransport, Setup, Transport,
};
use offhook::wire::description::{
    Description, HeaderExtension, Parameter, PayloadType, RtcpFb, RtpDescription, Source, SourceGroup,
};
use offhook::wire::jingle::{
    Action, Content, Creator, Disposition, Group, Jingle, Jmi, JmiKind, Proposed, Reason, Senders, Sid,
};
use offhook::wire::ns;
use offhook::wire::xml::{Reader, Text, Writer};
use proptest::prelude::*;
use proptest::{collection::vec, option, sample::select};
use xmpp_parsers::jingle as theirs;
use xmpp_parsers::jingle_message::JingleMI;
use xmpp_parsers::minidom::Element;

/// Text that may stand in an attribute; not blank, which some of its types refuse.
fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9][a-zA-Z0-9 &<>'\"é漢😀.:/+=-]{0,11}".prop_map(|s| s)
}

fn short() -> impl Strategy<Value = Text> {
    text().prop_map(Text::from)
}

fn parameter() -> impl Strategy<Value = Parameter> {
    (short(), short()).prop_map(|(name, value)| Parameter { name, value: Some(value) })
}

fn payload_type() -> impl Strategy<Value = PayloadType> {
    let fb = (short(), option::of(short())).prop_map(|(kind, subtype)| RtcpFb { kind, subtype });
    let number = || option::of(any::<u32>());
    (0..=127u8, short(), (number(), number(), number()), 1..=255u8, vec(parameter(), 0..3), vec(fb, 0..3)).prop_map(
        |(id, name, (clock_rate_hz, ptime_ms, maxptime_ms), channels, parameters, rtcp_fb)| PayloadType {
            id,
            name,
            clock_rate_hz,
            channels,
            ptime_ms,
            maxptime_ms,
            parameters,
            rtcp_fb,
            rtcp_fb_trr_int_ms: None,
        },
    )
}

fn rtp() -> impl Strategy<Value = Description> {
    let extension = (any::<u16>(), short(), select(vec![Senders::Both, Senders::Initiator, Senders::Responder]))
        .prop_map(|(id, uri, senders)| HeaderExtension { id, uri, senders });
    // XEP-0339: a parameter of a source may lack its value.
    let source_parameter = (short(), option::of(short())).prop_map(|(name, value)| Parameter { name, value });
    let source = (any::<u32>(), vec(source_parameter, 0..3)).prop_map(|(ssrc, parameters)| Source { ssrc, parameters });
    let group = (select(vec!["LS", "FID", "SRF", "ANAT", "FEC", "DDP"]), vec(any::<u32>(), 1..3))
        .prop_map(|(semantics, sources)| SourceGroup { semantics: semantics.into(), sources });
    (
        (short(), option::of(any::<u32>()), any::<bool>()),
        vec(payload_type(), 0..4),
        vec(extension, 0..3),
        vec(source, 0..3),
        vec(group, 0..3),
    )
        .prop_map(|((media, ssrc, rtcp_mux), payload_types, header_extensions, sources, source_groups)| {
            Description::Rtp(Box::new(RtpDescription {
                media,
                ssrc,
                payload_types,
                rtcp_mux,
                header_extensions,
                sources,
                source_groups,
                ..RtpDescription::default()
            }))
        })
}

fn candidate() -> impl Strategy<Value = Candidate> {
    (
        (1..=255u8, text(), any::<u8>(), text()),
        (any::<std::net::IpAddr>(), 1..=65535u16, 1..=u32::MAX),
        select(CandidateKind::ALL),
        option::of(any::<(std::net::IpAddr, u16)>()),
        any::<u8>(),
    )
        .prop_map(|(a, b, kind, related, network)| Candidate {
            component: a.0,
            foundation: a.1.into(),
            generation: u32::from(a.2),
            id: Some(a.3.into()),
            addr: CandidateAddr::Ip(b.0),
            port: b.1,
            priority: b.2,
            protocol: CandidateProtocol::Udp,
            tcptype: None,
            kind,
            related,
            network: Some(u32::from(network)),
        })
}

fn transport() -> impl Strategy<Value = Transport> {
    let setup = select(vec![Setup::Active, Setup::Actpass, Setup::Passive]);
    let fingerprint = (select(vec![("sha-1", 20), ("sha-256", 32), ("sha-512", 64)]), any::<u8>(), setup).prop_map(
        |((hash, bytes), fill, setup)| Fingerprint { hash: hash.into(), value: vec![fill; bytes], setup: Some(setup) },
    );
    let ice = (option::of(text()), option::of(text()), vec(candidate(), 0..4), vec(fingerprint, 0..2)).prop_map(
        |(ufrag, pwd, candidates, fingerprints)| {
            let [ufrag, pwd] = [ufrag, pwd].map(|t| t.map(Into::into));
            Transport::Ice(Box::new(IceTransport { ufrag, pwd, candidates, fingerprints, ..IceTransport::default() }))
        },
    );
    let streamhost = (text(), any::<std::net::IpAddr>(), any::<u16>(), any::<u32>(), select(S5bKind::ALL)).prop_map(
        |(cid, host, port, priority, kind)| S5bCandidate {
            cid,
            host: host.to_string(),
            jid: "proxy.offhook.example".parse().unwrap(),
            port,
            priority,
            kind,
        },
    );
    // It takes one kind of child at a time.
    let s5b = (text(), option::of(text()), any::<bool>(), vec(streamhost, 1..4), text(), 0..6u8).prop_map(
        |(sid, dstaddr, udp, candidates, cid, which)| {
            let mut s5b = S5bTransport { sid, dstaddr, udp, ..S5bTransport::default() };
            match which {
                0 => s5b.candidates = candidates,
                1 => s5b.candidate_used = Some(cid),
                2 => s5b.candidate_error = true,
                3 => s5b.activated = Some(cid),
                4 => s5b.proxy_error = true,
                _ => {}
            }
            Transport::S5b(Box::new(s5b))
        },
    );
    let ibb = (1..=65535u16, text(), any::<bool>())
        .prop_map(|(block_size, sid, in_messages)| Transport::Ibb(IbbTransport { block_size, sid, in_messages }));
    prop_oneof![3 => ice, 1 => s5b, 1 => ibb]
}

fn content() -> impl Strategy<Value = Content> {
    (
        select(Creator::ALL),
        text(),
        select(Senders::ALL),
        any::<bool>(),
        prop_oneof![4 => rtp(), 1 => Just(Description::Unknown { ns: "urn:x".into() })],
        transport(),
    )
        .prop_map(|(creator, name, senders, early, description, transport)| Content {
            senders: Some(senders),
            disposition: if early { Disposition::EarlySession } else { Disposition::Session },
            description: Some(description),
            transport: Some(transport),
            ..Content::new(creator, name)
        })
}

fn jingle() -> impl Strategy<Value = Jingle> {
    // White space round an NMTOKEN does not count.
    let reason =
        (select(ReasonCondition::ALL), "[!-~]{1,12}", option::of(text())).prop_map(|(condition, sid, text)| Reason {
            condition,
            alternative: (condition == ReasonCondition::AlternativeSession).then_some(Sid(sid)),
            text,
            detail: None,
        });
    let group = (select(vec!["LS", "BUNDLE"]), vec(text(), 0..3)).prop_map(|(semantics, names)| Group {
        semantics: semantics.into(),
        names: names.into_iter().map(Text::from).collect(),
    });
    (select(Action::ALL), text(), vec(content(), 1..3), option::of(group), option::of(reason)).prop_map(
        |(action, sid, mut contents, group, reason)| {
            if action == Action::SessionInitiate {
                contents[0].disposition = Disposition::Session;
            }
            let mut jingle = Jingle::new(action, Sid(sid));
            jingle.initiator = (action == Action::SessionInitiate).then(|| "a@offhook.example/b".parse().unwrap());
            jingle.responder = (action == Action::SessionAccept).then(|| "c@offhook.example/d".parse().unwrap());
            jingle.contents = contents;
            jingle.groups = group.into_iter().collect();
            jingle.reason = reason;
            jingle
        },
    )
}

fn written(jingle: &Jingle) -> String {
    let mut out = String::new();
    jingle.write(&mut Writer::new(&mut out));
    out
}

fn read(xml: &str) -> Jingle {
    let mut r = Reader::new(xml, ns::CLIENT, &XmlLimits::default()).unwrap();
    let jingle = Jingle::read(&mut r).unwrap();
    r.finish().unwrap();
    jingle
}

fn parse_there(xml: &str) -> theirs::Jingle {
    xso::from_bytes(xml.as_bytes()).unwrap_or_else(|e| panic!("{e}: {xml}"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_we_write_means_the_same_there_and_comes_back(ours in jingle()) {
        let xml = written(&ours);
        let parsed = parse_there(&xml);
        check_fields(&ours, &parsed)?;
        let back = String::from_utf8(xso::to_vec(&parsed).unwrap()).unwrap();
        let mut again = read(&back);
        for content in &mut again.contents {
            content.senders = content.senders.or(Some(Senders::Both));
        }
        prop_assert_eq!(again, ours, "{}", back);
    }
}

/// The fields that it shows, compared one by one: coming back alone could hide two mistakes that cancel out.
fn check_fields(ours: &Jingle, parsed: &theirs::Jingle) -> Result<(), TestCaseError> {
    prop_assert_eq!(&parsed.sid.0, &ours.sid.0);
    prop_assert_eq!(format!("{:?}", parsed.action), format!("{:?}", ours.action));
    prop_assert_eq!(parsed.initiator.as_ref(), ours.initiator.as_ref());
    prop_assert_eq!(parsed.responder.as_ref(), ours.responder.as_ref());
    prop_assert_eq!(parsed.contents.len(), ours.contents.len());
    prop_assert!(parsed.other.is_empty());
    for (a, b) in parsed.contents.iter().zip(&ours.contents) {
        prop_assert_eq!(&a.name.0, &b.name);
        prop_assert_eq!(format!("{:?}", a.creator), format!("{:?}", b.creator));
        prop_assert_eq!(format!("{:?}", a.senders), format!("{:?}", b.senders.unwrap()));
        if let (Some(theirs::Description::Rtp(a)), Some(Description::Rtp(b))) = (&a.description, &b.description) {
            prop_assert_eq!((&a.media[..], a.ssrc, a.rtcp_mux), (&b.media[..], b.ssrc, b.rtcp_mux));
            for (a, b) in a.payload_types.iter().zip(&b.payload_types) {
                prop_assert_eq!((a.id, a.clockrate, a.channels.0), (b.id, b.clock_rate_hz, b.channels));
                prop_assert_eq!((a.ptime, a.maxptime), (b.ptime_ms, b.maxptime_ms));
                prop_assert_eq!(a.name.as_deref(), Some(b.name.as_str()));
                prop_assert_eq!((a.parameters.len(), a.rtcp_fbs.len()), (b.parameters.len(), b.rtcp_fb.len()));
            }
            prop_assert_eq!(a.payload_types.len(), b.payload_types.len());
            prop_assert_eq!(a.hdrexts.len(), b.header_extensions.len());
            prop_assert_eq!((a.ssrcs.len(), a.ssrc_groups.len()), (b.sources.len(), b.source_groups.len()));
        } else {
            let unknown = matches!(b.description, Some(Description::Unknown { .. }));
            prop_assert!(unknown, "{:?}", a.description);
        }
    }
    Ok(())
}

#[test]
fn a_propose_and_its_answers_mean_the_same_there() {
    let id = Sid("0c3f1a52".to_owned());
    let proposed = vec![Proposed { ns: ns::RTP.to_owned(), media: Some("audio".to_owned()) }];
    for kind in [
        JmiKind::Propose(proposed),
        JmiKind::Proceed,
        JmiKind::Accept,
        JmiKind::Reject { reason: None, tie_break: false },
        JmiKind::Retract { reason: None, tie_break: false },
    ] {
        let ours = Jmi { id: id.clone(), kind };
        let mut xml = String::new();
        ours.write(&mut Writer::new(&mut xml));
        let parsed: JingleMI = xso::from_bytes(xml.as_bytes()).unwrap_or_else(|e| panic!("{e}: {xml}"));
        let back = String::from_utf8(xso::to_vec(&parsed).unwrap()).unwrap();
        let mut r = Reader::new(&back, ns::CLIENT, &XmlLimits::default()).unwrap();
        assert_eq!(Jmi::read(&mut r).unwrap(), ours, "{back}");
    }
}

#[test]
fn what_it_builds_itself_parses_here() {
    let mut description = xmpp_parsers::jingle_rtp::Description::new("audio".to_owned());
    description.payload_types.push(xmpp_parsers::jingle_rtp::PayloadType::new(111, "opus".to_owned(), 48_000, 2));
    description.rtcp_mux = true;
    let fingerprint = xmpp_parsers::jingle_dtls_srtp::Fingerprint::from_colon_separated_hex(
        xmpp_parsers::jingle_dtls_srtp::Setup::Actpass,
        "sha-256",
        &["AB"; 32].join(":"),
    )
    .unwrap();
    let content = theirs::Content::new(theirs::Creator::Initiator, theirs::ContentId("voice".to_owned()))
        .with_description(description)
        .with_transport(xmpp_parsers::jingle_ice_udp::Transport::new().with_fingerprint(fingerprint));
    let session = theirs::SessionId("sid".to_owned());
    let built = theirs::Jingle::new(theirs::Action::SessionInitiate, session).add_content(content);
    let xml = String::from(&Element::from(built));
    let ours = read(&xml);
    let Some(Description::Rtp(rtp)) = &ours.contents[0].description else { panic!("no RTP: {xml}") };
    assert_eq!((rtp.payload_types[0].name.as_str(), rtp.payload_types[0].channels, rtp.rtcp_mux), ("opus", 2, true));
    let Some(Transport::Ice(ice)) = &ours.contents[0].transport else { panic!("no ICE: {xml}") };
    assert_eq!(
        (ice.fingerprints[0].value.as_slice(), ice.fingerprints[0].setup),
        ([0xAB; 32].as_slice(), Some(Setup::Actpass))
    );
}
