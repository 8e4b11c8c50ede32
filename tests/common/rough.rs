//! What a hostile or broken network between two clients makes of their stanzas.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::indexing_slicing)]

use crate::world::{self, Rng, World};
use std::sync::{Arc, Mutex};

const ACTIONS: [&str; 15] = [
    "content-accept",
    "content-add",
    "content-modify",
    "content-reject",
    "content-remove",
    "description-info",
    "security-info",
    "session-accept",
    "session-info",
    "session-initiate",
    "session-terminate",
    "transport-accept",
    "transport-info",
    "transport-reject",
    "transport-replace",
];
const INVITES: [&str; 7] = ["propose", "ringing", "proceed", "accept", "reject", "retract", "finish"];

/// What becomes of stanzas between the clients.
#[derive(Default)]
pub struct Wire {
    rng: u64,
    rough: bool,
    /// Held back, so that later ones overtake them: receiver and text.
    pub held: Vec<(usize, String, String)>,
}

/// The same stanza, still well-formed, with something else in it.
pub fn mutate(rng: &mut Rng, xml: &str) -> String {
    let mut xml = xml.to_owned();
    match rng.below(6) {
        0 => {
            if let Some(action) = ACTIONS.iter().find(|a| xml.contains(&format!("action='{a}'"))) {
                xml = xml.replacen(&format!("action='{action}'"), &format!("action='{}'", ACTIONS[rng.below(15)]), 1);
            } else if let Some(name) = INVITES.iter().find(|n| xml.contains(&format!("<{n} "))) {
                let other = INVITES[rng.below(7)];
                xml = xml
                    .replace(&format!("<{name} "), &format!("<{other} "))
                    .replace(&format!("</{name}>"), &format!("</{other}>"));
            }
        }
        1 => xml = xml.replacen("sid='", "sid='x", 1),
        2 => xml = xml.replace("creator='initiator'", "creator='responder'"),
        3 => xml = xml.replace("ufrag='", "ufrag='y"),
        4 => {
            if let (Some(from), Some(to)) = (xml.find("<content"), xml.rfind("</content>")) {
                xml.replace_range(from..to + "</content>".len(), "");
            }
        }
        _ => {
            // One digit or letter becomes another: the stanza stays well-formed.
            let letters: Vec<usize> = xml
                .match_indices(|c: char| c.is_ascii_digit())
                .map(|(at, _)| at)
                .filter(|at| *at > xml.find('>').unwrap_or(0))
                .collect();
            if !letters.is_empty() {
                let at = letters[rng.below(letters.len())];
                xml.replace_range(at..=at, &char::from(b'0' + rng.below(10) as u8).to_string());
            }
        }
    }
    xml
}

/// From now on stanzas between clients are lost, doubled, overtaken and changed, if `rough`.
pub fn roughen(world: &mut World, seed: u64, rough: bool) -> Arc<Mutex<Wire>> {
    let wire = Arc::new(Mutex::new(Wire { rng: seed, rough, held: Vec::new() }));
    let shared = Arc::clone(&wire);
    world.tamper = Some(Box::new(move |_, to, xml| {
        let mut wire = shared.lock().unwrap();
        let mut rng = Rng(wire.rng);
        let roll = rng.below(100);
        let out = match roll {
            _ if !wire.rough => None,
            0..4 => Some(Vec::new()),
            4..9 => Some(vec![xml.to_owned(), xml.to_owned()]),
            9..14 => {
                let client = usize::from(!to.starts_with("romeo"));
                let from = world::attr(xml, "from").unwrap().to_owned();
                wire.held.push((client, from, xml.to_owned()));
                Some(Vec::new())
            }
            14..18 => Some(vec![mutate(&mut rng, xml)]),
            _ => None,
        };
        wire.rng = rng.next();
        out
    }));
    wire
}

/// Runs sequences 0 to `count` on all cores: the sum of what they give, and the first failures.
pub fn sequences(count: u64, run: impl Fn(u64) -> Result<usize, String> + Sync) -> (usize, Vec<(u64, String)>) {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let failed = Mutex::new(Vec::new());
    let sum = Mutex::new(0);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (failed, sum, run) = (&failed, &sum, &run);
            scope.spawn(move || {
                for seed in (thread..count).step_by(threads as usize) {
                    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed)));
                    match outcome.unwrap_or_else(|_| Err("panic".to_owned())) {
                        Ok(n) => *sum.lock().unwrap() += n,
                        Err(why) => {
                            failed.lock().unwrap().push((seed, why));
                            if failed.lock().unwrap().len() >= 8 {
                                return;
                            }
                        }
                    }
                }
            });
        }
    });
    (sum.into_inner().unwrap(), failed.into_inner().unwrap())
}
