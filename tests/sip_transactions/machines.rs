//! Every row of every machine of RFC 3261 §17 and RFC 6026, with exact timers.

use crate::messages::*;
use offhook::config::{SipLimits, SipTimers};
use offhook::sip::exchange::{FlowId, Origin, ServerId};
use offhook::sip::transaction::{ClientId, Path, TransactionOutput, Transactions};
use offhook::wire::sip::{Header, Message, Method, Request, Response};
use std::time::{Duration, Instant};

/// What came out, with the time in milliseconds.
#[derive(Debug, Clone, PartialEq)]
enum Out {
    Sent(Message),
    Replied(Response),
    Response(u16),
    Expired,
    Over,
    Request(ServerId, Method),
    Ack,
    Cancelled(ServerId),
    Confirmed(ServerId),
}

struct Desk {
    transactions: Transactions,
    start: Instant,
    now: Instant,
    log: Vec<(u128, Out)>,
}

impl Desk {
    fn new() -> Self {
        Self::with(SipLimits::default())
    }

    fn with(limits: SipLimits) -> Self {
        let start = Instant::now();
        let transactions = Transactions::new([7; 32], SipTimers::default(), limits, None);
        Self { transactions, start, now: start, log: Vec::new() }
    }

    fn drain(&mut self) {
        let ms = (self.now - self.start).as_millis();
        while let Some(output) = self.transactions.poll_output() {
            let out = match output {
                TransactionOutput::Send { bytes, .. } => Out::Sent(Message::parse(&bytes).unwrap()),
                TransactionOutput::Reply { bytes, .. } => match Message::parse(&bytes).unwrap() {
                    Message::Response(response) => Out::Replied(response),
                    Message::Request(_) => panic!("a request as a reply"),
                },
                TransactionOutput::Response { response, .. } => Out::Response(response.status.code()),
                TransactionOutput::TimedOut(_) => Out::Expired,
                TransactionOutput::Over(_) => Out::Over,
                TransactionOutput::Request { server, request, .. } => Out::Request(server, request.method),
                TransactionOutput::Ack(_) => Out::Ack,
                TransactionOutput::Cancelled { server, .. } => Out::Cancelled(server),
                TransactionOutput::Confirmed(server) => Out::Confirmed(server),
            };
            self.log.push((ms, out));
        }
    }

    /// Runs every timer until then, in milliseconds from the start.
    fn until(&mut self, ms: u64) {
        let end = self.start + Duration::from_millis(ms);
        while let Some((at, _)) = self.transactions.poll_timeout().filter(|(at, _)| *at <= end) {
            assert!(at >= self.now, "time runs forward");
            self.now = at;
            self.transactions.handle_timeout(at);
            self.drain();
        }
        self.now = end;
    }

    fn begin(&mut self, request: &Request, reliable: bool) -> ClientId {
        let path = Path { flow: FlowId(1), remote: at("192.0.2.2:5060"), reliable };
        let bytes = Message::Request(request.clone()).to_bytes();
        let id = self.transactions.begin(self.now, Box::new(request.clone()), bytes, path).unwrap();
        self.drain();
        id
    }

    fn response(&mut self, response: Response) {
        self.transactions.handle_response(self.now, Box::new(response), udp_from("192.0.2.2:5060"));
        self.drain();
    }

    fn request(&mut self, request: &Request, origin: Origin) {
        self.transactions.handle_request(self.now, Box::new(request.clone()), origin);
        self.drain();
    }

    fn respond(&mut self, id: ServerId, request: &Request, code: u16) {
        let to_tag = (code > 100).then(|| tag("a6c85cf"));
        let response = Response::to(request, status(code));
        self.transactions.respond(self.now, id, to_tag, Box::new(response));
        self.drain();
    }

    fn take(&mut self) -> Vec<(u128, Out)> {
        std::mem::take(&mut self.log)
    }

    /// Times at which messages went out, and what else happened.
    fn times(&mut self) -> (Vec<u128>, Vec<(u128, Out)>) {
        let (sent, rest): (Vec<_>, Vec<_>) =
            self.take().into_iter().partition(|(_, out)| matches!(out, Out::Sent(_) | Out::Replied(_)));
        (sent.into_iter().map(|(ms, _)| ms).collect(), rest)
    }

