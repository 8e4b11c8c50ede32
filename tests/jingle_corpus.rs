//! Every Jingle and JMI example of the XEPs, and our own fixtures for what they lack, read as they mean and come back
//! the same after being written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use offhook::config::XmlLimits;
use offhook::fault::{JingleCondition, Malformed, ReasonCondition};
use offhook::wire::candidate::{CandidateAddr, CandidateKind, CandidateProtocol, IceTransport, Setup, Transport};
use offhook::wire::description::{Description, FileDescription, HashAlgo, Info, RtpDescription};
use offhook::wire::jingle::{Action, Creator, Jingle, Jmi, JmiKind, Senders, read_error_condition};
use offhook::wire::ns;
use offhook::wire::xml::{Reader, Writer};
use std::path::{Path, PathBuf};

fn corpus() -> PathBuf {
    std::env::var_os("OFFHOOK_CORPUS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus"), PathBuf::from)
        .join("xep")
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/jingle").join(format!("{name}.xml"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What stands inside a stanza.
#[derive(Debug, PartialEq)]
enum Found {
    Jingle(Box<Jingle>),
    Jmi(Box<Jmi>),
}

fn read(xml: &str) -> Result<Vec<Found>, Malformed> {
    let mut found = Vec::new();
    let mut r = Reader::new(xml, ns::CLIENT, &XmlLimits::default())?;
    if r.is(ns::JINGLE, "jingle") {
        found.push(Found::Jingle(Box::new(Jingle::read(&mut r)?)));
    } else {
        r.children(|r| {
            if r.is(ns::JINGLE, "jingle") {
                found.push(Found::Jingle(Box::new(Jingle::read(r)?)));
            } else if Jmi::is_next(r) {
                found.push(Found::Jmi(Box::new(Jmi::read(r)?)));
            }
            Ok(())
        })?;
    }
    r.finish()?;
    Ok(found)
}

fn written(found: &Found) -> String {
    let mut out = String::new();
    match found {
        Found::Jingle(j) => j.write(&mut Writer::new(&mut out)),
        Found::Jmi(j) => {
            out.push_str("<message>");
            j.write(&mut Writer::new(&mut out));
            out.push_str("</message>");
        }
    }
    out
}

fn jingle(xml: &str) -> Jingle {
    match read(xml).unwrap_or_else(|e| panic!("{e}: {xml}")).pop() {
        Some(Found::Jingle(j)) => *j,
        other => panic!("{other:?}"),
    }
}

fn jmi(xml: &str) -> Jmi {
    match read(xml).unwrap_or_else(|e| panic!("{e}: {xml}")).pop() {
        Some(Found::Jmi(j)) => *j,
        other => panic!("{other:?}"),
    }
}

fn ice(jingle: &Jingle) -> &IceTransport {
    match &jingle.contents[0].transport {
        Some(Transport::Ice(ice)) => ice,
        other => panic!("{other:?}"),
    }
}

fn rtp(jingle: &Jingle) -> &RtpDescription {
    match &jingle.contents[0].description {
        Some(Description::Rtp(rtp)) => rtp,
        other => panic!("{other:?}"),
    }
}

/// Examples that are not whole, and why.
const NOT_WHOLE: &[(&str, &str)] = &[
    ("XEP-0293-ex05.xml", "no action"),
    ("XEP-0298-code01.xml", "no action"),
    ("XEP-0298-code02.xml", "no action"),
    ("XEP-0338-code05.xml", "contents are an ellipsis"),
    ("XEP-0370-ex01.xml", "no sid"),
    ("XEP-0396-ex01.xml", "holds an XML comment"),
];

/// Examples that are read but not in every part, and why.
const NOT_ALL: &[(&str, &str)] = &[
    ("XEP-0343-ex01.xml", "the value of its sha-1 is no SHA-1 digest"),
    ("XEP-0343-ex04.xml", "the value of its sha-1 is no SHA-1 digest"),
    ("XEP-0370-ex02.xml", "Jingle HTTP transport"),
    ("XEP-0370-ex04.xml", "Jingle HTTP transport"),
    ("XEP-0370-ex06.xml", "Jingle HTTP transport"),
    ("XEP-0370-ex07.xml", "Jingle HTTP transport"),
    ("XEP-0370-ex09.xml", "Jingle HTTP transport"),
];

