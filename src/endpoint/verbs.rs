//! What an application asks of a call. Read XEP-0166 §6 and XEP-0167 §8 before touching this file.

use super::call::{Call, Stage};
use super::calls::FIND_LIMIT;
use super::event::{CallId, Event, Party};
use super::{Endpoint, Ends, Misuse, ends};
use crate::fault::ReasonCondition;
use crate::jingle::sessions::SessionId;
use crate::transport::path::Route;
use crate::wire::address::Address;
use crate::wire::jingle::Reason;
use std::time::Instant;

impl Endpoint {
    /// Calls somebody. A bare JID is called on the device that its presence recommends, or by asking all its devices
    /// (XEP-0353); a full JID is called there. A SIP address is called as it stands.
    ///
    /// # Errors
    /// [`Misuse::Offline`], [`Misuse::TooManyCalls`], [`Misuse::WrongNetwork`].
    pub fn call(&mut self, now: Instant, to: impl Into<Address>) -> Result<CallId, Misuse> {
        let to = match to.into() {
            Address::Xmpp(jid) if self.telephone.is_none() => jid,
            Address::Xmpp(_) => return Err(Misuse::WrongNetwork),
            Address::Sip(to) => return self.dial(now, *to),
        };
        if !self.online() {
            return Err(Misuse::Offline);
        }
        if self.calls.len() >= self.config.context.limits.sessions {
            return Err(Misuse::TooManyCalls);
        }
        let sid = self.sessions.new_sid();
        let id = self.next_call_id();
        let mut call = Call::new(id, to.clone(), sid, Party::Local, Stage::Finding(now + FIND_LIMIT));
        call.wanted = Some(now);
        self.calls.insert(id, call);
        self.find_devices(now);
        self.pump(now);
        Ok(id)
    }

    /// Takes an incoming call: the local consent, which nothing else can give.
    ///
    /// # Errors
    /// [`Misuse::NoCall`], [`Misuse::NotRinging`].
    pub fn accept(&mut self, now: Instant, id: CallId) -> Result<(), Misuse> {
        if self.is_line(id) {
            return self.pick_up(now, id);
        }
        let call = self.calls.get_mut(&id).ok_or(Misuse::NoCall)?;
        match std::mem::replace(&mut call.stage, Stage::Proceeding) {
            Stage::AlertingInvite => {
                call.wanted = Some(now);
                let (peer, sid) = (call.peer.to_bare(), call.sid.clone());
                if self.invites.proceed(now, &peer, &sid).is_err() {
                    // The caller has just given up; its news is on the way to the application.
                    if let Some(call) = self.calls.get_mut(&id) {
                        call.stage = Stage::AlertingInvite;
                        call.wanted = None;
                    }
                    return Err(Misuse::NotRinging);
                }
            }
            Stage::AlertingOffer(offer) => {
                call.wanted = Some(now);
                call.stage = Stage::Answering(offer);
                self.take_path(now, id);
            }
            other @ (Stage::Finding(_)
            | Stage::Proposed(_)
            | Stage::Opening
            | Stage::Offered
            | Stage::Proceeding
            | Stage::Answering(_)
            | Stage::Active) => {
                call.stage = other;
                return Err(Misuse::NotRinging);
            }
        }
        self.pump(now);
        Ok(())
    }

    /// Declines an incoming call; `busy` or `decline` are the usual reasons.
    ///
    /// # Errors
    /// [`Misuse::NoCall`].
    pub fn reject(&mut self, now: Instant, id: CallId, reason: ReasonCondition) -> Result<(), Misuse> {
        if self.is_line(id) {
            return self.turn_down(now, id, reason);
        }
        self.end_call(now, id, Some(Reason::new(reason)))
    }

    /// Ends a call in whatever state it is.
    ///
    /// # Errors
    /// [`Misuse::NoCall`].
    pub fn hang_up(&mut self, now: Instant, id: CallId) -> Result<(), Misuse> {
        if self.is_line(id) {
            return self.put_down(now, id);
        }
        self.end_call(now, id, None)
    }

