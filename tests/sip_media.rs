//! What is answered to which description: each row is an INVITE with an offer and the answer to it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm
)]

#[path = "common/phones.rs"]
mod phones;

use offhook::endpoint::telephone::{MediaPolicy, MediaSecurity};
use offhook::transport::sdes::SdesKey;
use offhook::transport::srtp::SrtpProfile;
use offhook::wire::sdp::{Direction, MediaDescription, Proto, SessionDescription};
use offhook::wire::sip::Message;
use phones::{Manner, Rng, SECOND, World, at, world};

const PRINT: &str = "a=fingerprint:sha-256 4A:02:07:07:99:B7:7A:68:95:42:E0:E5:C1:FA:79:CF:86:9A:EE:9E:C6:56:20:53:E4:99:BD:75:C5:67:84:E4\na=setup:actpass\n";
const ICE: &str =
    "a=ice-ufrag:abcd\na=ice-pwd:0123456789012345678901\na=candidate:1 1 UDP 2130706431 192.0.2.9 30000 typ host\n";

fn head(address: &str) -> String {
    format!("v=0\no=- 1 1 IN IP4 192.0.2.9\ns=-\nc=IN IP4 {address}\nt=0 0\n")
}

fn body(rest: &str) -> String {
    format!("{}{rest}", head("192.0.2.9"))
}

/// Status and description of the final answer to an INVITE with this body; the user takes every call that rings.
fn answered(policy: MediaPolicy, sdp: &str) -> (u16, Option<SessionDescription>, World) {
    let mut world = world(1, 1, move |_, telephone, config| {
        telephone.media = policy.clone();
        config.media.lab = sdp_is_lab(&policy);
    });
    let sdp = sdp.replace('\n', "\r\n");
    let invite = format!(
        "INVITE sip:phone1@192.0.2.1 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK1;rport\nMax-Forwards: 70\n\
         From: <sip:pbx@192.0.2.9>;tag=a\nTo: <sip:phone1@192.0.2.1>\nCall-ID: row\nCSeq: 1 INVITE\n\
         Contact: <sip:pbx@192.0.2.9:5060>\nContent-Type: application/sdp\nContent-Length: {}\n\n{sdp}",
        sdp.len()
    );
    world.say(at("192.0.2.9:5060"), at("192.0.2.1:5060"), &invite);
    loop {
        let (_, message) = world.next_stray().expect("an answer");
        let Message::Response(response) = message else { panic!("no response") };
        if !response.status.is_provisional() {
            let sdp = response.body_of("application/sdp").map(|body| SessionDescription::parse(body).unwrap());
            return (response.status.code(), sdp, world);
        }
    }
}

fn sdp_is_lab(policy: &MediaPolicy) -> bool {
    policy.suites.is_empty()
}

fn accepted(policy: MediaPolicy, sdp: &str) -> MediaDescription {
    let (status, sdp, _) = answered(policy, sdp);
    assert_eq!(status, 200);
    sdp.unwrap().media.into_iter().find(|m| m.port != 0).expect("an open stream")
}

fn refused(policy: MediaPolicy, sdp: &str) {
    let (status, _, world) = answered(policy, sdp);
    assert_eq!(status, 488, "{sdp}");
    assert_eq!((world.phones[0].opened, world.phones[0].datagrams), (0, 0));
}

fn auto() -> MediaPolicy {
    MediaPolicy::default()
}

fn only(security: MediaSecurity) -> MediaPolicy {
    MediaPolicy { only: Some(security), keys_in_clear: true, ..MediaPolicy::default() }
}

/// Keys may go in the clear, and everything is taken.
fn trusting() -> MediaPolicy {
    MediaPolicy { keys_in_clear: true, ..MediaPolicy::default() }
}

fn crypto(tag: u32, profile: SrtpProfile, tail: &str) -> String {
    let key = SdesKey::generate(profile).unwrap();
    format!("a=crypto:{tag} {} {}{tail}\n", profile.sdes_name(), key.key_params())
}

