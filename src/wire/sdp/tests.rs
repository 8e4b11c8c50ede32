#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
use super::*;
use crate::wire::candidate::{CandidateAddr, CandidateKind, CandidateProtocol};
use crate::wire::description::Parameter;
use proptest::prelude::*;

fn parse(text: &str) -> SessionDescription {
    SessionDescription::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// An offer of a browser, shortened.
const BROWSER: &str = "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
    a=extmap-allow-mixed\r\na=msid-semantic: WMS stream\r\nm=audio 54400 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126\r\n\
    c=IN IP4 203.0.113.7\r\na=rtcp:9 IN IP4 0.0.0.0\r\n\
    a=candidate:1467250027 1 udp 2122260223 192.168.0.196 46243 typ host generation 0 network-id 1 network-cost 10\r\n\
    a=candidate:1853887674 1 udp 1518280447 203.0.113.7 54400 typ srflx raddr 192.168.0.196 rport 46243 generation 0\r\n\
    a=candidate:435653019 1 tcp 1845501695 192.168.0.196 9 typ host tcptype active generation 0\r\n\
    a=candidate:x 1 udp 1 not-an-address 1 typ host\r\n\
    a=ice-ufrag:Oyef\r\na=ice-pwd:vKXyLmKbZDGGsGWSXm5gjHRE\r\na=ice-options:trickle renomination\r\n\
    a=fingerprint:sha-256 19:E2:1C:3B:4B:9F:81:E6:B8:5C:F4:A5:A8:D8:73:04:BB:05:2F:70:9F:04:A9:0E:05:E9:26:33:E8:70:88:A2\r\n\
    a=setup:actpass\r\na=mid:0\r\na=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
    a=extmap:3/recvonly http://example.org/x\r\na=sendrecv\r\na=msid:stream track\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
    a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n\
    a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\na=rtpmap:9 G722/8000\r\na=rtpmap:0 PCMU/8000\r\n\
    a=rtpmap:8 PCMA/8000\r\na=rtpmap:13 CN/8000\r\na=rtpmap:110 telephone-event/48000\r\n\
    a=rtpmap:126 telephone-event/8000\r\na=fmtp:126 0-16\r\na=rtcp-fb:* nack pli\r\na=rtcp-fb:* trr-int 100\r\n\
    a=ptime:20\r\na=maxptime:60.0\r\na=ssrc:1001 cname:u4vW\r\na=ssrc:1001 msid:stream track\r\na=ssrc-group:FID 1001 1002\r\n\
    m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP6 ::1\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n";

#[test]
fn the_offer_of_a_browser_is_read_whole_and_comes_back_the_same() {
    let sdp = parse(BROWSER);
    assert_eq!(sdp.groups, [Group { semantics: "BUNDLE".into(), mids: vec!["0".into()] }]);
    assert!(sdp.level.extmap_allow_mixed);
    assert_eq!(sdp.level.other("msid-semantic"), Some("WMS stream"));
    let [audio, data] = &sdp.media[..] else { panic!() };
    assert_eq!(audio.proto, Proto::DtlsSavpf);
    let ids: Vec<_> =
        audio.payload_types.iter().map(|p| (p.id, p.name.as_str(), p.clock_rate_hz, p.channels)).collect();
    assert_eq!(ids[0], (111, "opus", Some(48_000), 2));
    assert_eq!(ids[7], (126, "telephone-event", Some(8000), 1));
    let parameter = |name: &str, value: &str| Parameter { name: name.into(), value: Some(value.into()) };
    assert_eq!(audio.payload_types[0].parameters, [parameter("minptime", "10"), parameter("useinbandfec", "1")]);
    assert_eq!(audio.payload_types[7].parameters, [parameter("", "0-16")]);
    assert_eq!((audio.ptime_ms(), audio.maxptime_ms()), (Some(20), Some(60)));
    assert_eq!(audio.payload_types[3].ptime_ms, Some(20));
    assert_eq!(audio.rtcp.feedback[0].subtype.as_deref(), Some("pli"));
    assert_eq!(audio.rtcp.trr_int_ms, Some(100));
    assert!(audio.rtcp.mux && audio.rtcp.reduced_size);
    let ice = &audio.level.ice;
    assert_eq!((ice.candidates.len(), ice.malformed_candidates), (3, 1));
    assert_eq!(ice.candidates[1].kind, CandidateKind::Srflx);
    assert_eq!(ice.candidates[1].related, Some(("192.168.0.196".parse().unwrap(), 46243)));
    assert_eq!(ice.candidates[2].protocol, CandidateProtocol::Tcp);
    assert_eq!(ice.candidates[2].tcptype.as_deref(), Some("active"));
    assert_eq!(ice.candidates[0].addr, CandidateAddr::Ip("192.168.0.196".parse().unwrap()));
    assert_eq!(sdp.fingerprints_of(audio)[0].setup, Some(Setup::Actpass));
    assert_eq!(sdp.ice_creds_of(audio).unwrap().ufrag, "Oyef");
    assert_eq!(sdp.address_of(audio), Some("203.0.113.7:54400".parse().unwrap()));
    assert_eq!(audio.extensions[1].direction, Some(Direction::RecvOnly));
    assert_eq!(audio.sources[0].parameters.len(), 2);
    assert_eq!(audio.source_groups[0].sources, [1001, 1002]);
    assert_eq!((data.sctp.port, data.sctp.max_message_size), (Some(5000), Some(262_144)));
    assert_eq!(data.formats, ["webrtc-datachannel"]);
    let mut again = parse(std::str::from_utf8(&sdp.to_bytes()).unwrap());
    again.media[0].level.ice.malformed_candidates = 1;
    assert_eq!(again, sdp);
}

#[test]
fn a_plain_offer_in_lf_gives_static_payload_types_their_names() {
    let sdp = parse(
        "v=0\no=a 1 2 IN IP6 2001:db8::1\ns= \nc=IN IP6 2001:db8::1\nt=0 0\nm=audio 4000 RTP/AVP 0 8 9 13 96 0 300 x\n",
    );
    let names: Vec<_> = sdp.media[0].payload_types.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["PCMU", "PCMA", "G722", "CN", ""]);
    assert_eq!(sdp.address_of(&sdp.media[0]), Some("[2001:db8::1]:4000".parse().unwrap()));
    assert_eq!((sdp.name.as_str(), sdp.origin.version), ("-", 2));
    assert!(sdp.to_bytes().windows(2).filter(|w| w[1] == b'\n').all(|w| w[0] == b'\r'));
}