    fn new_server(&mut self, request: &Request, origin: Origin) -> ServerId {
        self.request(request, origin);
        match self.take().as_slice() {
            [(_, Out::Request(id, _))] => *id,
            other => panic!("no new transaction: {other:?}"),
        }
    }

    fn is_empty(&self) -> bool {
        let counts = self.transactions.counts();
        counts.clients == 0
            && counts.servers == 0
            && counts.open == 0
            && counts.sources == 0
            && self.transactions.poll_timeout().is_none()
    }
}

#[test]
fn an_invite_over_udp_goes_out_seven_times_and_fails_at_32_s() {
    let mut desk = Desk::new();
    desk.begin(&invite("z9hG4bK1"), false);
    desk.until(60_000);
    let (sent, rest) = desk.times();
    assert_eq!(sent, [0, 500, 1500, 3500, 7500, 15500, 31500]);
    assert_eq!(rest, [(32_000, Out::Expired), (32_000, Out::Over)]);
    assert!(desk.is_empty());
}

#[test]
fn an_invite_over_a_connection_goes_out_once_and_fails_at_32_s() {
    let mut desk = Desk::new();
    desk.begin(&invite("z9hG4bK1"), true);
    desk.until(60_000);
    assert_eq!(desk.times(), (vec![0], vec![(32_000, Out::Expired), (32_000, Out::Over)]));
    assert!(desk.is_empty());
}

#[test]
fn a_provisional_response_ends_the_repetition_of_an_invite_and_its_time_limit() {
    let mut desk = Desk::new();
    let request = invite("z9hG4bK1");
    desk.begin(&request, false);
    desk.until(700);
    desk.response(answer(&request, 100));
    desk.until(100_000);
    desk.response(answer(&request, 180));
    desk.until(3_600_000);
    let (sent, rest) = desk.times();
    assert_eq!(sent, [0, 500]);
    assert_eq!(rest, [(700, Out::Response(100)), (100_000, Out::Response(180))]);
}

#[test]
fn a_failure_of_an_invite_goes_up_once_and_each_copy_is_acknowledged_for_32_s() {
    let mut desk = Desk::new();
    let mut request = invite("z9hG4bK1");
    request.headers.route = vec![name("sip:proxy.example;lr")];
    desk.begin(&request, false);
    desk.take();
    desk.until(100);
    desk.response(answer(&request, 486));
    let (first, rest) = (desk.take(), ());
    let [(100, Out::Sent(Message::Request(ack))), (100, Out::Response(486))] = first.as_slice() else {
        panic!("{first:?} {rest:?}")
    };
    // RFC 3261 §17.1.1.3
    assert_eq!(ack.method, Method::Ack);
    assert_eq!(ack.uri, request.uri);
    assert_eq!(ack.headers.via, request.headers.via);
    assert_eq!(ack.headers.route, request.headers.route);
    assert_eq!(ack.headers.from, request.headers.from);
    assert_eq!(ack.headers.to.tag(), Some(tag("a6c85cf")));
    assert_eq!(ack.headers.call_id, request.headers.call_id);
    assert_eq!((ack.headers.cseq.number, &ack.headers.cseq.method), (314_159, &Method::Ack));
    desk.until(20_000);
    desk.response(answer(&request, 486));
    assert_eq!(desk.take(), [(20_000, Out::Sent(Message::Request(ack.clone())))]);
    // Neither a provisional nor a positive response changes anything any more.
    desk.response(answer(&request, 180));
    desk.response(answer(&request, 200));
    assert_eq!(desk.take(), []);
    desk.until(60_000);
    assert_eq!(desk.take(), [(32_100, Out::Over)]);
    assert!(desk.is_empty());
    desk.response(answer(&request, 486));
    assert_eq!(desk.take(), [], "timer D has fired");
}