#[test]
fn plain_sound_is_answered_with_the_codecs_in_common() {
    let stream = accepted(auto(), &body("m=audio 30000 RTP/AVP 3 8 0 101\na=rtpmap:101 telephone-event/8000\n"));
    let ids: Vec<u8> = stream.payload_types.iter().map(|p| p.id).collect();
    assert_eq!((ids, stream.proto.clone()), (vec![8, 0, 101], Proto::Avp));
    assert_eq!(stream.level.direction, Some(Direction::SendRecv));
    assert!(stream.cryptos.is_empty() && stream.level.fingerprints.is_empty());
    assert!(!stream.rtcp.mux && stream.rtcp.at.is_none());
    assert!(stream.port.is_multiple_of(2) || stream.port > 0);
}

#[test]
fn directions_are_answered_with_their_mirror() {
    for (offered, expected) in [
        ("sendrecv", Direction::SendRecv),
        ("sendonly", Direction::RecvOnly),
        ("recvonly", Direction::SendOnly),
        ("inactive", Direction::Inactive),
    ] {
        let stream = accepted(auto(), &body(&format!("m=audio 30000 RTP/AVP 0\na={offered}\n")));
        assert_eq!(stream.level.direction, Some(expected), "{offered}");
    }
    // The old hold: nowhere to send to.
    let stream = accepted(auto(), &format!("{}m=audio 30000 RTP/AVP 0\n", head("0.0.0.0")));
    assert!(!stream.level.direction.unwrap().sends());
}

#[test]
fn rtcp_is_muxed_only_where_the_offer_says_so() {
    let stream = accepted(auto(), &body("m=audio 30000 RTP/AVP 0\na=rtcp-mux\n"));
    assert!(stream.rtcp.mux);
}