/// The elements that reading must not lose, counted in a value.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    candidates: usize,
    payload_types: usize,
    parameters: usize,
    fingerprints: usize,
    feedback: usize,
    hashes: usize,
}

impl Counts {
    /// By text, in the examples' own spelling.
    fn of_text(xml: &str) -> Self {
        let n = |tag: &str| {
            xml.match_indices(tag).filter(|(at, _)| xml[at + tag.len()..].starts_with([' ', '\n', '/', '>'])).count()
        };
        Self {
            candidates: n("<candidate"),
            payload_types: n("<payload-type"),
            parameters: n("<parameter"),
            fingerprints: n("<fingerprint"),
            feedback: n("<rtcp-fb"),
            hashes: n("<hash"),
        }
    }

    fn file(&mut self, file: &FileDescription) {
        self.hashes += file.hashes.len() + file.range.as_ref().map_or(0, |r| r.hashes.len());
    }

    fn of(jingle: &Jingle) -> Self {
        let mut n = Self::default();
        for content in &jingle.contents {
            match &content.transport {
                Some(Transport::Ice(ice)) => {
                    n.candidates += ice.candidates.len() + ice.malformed_candidates;
                    n.fingerprints += ice.fingerprints.len();
                }
                Some(Transport::RawUdp(raw)) => n.candidates += raw.len(),
                Some(Transport::S5b(s5b)) => n.candidates += s5b.candidates.len(),
                Some(Transport::Ibb(_) | Transport::Unknown { .. }) | None => {}
            }
            match &content.description {
                Some(Description::Rtp(rtp)) => {
                    n.payload_types += rtp.payload_types.len();
                    n.feedback += rtp.rtcp_fb.len();
                    for pt in &rtp.payload_types {
                        n.parameters += pt.parameters.len();
                        n.feedback += pt.rtcp_fb.len();
                    }
                    n.parameters += rtp.sources.iter().map(|s| s.parameters.len()).sum::<usize>();
                }
                Some(Description::File(file)) => n.file(file),
                Some(Description::Unknown { .. }) | None => {}
            }
        }
        if let Some(Info::Checksum(_, _, file)) = &jingle.info {
            n.file(file);
        }
        n
    }
}

/// Takes out what the writer completes: a missing id or network, and the count of what could not be read.
fn normal(found: &mut Found) {
    let Found::Jingle(jingle) = found else { return };
    for content in &mut jingle.contents {
        match &mut content.transport {
            Some(Transport::Ice(ice)) => {
                ice.malformed_candidates = 0;
                for c in &mut ice.candidates {
                    c.id = None;
                    c.network = c.network.or(Some(0));
                }
            }
            Some(Transport::S5b(s5b)) => s5b.malformed_candidates = 0,
            Some(Transport::RawUdp(_) | Transport::Ibb(_) | Transport::Unknown { .. }) | None => {}
        }
    }
}

