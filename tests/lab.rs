//! The laboratory itself: two servers that federate, and what stands on them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

#[path = "common/prosody.rs"]
mod prosody;
#[path = "common/raw.rs"]
mod raw;

#[path = "common/speech.rs"]
mod speech;

use prosody::coturn::wanted;
use prosody::{Lab, STRANGER};
use raw::Raw;
use std::net::TcpStream;
use std::time::Instant;

#[test]
fn the_servers_know_their_users_federate_and_hand_out_the_relay() {
    if !wanted("the_servers_know_their_users_federate_and_hand_out_the_relay") {
        return;
    }
    let start = Instant::now();
    let lab = Lab::start();
    println!("laboratory up in {:?}", start.elapsed());
    let mut romeo = Raw::sign_in(&lab, "romeo@alpha.test");
    let mut mercutio = Raw::sign_in(&lab, "mercutio@beta.test");
    let roster = romeo.ask("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>", "</iq>");
    assert_eq!(roster.matches("subscription='both'").count(), 7, "{roster}");
    assert!(!roster.contains(STRANGER), "{roster}");
    let services = "<iq type='get' to='alpha.test' id='s'><services xmlns='urn:xmpp:extdisco:2'/></iq>";
    let services = romeo.ask(services, "</iq>");
    assert!(services.contains("turn") && services.contains(&lab.turn.addr.port().to_string()), "{services}");
    let message = "<message type='chat' to='mercutio@beta.test/raw'><body>Good morrow</body></message>";
    romeo.send(message);
    let got = mercutio.ask("<presence/>", "</body>");
    assert!(got.contains("Good morrow") && got.contains("romeo@alpha.test/raw"), "{got}");
    Raw::sign_in(&lab, &format!("{STRANGER}@{}", prosody::BETA));
    let (here, there) = lab.pair();
    assert_eq!((here.as_str(), there.as_str()), ("guest1@alpha.test", "guest1@beta.test"));
    Raw::sign_in(&lab, &there);
    let folder = lab.folder.clone();
    let ip = lab.alpha.ip;
    drop(lab);
    assert!(!folder.exists());
    assert!(TcpStream::connect((ip, 5222)).is_err(), "the server has ended");
}

#[test]
fn the_measure_of_speech_finds_a_late_drifting_copy_and_no_other_voice() {
    if !wanted("the_measure_of_speech_finds_a_late_drifting_copy_and_no_other_voice") {
        return;
    }
    let folder = std::env::temp_dir().join(format!("offhook-speech-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let [one, two] = [0, 1].map(|which| {
        let path = folder.join(format!("{which}.wav"));
        speech::speak(which, &path);
        speech::read(&path)
    });
    let start = Instant::now();
    let same = speech::likeness(&one, &one);
    println!("{same:?} in {:?}", start.elapsed());
    assert!(same.correlation > 0.999 && same.lag_ms.abs() < 1.0, "{same:?}");
    // 300 ms late, half as loud, one sample in 5000 missing: 200 ppm of drift.
    let mut late = vec![0.0; speech::RATE_HZ * 3 / 10];
    late.extend(one.iter().enumerate().filter(|(n, _)| n % 5000 != 4999).map(|(_, sample)| sample / 2.0));
    late.extend(vec![0.0; speech::RATE_HZ]);
    let late = speech::likeness(&one, &late);
    println!("{late:?}");
    assert!(late.correlation > 0.9 && (250.0..350.0).contains(&late.lag_ms), "{late:?}");
    let other = speech::likeness(&one, &two);
    println!("{other:?}");
    assert!(other.correlation < 0.5, "{other:?}");
    assert!(speech::likeness(&one, &vec![0.0; one.len()]).correlation < 0.01);
    std::fs::remove_dir_all(&folder).unwrap();
}