#[test]
fn a_failure_over_a_connection_ends_the_invite_at_once() {
    let mut desk = Desk::new();
    let request = invite("z9hG4bK1");
    desk.begin(&request, true);
    desk.take();
    desk.response(answer(&request, 603));
    let log = desk.take();
    assert!(matches!(log.as_slice(), [(0, Out::Sent(_)), (0, Out::Response(603)), (0, Out::Over)]), "{log:?}");
    assert!(desk.is_empty());
}

#[test]
fn each_2xx_of_an_invite_goes_up_for_32_s_and_no_failure_after_it() {
    for reliable in [false, true] {
        let mut desk = Desk::new();
        let request = invite("z9hG4bK1");
        desk.begin(&request, reliable);
        desk.take();
        desk.response(answer(&request, 200));
        desk.until(500);
        desk.response(answer(&request, 200));
        // Another telephone behind the same proxy.
        let mut fork = Response::to(&request, status(200));
        fork.headers.set_to_tag(&tag("other"));
        desk.response(fork);
        desk.response(answer(&request, 486));
        desk.response(answer(&request, 180));
        desk.until(31_999);
        desk.response(answer(&request, 200));
        desk.until(32_000);
        desk.response(answer(&request, 200));
        let expected = [
            (0, Out::Response(200)),
            (500, Out::Response(200)),
            (500, Out::Response(200)),
            (31_999, Out::Response(200)),
            (32_000, Out::Over),
        ];
        assert_eq!(desk.take(), expected);
        assert!(desk.is_empty());
    }
}

#[test]
fn another_request_over_udp_goes_out_every_4_s_at_last_and_fails_at_32_s() {
    let mut desk = Desk::new();
    desk.begin(&options("z9hG4bK1"), false);
    desk.until(60_000);
    let (sent, rest) = desk.times();
    assert_eq!(sent, [0, 500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500]);
    assert_eq!(rest, [(32_000, Out::Expired), (32_000, Out::Over)]);
    desk.begin(&options("z9hG4bK2"), true);
    desk.until(120_000);
    assert_eq!(desk.times(), (vec![60_000], vec![(92_000, Out::Expired), (92_000, Out::Over)]));
    assert!(desk.is_empty());
}

#[test]
fn a_provisional_response_slows_another_request_down_but_does_not_end_its_time_limit() {
    let mut desk = Desk::new();
    let request = options("z9hG4bK1");
    desk.begin(&request, false);
    desk.until(600);
    desk.response(answer(&request, 100));
    desk.until(60_000);
    let (sent, rest) = desk.times();
    assert_eq!(sent, [0, 500, 1500, 5500, 9500, 13500, 17500, 21500, 25500, 29500]);
    assert_eq!(rest, [(600, Out::Response(100)), (32_000, Out::Expired), (32_000, Out::Over)]);
}

#[test]
fn copies_of_a_final_response_are_absorbed_for_5_s() {
    let mut desk = Desk::new();
    let request = options("z9hG4bK1");
    desk.begin(&request, false);
    desk.until(100);
    desk.response(answer(&request, 200));
    desk.response(answer(&request, 200));
    desk.until(5_099);
    desk.response(answer(&request, 404));
    desk.until(60_000);
    let (sent, rest) = desk.times();
    assert_eq!(sent, [0]);
    assert_eq!(rest, [(100, Out::Response(200)), (5_100, Out::Over)]);
    desk.begin(&options("z9hG4bK2"), true);
    desk.response(answer(&options("z9hG4bK2"), 200));
    assert_eq!(desk.times().1, [(60_000, Out::Response(200)), (60_000, Out::Over)]);
    assert!(desk.is_empty());
}

#[test]
fn responses_of_strangers_are_dropped() {
    let mut desk = Desk::new();
    let request = invite("z9hG4bK1");
    desk.begin(&request, false);
    desk.take();
    let mut strange = Vec::new();
    let mut other = answer(&request, 200);
    other.headers.via[0].branch = Some("z9hG4bK2".into());
    strange.push(other);
    // RFC 3261 §17.1.3: the method of CSeq.
    let mut other = answer(&request, 200);
    other.headers.cseq.method = Method::Cancel;
    strange.push(other);
    let mut other = answer(&request, 200);
    other.headers.cseq.number += 1;
    strange.push(other);
    // RFC 3261 §18.1.2: sent-by.
    let mut other = answer(&request, 200);
    other.headers.via[0].port = Some(5061);
    strange.push(other);
    // RFC 3261 §8.1.3.3: more than one Via.
    let mut other = answer(&request, 200);
    other.headers.via.push(via("z9hG4bK0"));
    strange.push(other);
    let mut other = answer(&request, 200);
    other.headers.via.clear();
    strange.push(other);
    for response in strange {
        desk.response(response);
        assert_eq!(desk.take(), []);
    }
    desk.response(answer(&request, 200));
    assert_eq!(desk.take(), [(0, Out::Response(200))]);
}

