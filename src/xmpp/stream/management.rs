//! What XEP-0198 adds to a stream: what was acknowledged, what is sent again, whether the other end is alive. Read
//! XEP-0198 §4 to §6 and XEP-0199 §4.2 before touching this file.

use super::super::resume::{TooHigh, Unacked};
use super::{State, Stream, StreamEvent, StreamFault};
use crate::wire::jid::{BareJid, Jid};
use crate::wire::ns;
use crate::wire::stanza::{Iq, IqKind, IqPayload, Stanza};
use crate::wire::stream::StreamElement;
use crate::wire::xml::Writer;
use std::time::Instant;

impl Stream {
    pub(super) fn resumed(&mut self, now: Instant, h: u32) {
        let (Some(sm), Some(jid)) = (&mut self.sm, self.jid.clone()) else { return self.unexpected() };
        match sm.resumed(now, h) {
            Ok((acked, again)) => {
                self.online(now, jid, true);
                self.events.extend(acked.into_iter().map(|id| StreamEvent::Acked { id }));
                again.iter().for_each(|text| self.pipe.text(text));
                self.send_waiting(now);
            }
            Err(fault) => self.too_high(fault),
        }
    }

    pub(super) fn send_waiting(&mut self, now: Instant) {
        self.waiting_bytes = 0;
        for stanza in std::mem::take(&mut self.waiting) {
            self.transmit(now, stanza);
        }
    }

    pub(super) fn transmit(&mut self, now: Instant, stanza: Unacked) {
        self.pipe.text(&stanza.text);
        if let Some(sm) = &mut self.sm {
            sm.sent(now, stanza, self.config.timers.ack_request);
        }
    }

    pub(super) fn acked(&mut self, now: Instant, h: u32) {
        let Some(sm) = &mut self.sm else { return };
        match sm.ack(now, h, self.config.timers.ack_request) {
            Ok(ids) => {
                self.timers.reply = None;
                self.events.extend(ids.into_iter().map(|id| StreamEvent::Acked { id }));
            }
            Err(fault) => self.too_high(fault),
        }
    }

    /// XEP-0198 §4: "undefined-condition" with the counts beside it.
    pub(super) fn too_high(&mut self, fault: TooHigh) {
        let mut text = String::new();
        let mut w = Writer::new(&mut text);
        w.start("stream:error").start_ns("undefined-condition", ns::STREAMS).end("undefined-condition");
        w.start_ns("handled-count-too-high", ns::SM).attr_number("h", fault.h);
        w.attr_number("send-count", fault.send_count).end("handled-count-too-high").end("stream:error");
        self.pipe.text(&text);
        self.pipe.end();
        self.forget_session(None);
        self.lose(StreamFault::HandledCountTooHigh);
    }

    pub(super) fn request_ack(&mut self, now: Instant) {
        let every = self.config.limits.ack_every;
        if matches!(self.state, State::Online) && self.sm.as_ref().is_some_and(|sm| sm.wants_request(now, every)) {
            self.send_request(now);
        }
    }

    pub(super) fn send_request(&mut self, now: Instant) {
        if let Some(sm) = &mut self.sm {
            sm.requested();
            self.pipe.element(&StreamElement::SmRequest);
            self.timers.reply = Some(now + self.config.timers.reply);
        }
    }

    /// Silence: asks for a sign of life, with `<r/>` where there is stream management, else with a ping (XEP-0199 §4.2).
    pub(super) fn check_liveness(&mut self, now: Instant) {
        self.timers.idle = None;
        match &self.sm {
            Some(sm) if sm.is_pending() => {}
            Some(_) => self.send_request(now),
            None => {
                let id = self.next_id();
                let domain = Jid::from(BareJid::from_parts(None, self.config.jid.domain()));
                let ping = Iq::new(Some(domain), id.clone(), IqKind::Get(IqPayload::Ping));
                self.pipe.stanza(&Stanza::Iq(ping));
                self.ping = Some(id);
                self.timers.reply = Some(now + self.config.timers.reply);
            }
        }
    }
}
