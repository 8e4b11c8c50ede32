//! Whole calls between endpoints, in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "common/world.rs"]
mod world;

use offhook::endpoint::event::{EndKind, Event, Party};
use offhook::fault::ReasonCondition;
use std::time::Duration;
use world::{JULIET, Manner, World};

const SECOND: Duration = Duration::from_secs(1);

fn talks_both_ways(to: &str) {
    let mut world = World::quick(1);
    let call = world.call(0, to);
    world.run_for(3 * SECOND);
    let answered = world.clients[1].incoming().unwrap();
    for (client, id) in [(0, call), (1, answered)] {
        let heard = world.clients[client].heard(id);
        assert!(heard.frames > 100 && heard.sent > 100, "{client}: {heard:?} {:?}", world.clients[client].events);
        assert_eq!(world.clients[client].opened, 1);
    }
    world.act(0, |e, now| e.hang_up(now, call)).unwrap();
    world.run_for(SECOND);
    for (client, id) in [(0, call), (1, answered)] {
        assert_eq!(world.clients[client].end_kind(id), Some(EndKind::Completed));
        assert_eq!(world.clients[client].ends(id), 1);
        assert!(world.clients[client].sockets.is_empty());
    }
    assert_eq!(world.clients[0].ended(call).unwrap().by, Party::Local);
    assert_eq!(world.clients[1].ended(answered).unwrap().by, Party::Remote);
}

#[test]
fn a_call_to_a_person_asks_all_devices_and_talks_both_ways() {
    talks_both_ways("juliet@capulet.example");
}

#[test]
fn a_call_to_a_device_talks_both_ways() {
    talks_both_ways(JULIET);
}

fn _unused() -> (Event, ReasonCondition, Manner) {
    unreachable!()
}