#[test]
fn the_streams_own_direction_comes_first_and_an_unspecified_address_is_a_hold() {
    let text = |c: &str, session: &str, media: &str| {
        format!(
            "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 {c}\r\nt=0 0\r\n{session}m=audio 1 RTP/AVP 0\r\n{media}"
        )
    };
    for (c, session, media, wanted) in [
        ("192.0.2.1", "", "", Direction::SendRecv),
        ("192.0.2.1", "a=inactive\r\n", "", Direction::Inactive),
        ("192.0.2.1", "a=inactive\r\n", "a=recvonly\r\n", Direction::RecvOnly),
        ("0.0.0.0", "", "", Direction::SendOnly),
        ("0.0.0.0", "", "a=recvonly\r\n", Direction::Inactive),
        ("0.0.0.0", "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\n", "", Direction::SendRecv),
    ] {
        let sdp = parse(&text(c, session, media));
        assert_eq!(sdp.direction_of(&sdp.media[0]), wanted, "{c} {session} {media}");
    }
    assert_eq!(Direction::SendOnly.reversed(), Direction::RecvOnly);
}

#[test]
fn keys_of_rfc_4568_are_read_and_a_broken_line_is_no_offer() {
    let sdp = parse(
        "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\nm=audio 1 RTP/SAVP 0\r\n\
         a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj|2^20|1:4 UNENCRYPTED_SRTCP\r\n\
         a=crypto:2 AES_CM_128_HMAC_SHA1_80\r\n",
    );
    let [crypto] = &sdp.media[0].cryptos[..] else { panic!() };
    assert_eq!((crypto.tag.as_str(), crypto.suite.as_str()), ("1", "AES_CM_128_HMAC_SHA1_80"));
    assert_eq!(crypto.key_params, "inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj|2^20|1:4");
    assert_eq!(crypto.session_params.as_deref(), Some("UNENCRYPTED_SRTCP"));
    assert!(!format!("{sdp:?}").contains("d0Rmdm"));
}