#[test]
fn other_streams_are_refused_in_their_place() {
    let offer = body(
        "a=group:BUNDLE v a\nm=video 30002 RTP/AVP 96\na=rtpmap:96 VP8/90000\na=mid:v\nm=audio 30000 RTP/AVP 0\na=mid:a\n\
         m=application 9 UDP/DTLS/SCTP webrtc-datachannel\na=mid:d\nm=audio 30004 RTP/AVP 8\na=mid:b\n",
    );
    let (status, sdp, _) = answered(auto(), &offer);
    let sdp = sdp.unwrap();
    assert_eq!((status, sdp.media.len()), (200, 4));
    let ports: Vec<bool> = sdp.media.iter().map(|m| m.port != 0).collect();
    assert_eq!(ports, [false, true, false, false]);
    assert_eq!(sdp.media[1].mid.as_deref(), Some("a"));
    assert_eq!(sdp.groups.len(), 1);
    assert_eq!(sdp.groups[0].mids.iter().map(|m| m.as_str()).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn what_cannot_be_answered_never_rings() {
    refused(auto(), &body("m=video 30000 RTP/AVP 96\na=rtpmap:96 VP8/90000\n"));
    refused(auto(), &body("m=audio 0 RTP/AVP 0\n"));
    refused(auto(), &body("m=audio 30000 RTP/AVP 3\n"));
    refused(auto(), &body("m=audio 30000 TCP/RTP/AVP 0\n"));
    refused(auto(), "v=0\no=- 1 1 IN IP4 192.0.2.9\ns=-\nc=IN IP4 media.example\nt=0 0\nm=audio 30000 RTP/AVP 0\n");
}

#[test]
fn media_is_not_sent_to_this_machine_or_to_many_at_once() {
    for address in ["127.0.0.1", "224.0.0.5", "255.255.255.255"] {
        let (status, ..) = answered(auto(), &format!("{}m=audio 30000 RTP/AVP 0\n", head(address)));
        assert_eq!(status, 488, "{address}");
    }
}

#[test]
fn keys_are_taken_over_open_signalling_only_where_that_is_allowed() {
    let offer = body(&format!("m=audio 30000 RTP/SAVP 0\n{}", crypto(7, SrtpProfile::AesCm128HmacSha1_80, "|2^31")));
    refused(auto(), &offer);
    let stream = accepted(trusting(), &offer);
    assert_eq!((stream.proto.clone(), stream.cryptos.len()), (Proto::Savp, 1));
    assert_eq!(stream.cryptos[0].tag.as_str(), "7");
    assert_eq!(stream.cryptos[0].suite.as_str(), "AES_CM_128_HMAC_SHA1_80");
    assert!(!stream.cryptos[0].key_params.contains('|'));
    assert!(!offer.contains(stream.cryptos[0].key_params.as_str()), "a key of our own");
}

#[test]
fn of_several_suites_the_best_is_taken_with_its_tag() {
    let mut lines = String::new();
    lines.push_str("a=crypto:1 F8_128_HMAC_SHA1_80 inline:AAAA\n");
    lines.push_str(&crypto(2, SrtpProfile::AesCm128HmacSha1_32, ""));
    lines.push_str(&crypto(3, SrtpProfile::AeadAes256Gcm, "|2^31|1:4"));
    lines.push_str(&crypto(4, SrtpProfile::AesCm128HmacSha1_80, ""));
    lines.push_str(&crypto(5, SrtpProfile::AesCm256HmacSha1_80, " UNENCRYPTED_SRTP"));
    let stream = accepted(trusting(), &body(&format!("m=audio 30000 RTP/SAVP 0\n{lines}")));
    assert_eq!(stream.cryptos[0].tag.as_str(), "4");
    // With a master key identifier alone there is nothing to be taken.
    let mki = crypto(1, SrtpProfile::AesCm128HmacSha1_80, "|2^31|1:4");
    refused(trusting(), &body(&format!("m=audio 30000 RTP/SAVP 0\n{mki}")));
    for profile in SrtpProfile::ALL {
        let stream = accepted(trusting(), &body(&format!("m=audio 30000 RTP/SAVP 0\n{}", crypto(1, profile, ""))));
        assert_eq!(stream.cryptos[0].suite.as_str(), profile.sdes_name());
    }
}

#[test]
fn keys_beside_plain_sound_are_taken_where_protection_is_wanted() {
    // RFC 8643
    let offer = body(&format!("m=audio 30000 RTP/AVP 0\n{}", crypto(1, SrtpProfile::AesCm128HmacSha1_80, "")));
    let stream = accepted(trusting(), &offer);
    assert_eq!((stream.proto.clone(), stream.cryptos.len()), (Proto::Avp, 1));
    let stream = accepted(auto(), &offer);
    assert_eq!((stream.proto.clone(), stream.cryptos.len()), (Proto::Avp, 0));
}

#[test]
fn dtls_is_answered_passive_with_our_certificate_and_ice_only_where_it_is_offered() {
    for (proto, expected) in [("UDP/TLS/RTP/SAVP", Proto::DtlsSavp), ("UDP/TLS/RTP/SAVPF", Proto::DtlsSavpf)] {
        for ice in ["", ICE] {
            let offer = body(&format!("m=audio 30000 {proto} 0\na=rtcp-mux\n{PRINT}{ice}"));
            let stream = accepted(auto(), &offer);
            assert_eq!(stream.proto, expected);
            assert_eq!(stream.level.setup.map(|s| s.as_str()), Some("passive"));
            assert_eq!(stream.level.fingerprints.len(), 1);
            assert_eq!(stream.level.ice.ufrag.is_some(), !ice.is_empty());
            assert_eq!(stream.level.ice.candidates.is_empty(), ice.is_empty());
            assert!(stream.rtcp.mux);
        }
    }
    // Without a certificate there is nothing to compare with.
    refused(auto(), &body("m=audio 30000 UDP/TLS/RTP/SAVPF 0\n"));
    // Fingerprint and setup may stand for the whole session.
    let offer = format!("{}{PRINT}m=audio 30000 UDP/TLS/RTP/SAVPF 0\n", head("192.0.2.9"));
    assert_eq!(accepted(auto(), &offer).proto, Proto::DtlsSavpf);
}

#[test]
fn of_two_streams_the_better_protected_one_is_taken() {
    let offer = body(&format!(
        "m=audio 30000 RTP/AVP 0\nm=audio 30002 RTP/SAVP 0\n{}m=audio 30004 UDP/TLS/RTP/SAVP 0\n{PRINT}",
        crypto(1, SrtpProfile::AesCm128HmacSha1_80, "")
    ));
    for (policy, open) in [(trusting(), 2), (only(MediaSecurity::Sdes), 1), (only(MediaSecurity::Plain), 0)] {
        let (status, sdp, _) = answered(policy, &offer);
        assert_eq!(status, 200);
        let at = sdp.unwrap().media.iter().position(|m| m.port != 0);
        assert_eq!(at, Some(open));
    }
}

#[test]
fn what_is_demanded_is_not_given_up() {
    let plain = body("m=audio 30000 RTP/AVP 0\n");
    refused(only(MediaSecurity::Dtls), &plain);
    refused(only(MediaSecurity::Sdes), &plain);
    let dtls = body(&format!("m=audio 30000 UDP/TLS/RTP/SAVP 0\n{PRINT}"));
    refused(only(MediaSecurity::Plain), &dtls);
    refused(only(MediaSecurity::Sdes), &dtls);
}

#[test]
fn a_mutated_offer_harms_nobody_and_opens_nothing_before_the_user_says_so() {
    let seeds = [
        body("m=audio 30000 RTP/AVP 0 101\na=rtpmap:101 telephone-event/8000\na=sendrecv\n"),
        body(&format!("m=audio 30000 RTP/SAVP 0\n{}", crypto(1, SrtpProfile::AesCm128HmacSha1_80, "|2^31"))),
        body(&format!(
            "a=group:BUNDLE a\nm=audio 30000 UDP/TLS/RTP/SAVPF 111\na=rtpmap:111 opus/48000/2\na=mid:a\na=rtcp-mux\n{PRINT}{ICE}"
        )),
    ];
    let mut rng = Rng(7);
    for round in 0..1_500 {
        let mut sdp = seeds[round % seeds.len()].replace('\n', "\r\n").into_bytes();
        for _ in 0..=rng.below(6) {
            let at = rng.below(sdp.len());
            match rng.below(4) {
                0 => sdp[at] = b"0123456789:/ =-|;\r\nmcao\xff"[rng.below(24)],
                1 => drop(sdp.remove(at)),
                2 => sdp.insert(at, b'9'),
                _ => {
                    let piece = sdp[at..(at + rng.below(40)).min(sdp.len())].to_vec();
                    sdp.splice(at..at, piece);
                }
            }
        }
        let mut world = world(1, round as u64, |_, telephone, _| telephone.media = trusting());
        world.phones[0].manner = if round % 2 == 0 { Manner::Accepts } else { Manner::Waits };
        let text = String::from_utf8_lossy(&sdp);
        let invite = format!(
            "INVITE sip:phone1@192.0.2.1 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK1;rport\nMax-Forwards: 70\n\
             From: <sip:pbx@192.0.2.9>;tag=a\nTo: <sip:phone1@192.0.2.1>\nCall-ID: row\nCSeq: 1 INVITE\n\
             Contact: <sip:pbx@192.0.2.9:5060>\nContent-Type: application/sdp\nContent-Length: {}\n\n",
            text.len()
        );
        world.say(at("192.0.2.9:5060"), at("192.0.2.1:5060"), &format!("{invite}{text}"));
        world.run_for(SECOND);
        let phone = &world.phones[0];
        assert!(phone.endpoint.calls().count() <= 1);
        if phone.manner == Manner::Waits {
            assert_eq!((phone.opened, phone.datagrams), (0, 0), "{text}");
        }
        world.act(0, |e, now| e.shut_down(now));
        world.run_for(SECOND);
        assert!(world.phones[0].sockets.is_empty(), "{text}");
    }
}