    /// Puts the peer on hold or takes it back.
    ///
    /// # Errors
    /// [`Misuse::NoCall`], [`Misuse::NotActive`].
    pub fn hold(&mut self, now: Instant, id: CallId, on: bool) -> Result<(), Misuse> {
        if self.is_line(id) {
            return self.hold_line(now, id, on);
        }
        let (session, call) = self.active(id)?;
        call.quiet.held_by_us = on;
        if let Some(audio) = &mut call.media.audio {
            audio.set_on_hold(call.quiet.held_by_us || call.quiet.held_by_peer);
        }
        self.sessions.act(session, |s| s.hold(now, on)).and_then(|r| r).map_err(|_| Misuse::NotActive)?;
        self.emit(Event::Hold { call: id, on, by: Party::Local });
        self.pump(now);
        Ok(())
    }

    /// Mutes the microphone or opens it again, and tells the peer.
    ///
    /// # Errors
    /// [`Misuse::NoCall`], [`Misuse::NotActive`].
    pub fn mute(&mut self, now: Instant, id: CallId, on: bool) -> Result<(), Misuse> {
        if self.is_line(id) {
            return self.mute_line(id, on);
        }
        let (session, call) = self.active(id)?;
        if let Some(audio) = &mut call.media.audio {
            audio.set_muted(on);
        }
        self.sessions.act(session, |s| s.mute(now, on, None)).and_then(|r| r).map_err(|_| Misuse::NotActive)?;
        self.emit(Event::Mute { call: id, on, by: Party::Local });
        self.pump(now);
        Ok(())
    }

    /// Sends the other side elsewhere (SIP, RFC 5589 §6.1): it is asked to call `to` instead of us.
    ///
    /// # Errors
    /// [`Misuse::NoCall`], [`Misuse::NotActive`], [`Misuse::WrongNetwork`].
    pub fn transfer(&mut self, now: Instant, id: CallId, to: impl Into<Address>) -> Result<(), Misuse> {
        match to.into() {
            Address::Sip(to) if self.is_line(id) => self.transfer_line(now, id, *to),
            Address::Sip(_) | Address::Xmpp(_) if self.calls().any(|known| known == id) => Err(Misuse::WrongNetwork),
            Address::Sip(_) | Address::Xmpp(_) => Err(Misuse::NoCall),
        }
    }

    /// Queues a DTMF digit: RFC 4733 in the media; INFO where a SIP peer has no telephone-event.
    ///
    /// # Errors
    /// [`Misuse::NoCall`], [`Misuse::NotActive`], [`Misuse::Digit`].
    pub fn send_digit(&mut self, now: Instant, id: CallId, digit: char) -> Result<(), Misuse> {
        if self.is_line(id) {
            return self.press_key(now, id, digit);
        }
        let (_, call) = self.active(id)?;
        let audio = call.media.audio.as_mut().ok_or(Misuse::NotActive)?;
        audio.send_digit(digit).map_err(|why| Misuse::Digit(why.to_string()))
    }

    /// 20 ms of the microphone (960 samples, 48 kHz mono). `send` gets each datagram that is due; nothing is sent
    /// before both sides accepted.
    pub fn push_audio(&mut self, now: Instant, id: CallId, pcm: &[i16], send: &mut dyn FnMut(Route, &[u8])) {
        // Threat "answered before accept": the local consent is checked at the last gate before the network.
        let Some(Ends { leg: Some(leg), audio: Some(audio), talks: true, .. }) =
            ends(&mut self.calls, &mut self.telephone, id)
        else {
            return;
        };
        let datagram = &mut self.datagram;
        audio.push_pcm(now, pcm, &mut |rtp| {
            if let Some(route) = leg.send_rtp(now, rtp.payload_type, rtp.marker, rtp.time, rtp.payload, datagram) {
                send(route, datagram);
            }
        });
    }

    /// The next 10 or 20 ms of what is heard (480 or 960 samples, 48 kHz mono); silence while there is nothing.
    pub fn pull_audio(&mut self, now: Instant, id: CallId, pcm: &mut [i16]) {
        match ends(&mut self.calls, &mut self.telephone, id) {
            Some(Ends { audio: Some(audio), hears: true, .. }) => {
                audio.pull_pcm(now, pcm);
                self.drain_audio(now, id);
            }
            Some(_) | None => pcm.fill(0),
        }
    }

    pub(super) fn active(&mut self, id: CallId) -> Result<(SessionId, &mut Call), Misuse> {
        let call = self.calls.get_mut(&id).ok_or(Misuse::NoCall)?;
        match (call.session, &call.stage) {
            (Some(session), Stage::Active) => Ok((session, call)),
            _ => Err(Misuse::NotActive),
        }
    }
}