#[test]
fn what_is_no_description_is_refused() {
    const HEAD: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\n";
    for (text, why) in [
        ("", BadSdp::Version),
        ("v=1\r\n", BadSdp::Version),
        ("o=- 1 1 IN IP4 192.0.2.1\r\n", BadSdp::Version),
        ("v=0\r\ns=-\r\n", BadSdp::NoOrigin),
        ("v=0\r\no=- 1 x IN IP4 192.0.2.1\r\n", BadSdp::Value("o=")),
        ("v=0\r\no=- 1 1 IN IP4\r\n", BadSdp::Value("o=")),
        (&format!("{HEAD}x=1\r\n"), BadSdp::Line),
        (&format!("{HEAD}m =audio 1 RTP/AVP 0\r\n"), BadSdp::Line),
        (&format!("{HEAD}testing\r\n"), BadSdp::Line),
        (&format!("{HEAD}a=x\ry\r\n"), BadSdp::Line),
        (&format!("{HEAD}m=audio 65536 RTP/AVP 0\r\n"), BadSdp::Value("m=")),
        (&format!("{HEAD}m=audio 1\r\n"), BadSdp::Value("m=")),
        (&format!("{HEAD}c=IN IP4 a b\0\r\n"), BadSdp::Line),
        (&format!("{HEAD}c=ATM IP4 192.0.2.1\r\n"), BadSdp::Value("c=")),
        (&format!("{HEAD}a=fingerprint:sha-256 AB:C\r\n"), BadSdp::Value("fingerprint")),
        (&format!("{HEAD}a=setup:both\r\n"), BadSdp::Value("setup")),
        (&format!("{HEAD}{}", "a=x\r\n".repeat(2000)), BadSdp::TooLarge),
        (&format!("{HEAD}{}", "m=audio 1 RTP/AVP 0\r\n".repeat(65)), BadSdp::TooLarge),
    ] {
        assert_eq!(SessionDescription::parse(text.as_bytes()), Err(why), "{text}");
    }
}

#[test]
fn the_refusal_of_a_stream_keeps_its_place_its_formats_and_its_mid() {
    let sdp = parse(BROWSER);
    let refusal = sdp.media[1].refusal();
    assert_eq!((refusal.port, refusal.formats.len(), &refusal.media), (0, 1, &sdp.media[1].media));
    assert_eq!(sdp.media[0].refusal().mid.as_deref(), Some("0"));
}

#[test]
fn many_attributes_and_candidates_cost_bounded_memory() {
    let mut text = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\nm=audio 1 RTP/AVP 0\r\n".to_owned();
    for i in 0..900 {
        text.push_str(&format!("a=candidate:1 1 UDP {} 192.0.2.1 5000 typ host\r\na=y:{i}\r\n", i + 1));
    }
    let sdp = parse(&text);
    let level = &sdp.media[0].level;
    assert_eq!((level.ice.candidates.len(), level.ice.malformed_candidates, level.other.len()), (256, 644, 256));
}

/// Words that stand between spaces and say nothing to the grammar.
fn word() -> impl Strategy<Value = Text> {
    "[A-Za-z0-9+_.-]{1,12}".prop_map(Text::from)
}

/// Any text that a line can hold as it is.
fn text() -> impl Strategy<Value = Text> {
    "\\PC{0,20}".prop_map(|s| Text::from(s.trim()))
}