#[test]
fn a_cancel_has_the_branch_of_its_invite_and_gives_the_answer_32_s() {
    let mut desk = Desk::new();
    let mut request = invite("z9hG4bK1");
    request.headers.route = vec![name("sip:proxy.example;lr")];
    let id = desk.begin(&request, false);
    assert!(desk.transactions.cancel(desk.now, id, Vec::new()).is_none(), "nothing was heard of the INVITE yet");
    desk.response(answer(&request, 180));
    desk.until(1_000);
    desk.take();
    desk.transactions
        .cancel(desk.now, id, vec![Header::Subject(offhook::wire::sip::SipText::new("x"))])
        .unwrap()
        .unwrap();
    desk.drain();
    let log = desk.take();
    let [(1_000, Out::Sent(Message::Request(cancel)))] = log.as_slice() else { panic!("{log:?}") };
    // RFC 3261 §9.1
    assert_eq!(cancel.method, Method::Cancel);
    assert_eq!(cancel.headers.via, request.headers.via);
    assert_eq!(cancel.headers.route, request.headers.route);
    assert_eq!((&cancel.uri, &cancel.headers.to), (&request.uri, &request.headers.to));
    assert_eq!((cancel.headers.cseq.number, &cancel.headers.cseq.method), (314_159, &Method::Cancel));
    assert!(cancel.body.is_empty());
    // Its answer is matched by the method, as the branch is that of the INVITE.
    desk.response(answer(&cancel_of(&request), 200));
    desk.until(32_999);
    assert_eq!(desk.take(), [(1_000, Out::Response(200)), (6_000, Out::Over)]);
    desk.until(33_000);
    assert_eq!(desk.take(), [(33_000, Out::Expired), (33_000, Out::Over)]);
    assert!(desk.is_empty());
}

#[test]
fn an_invite_that_its_user_does_not_answer_is_answered_100_after_200_ms() {
    let mut desk = Desk::new();
    let request = invite("z9hG4bK1");
    let id = desk.new_server(&request, udp_from("192.0.2.1:5060"));
    desk.until(1_000);
    let log = desk.take();
    let [(200, Out::Replied(trying))] = log.as_slice() else { panic!("{log:?}") };
    assert_eq!(trying.status.code(), 100);
    assert_eq!(trying.headers.to.tag(), None);
    assert_eq!(trying.headers.via, request.headers.via);
    desk.request(&request, udp_from("192.0.2.1:5060"));
    assert_eq!(desk.take(), [(1_000, Out::Replied(trying.clone()))], "a copy is answered with the last response");
    desk.respond(id, &request, 180);
    desk.request(&request, udp_from("192.0.2.1:5060"));
    let (sent, _) = desk.times();
    assert_eq!(sent, [1_000, 1_000]);
    // None if the user was quicker.
    let request = invite("z9hG4bK2");
    let mut desk = Desk::new();
    let id = desk.new_server(&request, udp_from("192.0.2.1:5060"));
    desk.until(199);
    desk.respond(id, &request, 180);
    desk.until(10_000);
    assert_eq!(desk.times().0, [199]);
}