#[test]
fn every_jingle_and_jmi_example_is_read_and_comes_back_the_same() {
    let manifest = std::fs::read_to_string(corpus().join("MANIFEST.tsv")).expect("the corpus, see OFFHOOK_CORPUS");
    let (mut jingles, mut jmis, mut faults) = (0, 0, Vec::new());
    for file in manifest.lines().skip(1).filter_map(|l| l.split('\t').next()).filter(|f| f.ends_with(".xml")) {
        let xml = std::fs::read_to_string(corpus().join(file)).unwrap();
        if !xml.contains("<jingle ") && !xml.contains("urn:xmpp:jingle-message:") {
            continue;
        }
        let found = match read(&xml) {
            Ok(found) => found,
            Err(e) => {
                if !NOT_WHOLE.iter().any(|(name, _)| *name == file) {
                    faults.push(format!("{file}: {e}"));
                }
                continue;
            }
        };
        for one in found {
            match &one {
                Found::Jingle(j) => {
                    jingles += 1;
                    assert!(xml.contains(&format!("action='{}'", j.action)), "{file}");
                    assert!(xml.contains(&format!("sid='{}'", j.sid)), "{file}");
                    let (text, value) = (Counts::of_text(&xml), Counts::of(j));
                    if text != value && !NOT_ALL.iter().any(|(name, _)| *name == file) {
                        faults.push(format!("{file}:\n  text  {text:?}\n  value {value:?}"));
                    }
                    assert_eq!(j.reason.is_some(), xml.contains("<reason"), "{file}");
                }
                Found::Jmi(_) => jmis += 1,
            }
            let out = written(&one);
            let mut again = read(&out).unwrap();
            assert_eq!(written(&again[0]), out, "{file}");
            let mut one = one;
            normal(&mut one);
            normal(&mut again[0]);
            assert_eq!(again, [one], "{file}: {out}");
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(jingles >= 130 && jmis >= 14, "{jingles} jingle, {jmis} jmi");
}

fn example(name: &str) -> String {
    std::fs::read_to_string(corpus().join(format!("XEP-{name}.xml"))).expect("the corpus, see OFFHOOK_CORPUS")
}

#[test]
fn the_examples_mean_what_they_say() {
    let j = jingle(&example("0166-ex22"));
    let reason = j.reason.unwrap();
    assert_eq!((reason.condition, reason.alternative.unwrap().0.as_str()), {
        (ReasonCondition::AlternativeSession, "b84tkkwlmb48kgfb")
    });
    // J166-23 says nothing of the order of words in a namespace: 0166 example 30 swaps them.
    assert_eq!(jingle(&example("0166-ex30")).info, Some(Info::Ringing));
    assert_eq!(jingle(&example("0166-ex32")).info, None);
    assert_eq!(jingle(&example("0166-ex36")).contents[0].security.as_deref(), Some("urn:xmpp:jingle:security:xtls:0"));

    let j = jingle(&example("0167-ex01"));
    assert_eq!(j.initiator.as_ref().map(ToString::to_string).as_deref(), Some("romeo@montague.lit/orchard"));
    let pts: Vec<_> = rtp(&j).payload_types.iter().map(|p| (p.id, p.name.as_str(), p.channels)).collect();
    assert_eq!(pts[..3], [(96, "speex", 1), (97, "speex", 1), (18, "G729", 1)]);
    assert_eq!(pts[4], (103, "L16", 2));
    let c = &ice(&j).candidates[1];
    assert_eq!((c.kind, c.port, c.related), {
        (CandidateKind::Srflx, 45664, Some(("10.0.1.1".parse().unwrap(), 8998)))
    });
    assert_eq!(
        jingle(&example("0167-ex05")).reason.unwrap().detail,
        Some((ns::RTP_ERRORS.to_owned(), "invalid-crypto".to_owned()))
    );
    assert_eq!(jingle(&example("0167-ex08")).info, Some(Info::Active));
    assert_eq!(jingle(&example("0167-ex09")).info, Some(Info::Hold));

    // J176-04: its only candidate has a priority above 32 bits.
    for name in ["0176-ex05", "0371-ex05"] {
        let j = jingle(&example(name));
        assert_eq!((ice(&j).candidates.len(), ice(&j).malformed_candidates), (0, 1), "{name}");
    }
    let j = jingle(&example("0371-ex04"));
    assert!(ice(&j).ice2);
    assert_eq!(ice(&j).remote_candidates[1], (2, "10.0.1.2".to_owned(), 9002));
    assert!(ice(&jingle(&example("0371-ex17"))).gathering_complete);
    assert_eq!(ice(&jingle(&example("0320-ex01"))).fingerprints[0].setup, Some(Setup::Actpass));

    let j = jingle(&example("0234-ex16"));
    assert_eq!(j.contents[0].senders, Some(Senders::Initiator));
    let Some(Description::File(file)) = &j.contents[0].description else { panic!("no file") };
    assert_eq!((file.size, file.hash_used, file.hashes.len()), (Some(6144), Some(HashAlgo::Sha1), 0));
    let Some(Info::Checksum(Creator::Initiator, name, file)) = jingle(&example("0234-ex15")).info else {
        panic!("no checksum")
    };
    let range = file.range.unwrap();
    assert_eq!((name.as_str(), range.offset, range.length, range.hashes.len()), ("a-file-offer", 2048, Some(1024), 1));
    let j = jingle(&fixture("modify-without-senders"));
    assert_eq!((j.action, j.contents[0].senders), (Action::ContentModify, None));
    let j = jingle(&example("0343-ex01"));
    assert_eq!((ice(&j).sctp.as_ref().unwrap().port, j.contents[0].senders), (5000, Some(Senders::Initiator)));
    let Some(Transport::S5b(s5b)) = &jingle(&example("0260-ex01")).contents[0].transport else { panic!("no s5b") };
    assert_eq!(s5b.candidates.len(), 3);
    assert!(s5b.dstaddr.is_some());

    let migrated = jmi(&example("0353-ex12d"));
    let JmiKind::Finish { reason, migrated: Some(to) } = migrated.kind else { panic!("not migrated") };
    assert_eq!(reason.unwrap().condition, ReasonCondition::Expired);
    assert_eq!(to.0, "989a46a6-f202-4910-a7c3-83c6ba3f3947");
}

#[test]
fn what_chromium_sends_is_read() {
    let j = jingle(&fixture("chromium-initiate"));
    let rtp = rtp(&j);
    assert_eq!(rtp.payload_types.len(), 8);
    let red = &rtp.payload_types[1];
    assert_eq!(
        (red.name.as_str(), red.parameters[0].name.as_str(), &red.parameters[0].value),
        ("red", "111/111", &None)
    );
    assert!(rtp.rtcp_mux && rtp.rtcp_reduced_size && rtp.header_extensions.len() == 3);
    assert_eq!((rtp.sources[0].ssrc, rtp.sources[0].parameters.len()), (2_812_504_731, 2));
    assert_eq!((ice(&j).candidates.len(), ice(&j).fingerprints[0].value.len()), (0, 32));
    assert_eq!((j.groups[0].semantics.as_str(), j.groups[0].names[0].as_str()), ("BUNDLE", "0"));

    for (name, protocol, mdns) in [
        ("chromium-candidate", CandidateProtocol::Udp, false),
        ("chromium-candidate-mdns", CandidateProtocol::Udp, true),
        ("chromium-candidate-tcp", CandidateProtocol::Tcp, false),
        ("chromium-candidate-srflx", CandidateProtocol::Udp, false),
    ] {
        let j = jingle(&fixture(name));
        let ice = ice(&j);
        assert_eq!((ice.ufrag.as_deref(), &ice.pwd, ice.candidates.len()), (Some("sYb2"), &None, 1), "{name}");
        let c = &ice.candidates[0];
        assert_eq!((c.protocol, &c.id, c.network, c.generation), (protocol, &None, None, 0), "{name}");
        assert_eq!(matches!(c.addr, CandidateAddr::Mdns(_)), mdns, "{name}");
    }
    assert!(ice(&jingle(&fixture("gathering-complete"))).gathering_complete);
    let j = jingle(&fixture("chromium-file-initiate"));
    let Some(Description::File(file)) = &j.contents[0].description else { panic!("no file") };
    assert_eq!((file.size, file.hash_used, ice(&j).sctp.as_ref().unwrap().port), (Some(0), Some(HashAlgo::Sha1), 5000));
    assert!(matches!(jingle(&fixture("file-checksum")).info, Some(Info::Checksum(..))));
}

#[test]
fn what_minimal_and_old_peers_send_is_read() {
    let j = jingle(&fixture("minimal-accept"));
    assert!(j.groups.is_empty() && rtp(&j).header_extensions.is_empty() && rtp(&j).rtcp_mux);
    assert_eq!(ice(&j).candidates.iter().map(|c| c.component).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(ice(&j).fingerprints[0].setup, Some(Setup::Active));

    let j = jingle(&fixture("motif-initiate"));
    assert_eq!((ice(&j).creds(), ice(&j).candidates.len(), rtp(&j).rtcp_mux), (None, 0, false));
    let j = jingle(&fixture("motif-transport-info"));
    assert_eq!((j.contents[0].creator, ice(&j).candidates.len()), (Creator::Responder, 2));
    assert!(ice(&j).creds().is_some());
    assert_eq!(jingle(&fixture("motif-empty-name")).contents[0].name, "");
    assert_eq!(jingle(&fixture("motif-terminate")).action, Action::SessionTerminate);
}

#[test]
fn what_the_corpus_lacks_is_read() {
    let j = jingle(&fixture("transport-reject"));
    assert_eq!((j.action, j.reason.unwrap().condition), {
        (Action::TransportReject, ReasonCondition::UnsupportedTransports)
    });
    for condition in [ReasonCondition::ConnectivityError, ReasonCondition::GeneralError, ReasonCondition::Gone] {
        let reason = jingle(&fixture(&format!("reason-{condition}"))).reason.unwrap();
        assert_eq!((reason.condition, reason.text.unwrap()), (condition, format!("{condition} for people")));
    }
    let condition = |name| jingle(&fixture(name)).reason.map(|r| r.condition);
    assert_eq!(condition("reason-empty-namespace"), Some(ReasonCondition::Busy));
    assert_eq!(condition("reason-without-condition"), Some(ReasonCondition::GeneralError));
    assert_eq!(jingle(&fixture("ringing-other-namespace")).info, Some(Info::Ringing));
    assert_eq!(jingle(&fixture("dtmf")).info, Some(Info::Dtmf('7')));
    assert_eq!(jingle(&fixture("creator-missing")).contents[0].creator, Creator::Initiator);
    let Some(Transport::RawUdp(raw)) = &jingle(&fixture("raw-udp-without-component")).contents[0].transport else {
        panic!("not raw-udp")
    };
    assert_eq!(raw[0].component, 1);
    let j = jingle(&fixture("candidate-priority-too-large"));
    assert_eq!((ice(&j).candidates.len(), ice(&j).malformed_candidates), (1, 1));
    assert_eq!(ice(&jingle(&fixture("fingerprint-white-space"))).fingerprints[0].value.len(), 32);
    let j = jingle(&fixture("bundle-video"));
    assert_eq!((j.groups[0].names.len(), rtp(&j).source_groups[0].sources.len()), (2, 2));

    let mut r =
        Reader::new(include_str!("fixtures/jingle/error-out-of-order.xml"), ns::CLIENT, &XmlLimits::default()).unwrap();
    let mut found = None;
    r.children(|r| {
        r.children(|r| {
            found = found.or(read_error_condition(r));
            Ok(())
        })
    })
    .unwrap();
    assert_eq!(found, Some(JingleCondition::OutOfOrder));
}

#[test]
fn jmi_of_every_age_is_read() {
    let JmiKind::Propose(proposed) = jmi(&fixture("jmi-propose-two")).kind else { panic!("no propose") };
    let media: Vec<_> = proposed.iter().map(|p| p.media.as_deref()).collect();
    assert_eq!(media, [Some("audio"), Some("video")]);
    let JmiKind::Reject { reason: Some(reason), tie_break: true } = jmi(&fixture("jmi-reject-tie-break")).kind else {
        panic!("no tie-break")
    };
    assert_eq!(reason.condition, ReasonCondition::Expired);
    let retract = jmi(&fixture("jmi-retract-tie-break")).kind;
    assert!(matches!(retract, JmiKind::Retract { reason: Some(_), tie_break: true }));
    assert_eq!(jmi(&fixture("jmi-accept-0.3")).kind, JmiKind::Accept);
    assert_eq!(jmi(&fixture("jmi-proceed-1")).kind, JmiKind::Proceed);
    assert_eq!(jmi(&fixture("jmi-proceed-extended")).kind, JmiKind::Proceed);
    let finish = jmi(&fixture("jmi-finish-migrated")).kind;
    assert!(matches!(finish, JmiKind::Finish { migrated: Some(to), .. } if to.0 == "new-id"));
}

#[test]
fn what_cannot_be_resolved_is_malformed_and_leaves_the_stream_alone() {
    for name in [
        "bad-no-sid",
        "bad-unknown-action",
        "bad-empty-offer",
        "bad-content-without-name",
        "bad-no-media",
        "bad-fingerprint",
    ] {
        let fault = read(&fixture(name)).unwrap_err();
        assert!(!fault.ends_stream(), "{name}: {fault}");
    }
}

#[test]
fn every_fixture_comes_back_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut files = 0;
    for folder in ["jingle", "call"].map(|f| folder.join(f)) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let Ok(found) = read(&std::fs::read_to_string(&path).unwrap()) else {
                assert!(path.file_name().unwrap().to_string_lossy().starts_with("bad-"), "{}", path.display());
                continue;
            };
            for one in found {
                let out = written(&one);
                assert_eq!(written(&read(&out).unwrap()[0]), out, "{}", path.display());
                files += 1;
            }
        }
    }
    assert!(files >= 40, "{files}");
}