fn payload_type() -> impl Strategy<Value = PayloadType> {
    let parameter = ("[a-z-]{1,9}", "[^;\\s\\pC]{1,9}");
    (96..=127u8, "[A-Za-z0-9-]{1,12}", 8000..90_000u32, 1..3u8, proptest::collection::vec(parameter, 0..3)).prop_map(
        |(id, name, hz, channels, parameters)| PayloadType {
            id,
            name: name.into(),
            clock_rate_hz: Some(hz),
            channels,
            ptime_ms: Some(20),
            parameters: parameters
                .into_iter()
                .map(|(n, v)| Parameter { name: n.into(), value: Some(v.into()) })
                .collect(),
            ..PayloadType::default()
        },
    )
}

fn media() -> impl Strategy<Value = MediaDescription> {
    let crypto = (word(), word(), word()).prop_map(|(tag, suite, key_params)| Crypto {
        tag,
        suite,
        key_params,
        session_params: None,
    });
    (
        (0..=u16::MAX, any::<bool>(), proptest::option::of(word()), proptest::option::of(0..=u16::MAX)),
        proptest::collection::vec(payload_type(), 1..4),
        proptest::collection::vec(crypto, 0..2),
        proptest::collection::vec(("x-[a-z]{1,8}", proptest::option::of(text())), 0..3),
        proptest::option::of(any::<std::net::IpAddr>()),
        proptest::sample::select(Direction::ALL),
        (proptest::option::of(word()), proptest::collection::vec(any::<u8>(), 1..64)),
    )
        .prop_map(|((port, mux, mid, rtcp), mut payload_types, cryptos, other, ip, direction, (ufrag, digest))| {
            payload_types.dedup_by_key(|p| p.id);
            payload_types.sort_by_key(|p| p.id);
            payload_types.dedup_by_key(|p| p.id);
            let mut media = MediaDescription::rtp("audio", port, Proto::Savpf, payload_types);
            media.mid = mid;
            media.cryptos = cryptos;
            media.rtcp.mux = mux;
            media.rtcp.at = rtcp.map(|port| (port, ip));
            media.level.connection = ip.map(Host::Ip);
            media.level.direction = Some(direction);
            media.level.ice.ufrag = ufrag;
            media.level.fingerprints.push(Fingerprint { hash: "sha-256".into(), value: digest, setup: None });
            media.level.other = other.into_iter().map(|(name, value)| Attribute { name: name.into(), value }).collect();
            media
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back_the_same(
        id in any::<u64>(), version in any::<u64>(), ip in any::<std::net::IpAddr>(), name in text(),
        media in proptest::collection::vec(media(), 0..3),
    ) {
        let mut sdp = SessionDescription::new(id, version, ip);
        sdp.name = if name.is_empty() { "-".into() } else { name };
        sdp.media = media;
        prop_assert_eq!(SessionDescription::parse(&sdp.to_bytes()), Ok(sdp));
    }

    #[test]
    fn no_text_makes_a_line(texts in proptest::collection::vec("(?s).{0,30}", 12)) {
        let mut sdp = parse(BROWSER);
        let lines = |sdp: &SessionDescription| sdp.to_bytes().iter().filter(|b| **b == b'\n').count();
        let before = lines(&sdp);
        let mut texts = texts.into_iter().map(|t| Text::from(format!("{t}\r\n{t}")));
        let mut next = || texts.next().unwrap();
        sdp.name = next();
        sdp.origin.username = next();
        sdp.groups[0].mids[0] = next();
        sdp.level.other[0] = Attribute { name: next(), value: Some(next()) };
        let audio = &mut sdp.media[0];
        audio.mid = Some(next());
        audio.payload_types[0].name = next();
        audio.payload_types[0].parameters[0].value = Some(next());
        audio.level.ice.ufrag = Some(next());
        audio.level.ice.candidates[0].foundation = next();
        audio.sources[0].parameters[0].value = Some(next());
        audio.extensions[0].uri = next();
        prop_assert_eq!(lines(&sdp), before);
        prop_assert_eq!(sdp.to_bytes().iter().filter(|b| **b == b'\r').count(), before);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = SessionDescription::parse(&bytes);
    }
}