#[test]
fn a_failure_of_ours_is_repeated_until_32_s_or_its_ack() {
    let mut desk = Desk::new();
    let request = invite("z9hG4bK1");
    let id = desk.new_server(&request, udp_from("192.0.2.1:5060"));
    desk.respond(id, &request, 486);
    desk.until(60_000);
    let (sent, rest) = desk.times();
    assert_eq!(sent, [0, 500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500]);
    assert_eq!(rest, [(32_000, Out::Confirmed(id))]);
    assert!(desk.is_empty());

    let mut desk = Desk::new();
    let id = desk.new_server(&request, udp_from("192.0.2.1:5060"));
    desk.respond(id, &request, 486);
    desk.until(700);
    desk.request(&request, udp_from("192.0.2.1:5060"));
    desk.until(800);
    desk.request(&ack_of(&request, "a6c85cf"), udp_from("192.0.2.1:5060"));
    desk.request(&ack_of(&request, "a6c85cf"), udp_from("192.0.2.1:5060"));
    desk.request(&request, udp_from("192.0.2.1:5060"));
    desk.respond(id, &request, 200);
    desk.until(5_799);
    assert!(!desk.is_empty());
    desk.until(5_800);
    assert!(desk.is_empty());
    assert_eq!(desk.times(), (vec![0, 500, 700], vec![(800, Out::Confirmed(id))]));
}

#[test]
fn over_a_connection_a_failure_goes_out_once_and_its_ack_ends_all() {
    let mut desk = Desk::new();
    let request = invite("z9hG4bK1");
    let id = desk.new_server(&request, tcp_from("192.0.2.1:40000"));
    desk.respond(id, &request, 486);
    desk.until(10_000);
    desk.request(&ack_of(&request, "a6c85cf"), tcp_from("192.0.2.1:40000"));
    assert_eq!(desk.times(), (vec![0], vec![(10_000, Out::Confirmed(id))]));
    assert!(desk.is_empty());
    let id = desk.new_server(&request, tcp_from("192.0.2.1:40000"));
    desk.respond(id, &request, 486);
    desk.until(60_000);
    assert_eq!(desk.times(), (vec![10_000], vec![(42_000, Out::Confirmed(id))]));
}

#[test]
fn copies_of_an_invite_that_was_answered_are_absorbed_and_its_user_repeats_the_2xx_for_32_s() {
    let mut desk = Desk::new();
    let request = invite("z9hG4bK1");
    let id = desk.new_server(&request, udp_from("192.0.2.1:5060"));
    desk.respond(id, &request, 180);
    desk.respond(id, &request, 200);
    desk.until(600);
    desk.request(&request, udp_from("192.0.2.1:5060"));
    desk.respond(id, &request, 200);
    desk.respond(id, &request, 486);
    desk.respond(id, &request, 183);
    // A client that takes the branch of the INVITE for the ACK of a 2xx.
    desk.request(&ack_of(&request, "a6c85cf"), udp_from("192.0.2.1:5060"));
    desk.until(31_999);
    desk.respond(id, &request, 200);
    assert_eq!(desk.transactions.counts().servers, 1);
    desk.until(32_000);
    desk.respond(id, &request, 200);
    assert_eq!(desk.times(), (vec![0, 0, 600, 31_999], vec![(600, Out::Ack)]));
    assert!(desk.is_empty());
}

#[test]
fn copies_of_another_request_are_answered_as_far_as_its_user_did_for_32_s() {
    let mut desk = Desk::new();
    let request = options("z9hG4bK1");
    let origin = udp_from("192.0.2.1:5060");
    let id = desk.new_server(&request, origin);
    desk.request(&request, origin);
    assert_eq!(desk.take(), [], "nothing to answer with yet");
    desk.respond(id, &request, 100);
    desk.request(&request, origin);
    desk.until(1_000);
    desk.respond(id, &request, 200);
    desk.request(&request, origin);
    desk.respond(id, &request, 500);
    desk.until(32_999);
    desk.request(&request, origin);
    assert_eq!(desk.times(), (vec![0, 0, 1_000, 1_000, 32_999], vec![]));
    desk.until(33_000);
    assert!(desk.is_empty());
    // Timer J is 0 on a connection.
    let id = desk.new_server(&request, tcp_from("192.0.2.1:40000"));
    desk.respond(id, &request, 200);
    assert!(desk.is_empty());
}

#[test]
fn another_request_that_its_user_never_answers_is_forgotten_in_silence() {
    let mut desk = Desk::new();
    let request = options("z9hG4bK1");
    desk.new_server(&request, udp_from("192.0.2.1:5060"));
    desk.until(32_000);
    assert_eq!(desk.take(), []);
    assert!(desk.is_empty());
}

#[test]
fn a_branch_that_is_not_unique_is_matched_as_rfc_2543_did() {
    let mut desk = Desk::new();
    let origin = udp_from("192.0.2.1:5060");
    for branch in [Some("1"), None] {
        let mut first = invite("1");
        first.headers.via[0].branch = branch.map(Into::into);
        let mut second = first.clone();
        second.headers.call_id = offhook::wire::sip::CallId::new("another").unwrap();
        let id = desk.new_server(&first, origin);
        let other = desk.new_server(&second, origin);
        assert_ne!(id, other);
        desk.respond(id, &first, 486);
        desk.request(&first, origin);
        assert_eq!(desk.times().0.len(), 2, "the copy is known");
        // The ACK has the To tag of the response.
        desk.request(&ack_of(&first, "wrong"), origin);
        assert!(!desk.take().contains(&((desk.now - desk.start).as_millis(), Out::Confirmed(id))));
        desk.request(&ack_of(&first, "a6c85cf"), origin);
        assert_eq!(desk.times().1, [((desk.now - desk.start).as_millis(), Out::Confirmed(id))]);
        desk.request(&cancel_of(&second), origin);
        let log = desk.take();
        assert!(matches!(log.as_slice(), [(_, Out::Replied(ok)), (_, Out::Cancelled(id))]
            if ok.status.code() == 200 && *id == other));
        desk.respond(other, &second, 487);
        desk.until((desk.now - desk.start).as_millis() as u64 + 40_000);
        desk.take();
    }
    assert!(desk.is_empty());
}

#[test]
fn a_cancel_is_answered_and_told_once_and_a_late_one_only_answered() {
    let mut desk = Desk::new();
    let request = invite("z9hG4bK1");
    let origin = udp_from("192.0.2.1:5060");
    let id = desk.new_server(&request, origin);
    desk.respond(id, &request, 180);
    desk.take();
    for copy in 0..3 {
        desk.request(&cancel_of(&request), origin);
        let log = desk.take();
        let Out::Replied(ok) = &log[0].1 else { panic!("{log:?}") };
        assert_eq!((ok.status.code(), &ok.headers.cseq.method), (200, &Method::Cancel));
        // RFC 3261 §9.2: the To tag of the response to the INVITE.
        assert_eq!(ok.headers.to.tag(), Some(tag("a6c85cf")));
        assert_eq!(log.get(1).map(|(_, out)| out.clone()), (copy == 0).then_some(Out::Cancelled(id)));
    }
    desk.respond(id, &request, 487);
    desk.request(&cancel_of(&request), origin);
    assert_eq!(desk.times().1, [], "late: it has no effect");
    desk.until(60_000);
    desk.take();

    let id = desk.new_server(&request, origin);
    desk.respond(id, &request, 200);
    desk.take();
    desk.request(&cancel_of(&request), origin);
    let log = desk.take();
    assert!(matches!(log.as_slice(), [(_, Out::Replied(ok))] if ok.status.code() == 200), "{log:?}");
}

#[test]
fn a_cancel_without_an_invite_is_answered_481() {
    let mut desk = Desk::new();
    desk.request(&cancel_of(&invite("z9hG4bK1")), udp_from("192.0.2.1:5060"));
    let log = desk.take();
    let [(0, Out::Replied(response))] = log.as_slice() else { panic!("{log:?}") };
    assert_eq!(response.status.code(), 481);
    assert!(response.headers.to.tag().is_some());
    assert!(desk.is_empty());
}

#[test]
fn the_same_request_by_another_way_is_answered_482() {
    let mut desk = Desk::new();
    let first = invite("z9hG4bK1");
    let origin = udp_from("192.0.2.1:5060");
    let id = desk.new_server(&first, origin);
    let second = invite("z9hG4bK2");
    desk.request(&second, origin);
    let log = desk.take();
    let [(0, Out::Replied(refusal))] = log.as_slice() else { panic!("{log:?}") };
    assert_eq!(refusal.status.code(), 482);
    // The ACK of an answer that left nothing behind is known again.
    let refused = refusal.headers.to.tag().unwrap();
    desk.request(&ack_of(&second, refused.as_str()), origin);
    assert_eq!(desk.take(), []);
    // A stray ACK is not.
    desk.request(&ack_of(&second, "stray"), origin);
    assert_eq!(desk.take(), [(0, Out::Ack)]);
    // Inside a dialog there is no such rule (RFC 3261 §8.2.2.2): CSeq is looked at there.
    let mut inside = invite("z9hG4bK3");
    inside.headers.set_to_tag(&tag("a6c85cf"));
    desk.new_server(&inside, origin);
    let mut inside = invite("z9hG4bK4");
    inside.headers.set_to_tag(&tag("a6c85cf"));
    desk.new_server(&inside, origin);
    desk.respond(id, &first, 486);
    desk.request(&invite("z9hG4bK5"), origin);
    let (sent, rest) = desk.times();
    assert_eq!((sent.len(), rest), (2, vec![]), "it is the same request until its transaction has ended");
}

#[test]
fn past_the_bound_requests_are_answered_503_and_forgotten() {
    let limits = SipLimits { open_per_source: 3, open: 8, ..SipLimits::default() };
    let mut desk = Desk::with(limits);
    let flood = |n: u32| request(Method::Invite, &format!("z9hG4bK{n}"), &format!("flood-{n}"), 1);
    let origin = udp_from("198.51.100.1:5060");
    for n in 0..3 {
        desk.new_server(&flood(n), origin);
    }
    for n in 3..100 {
        desk.request(&flood(n), origin);
        let log = desk.take();
        let [(0, Out::Replied(refusal))] = log.as_slice() else { panic!("{log:?}") };
        assert_eq!(refusal.status.code(), 503);
        assert_eq!(refusal.headers.retry_after(), Some(32));
        desk.request(&ack_of(&flood(n), refusal.headers.to.tag().unwrap().as_str()), origin);
        assert_eq!(desk.take(), []);
    }
    // The calls that stand with the same address go on, and so do others'.
    let mut bye = request(Method::Bye, "z9hG4bKbye", "standing", 2);
    bye.headers.set_to_tag(&tag("ours"));
    desk.new_server(&bye, origin);
    let id = desk.new_server(&request(Method::Invite, "z9hG4bKhonest", "honest", 1), udp_from("192.0.2.1:5060"));
    assert_eq!(desk.transactions.counts().servers, 5);
    // The fourth of all is the last one outside dialogs.
    desk.request(&request(Method::Invite, "z9hG4bKnext", "next", 1), udp_from("192.0.2.3:5060"));
    assert!(matches!(&desk.take()[..], [(0, Out::Replied(refusal))] if refusal.status.code() == 503));
    // What is answered with success is not part of the flood any more.
    desk.respond(id, &request(Method::Invite, "z9hG4bKhonest", "honest", 1), 200);
    desk.take();
    desk.new_server(&request(Method::Invite, "z9hG4bKnext", "next", 1), udp_from("192.0.2.3:5060"));
}

#[test]
fn past_the_bound_on_ours_nothing_is_sent() {
    let mut desk = Desk::with(SipLimits { outgoing: 1, ..SipLimits::default() });
    desk.begin(&options("z9hG4bK1"), false);
    desk.take();
    let path = Path { flow: FlowId(1), remote: at("192.0.2.2:5060"), reliable: false };
    assert!(desk.transactions.begin(desk.now, Box::new(options("z9hG4bK2")), vec![], path).is_err());
    desk.drain();
    assert_eq!(desk.take(), []);
}

#[test]
fn a_request_whose_flow_is_gone_ends_at_once() {
    let mut desk = Desk::new();
    let id = desk.begin(&options("z9hG4bK1"), false);
    assert_eq!(desk.transactions.on_flow(FlowId(1)).collect::<Vec<_>>(), [id]);
    desk.take();
    assert!(desk.transactions.abandon(id));
    desk.drain();
    assert_eq!(desk.take(), [(0, Out::Over)]);
    assert!(desk.is_empty());
    assert!(!desk.transactions.abandon(id));
}
